"""Files that are either whole or absent: written under a temporary name, synced and renamed."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from energycomp.errors import CheckpointError, EnergycompError
from energycomp.manifest import write_manifest

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = "[0-9a-f]" * 16
MOST_OF_NAME = 50  # characters of the name of a file in that of its temporary one; a name has 255 bytes at most


def cache_folder() -> Path:
    """The folder of what is made again where it is missing: ENERGYCOMP_CACHE, by default ~/.cache/energycomp."""
    return Path(os.environ.get("ENERGYCOMP_CACHE") or "~/.cache/energycomp").expanduser()


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write to; it replaces `path` when the block ends without an error.

    Raises:
        CheckpointError: the file cannot be written (full disk, read-only or missing folder); `path` is as it was.
    """
    path = Path(path)
    temporary = _beside(path.with_name(path.name[:MOST_OF_NAME]), "tmp")
    try:
        with _our_errors(path):
            temporary.touch()
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it becomes `path`, with a manifest, when the block ends without error.

    The manifest is that of `energycomp.manifest`. No system replaces a folder in one operation: an older `path` is
    renamed before the new one takes its name, and `remove_stale` puts it back if the process is killed between the two.

    Raises:
        CheckpointError: the folder cannot be written (full disk, read-only or missing parent); `path` is as it was.
    """
    path = Path(path)
    temporary, old = _beside(path, "tmp"), _beside(path, "old")
    try:
        with _our_errors(path):
            temporary.mkdir()
            yield temporary
            write_manifest(temporary)
            for entry in [*temporary.rglob("*"), temporary]:
                _sync(entry)
            if path.exists():
                path.rename(old)
            temporary.rename(path)
            _sync(path.parent)
    finally:
        with suppress(OSError):
            if old.exists():
                old.rename(temporary if path.exists() else path)
        shutil.rmtree(temporary, ignore_errors=True)


def remove_stale(parent: str | Path) -> list[Path]:
    """Removes the temporary files and folders that killed processes left in `parent`, and completes their replacements.

    Call it where no other process writes: what another one is writing would be removed, too. Returns the paths that
    were removed or put back.

    Raises:
        CheckpointError: a path cannot be removed.
    """
    parent = Path(parent)
    with _our_errors(parent):
        stale = sorted(parent.glob(f".*.old-{SUFFIX}")) + sorted(parent.glob(f".*.tmp-{SUFFIX}"))
        for path in stale:
            target = parent / path.name[1:].rsplit(".", 1)[0]
            if path.suffix.startswith(".old-") and not target.exists():
                path.rename(target)
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    return stale


def write_tensors(path: str | Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors of any device and layout as safetensors; tensors that share memory are written separately.

    Args:
        metadata: texts in the header of the file.

    Raises:
        CheckpointError: the file cannot be written.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensors(Path(folder) / "a.safetensors", {"weight": torch.ones(2, 3)})
    ...     read_tensors(Path(folder) / "a.safetensors")["weight"].shape
    torch.Size([2, 3])
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    copies = {
        name: tensor.detach().to("cpu", copy=True).contiguous(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    path = Path(path)
    # A killed process leaves what safetensors writes, under a drawn name; `remove_stale` knows the name of the folder.
    folder = _beside(path, "tmp")
    try:
        path.touch()
        mode = path.stat().st_mode  # 0666 without the umask; safetensors makes a new file of mode 0600
        folder.mkdir()
        save_file(copies, folder / path.name, None if metadata is None else dict(metadata))
        (folder / path.name).chmod(mode)
        (folder / path.name).replace(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"Cannot write {path}: {error}. Check the free space and the permissions.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_tensors(path: str | Path) -> dict[str, "Tensor"]:
    """The tensors of a safetensors file, on the CPU; raises `CheckpointError` where it is absent or no such file."""
    from safetensors.torch import load_file

    if Path(path).exists() and not Path(path).is_file():  # opening a pipe would wait for its other end
        raise CheckpointError(f"Cannot read {path}: it is no regular file. Restore the file or name another.")
    try:
        return load_file(path)
    except Exception as error:  # of a damaged header also KeyError, TypeError and RuntimeError
        raise CheckpointError(f"Cannot read {path}: {error}. Restore the file or name another.") from error


def fingerprint(tensors: Mapping[str, "Tensor"]) -> str:
    """16 hex digits that are the same for the same names and numbers."""
    import torch

    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def _beside(path: Path, kind: str) -> Path:
    return path.parent / f".{path.name}.{kind}-{token_hex(8)}"


@contextmanager
def _our_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (EnergycompError, BrokenPipeError):
        raise
    except OSError as error:
        raise CheckpointError(
            f"Cannot write {path}: {error}. Expected a writable folder with free space; "
            "free some or name another folder. What was there before is unchanged."
        ) from error


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
