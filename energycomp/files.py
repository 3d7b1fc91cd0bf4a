"""Files that are either whole or absent: written under a temporary name, synced, verified and renamed."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from energycomp.errors import CheckpointError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MANIFEST",
    "atomic_directory",
    "atomic_file",
    "discard",
    "fingerprint",
    "read_tensors",
    "remove_stale",
    "verify",
    "write_tensors",
]

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 10_000_000


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write to; it replaces `path` when the block ends without an error.

    Raises:
        CheckpointError: the file cannot be written (full disk, read-only or missing folder); `path` is as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_file(Path(folder) / "log.txt") as temporary:
    ...         _ = temporary.write_text("done")
    ...     [file.name for file in Path(folder).iterdir()]
    ['log.txt']
    """
    path = Path(path)
    temporary = _temporary_name(path, "tmp")
    try:
        with _our_errors(path), _locked(temporary, directory=False):
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

    The manifest lists `{file: {sha256, size}}`. An older `path` is moved aside before the rename and removed after it;
    after a crash between the two, `remove_stale` puts it back.

    Raises:
        CheckpointError: the folder cannot be written (full disk, read-only or missing parent); `path` is as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_directory(Path(folder) / "model") as temporary:
    ...         _ = (temporary / "config.json").write_text("{}")
    ...     sorted(file.name for file in (Path(folder) / "model").iterdir())
    ['config.json', 'manifest.json']
    """
    path = Path(path)
    temporary = _temporary_name(path, "tmp")
    try:
        with _our_errors(path), _locked(temporary, directory=True):
            yield temporary
            _write_manifest(temporary)
            for entry in [*temporary.rglob("*"), temporary]:
                _sync(entry)
            _replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def verify(path: str | Path) -> None:
    """Compare the files in a folder with its manifest: names first, then sizes, then sha256.

    Raises:
        CheckpointError: no readable manifest, or a missing, extra or altered file, which the message names, or a
            link to a file outside the folder (but those of the hub's cache, to the blobs beside it).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_directory(Path(folder) / "model") as temporary:
    ...         _ = (temporary / "config.json").write_text("{}")
    ...     _ = (Path(folder) / "model" / "config.json").write_text("{ }")
    ...     verify(Path(folder) / "model")
    Traceback (most recent call last):
    energycomp.errors.CheckpointError: ... is damaged: config.json has 3 bytes, the manifest says 2...
    """
    path = Path(path)
    manifest = _read_manifest(path)
    files = _files(path)
    for problem, names in (("missing", manifest.keys() - files.keys()), ("extra", files.keys() - manifest.keys())):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise _damaged(path, f"{problem} file {', '.join(sorted(names)[:3])}{more}")
    try:
        for name, file in files.items():
            _check_inside(path, name, file)
        for name, file in files.items():
            size = file.stat().st_size
            if size != manifest[name]["size"]:
                raise _damaged(path, f"{name} has {size} bytes, the manifest says {manifest[name]['size']}")
        for name, file in files.items():
            if _sha256(file) != manifest[name]["sha256"]:
                raise _damaged(path, f"{name} is altered, its sha256 is not the manifest's")
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error}. Check its permissions and the disk.") from error


def remove_stale(parent: str | Path) -> list[Path]:
    """Clear `parent` of what killed runs left: temporary files and folders go, a folder moved aside comes back or goes.

    What a living process is writing holds a lock and stays. Returns the paths that were removed or put back.

    Raises:
        CheckpointError: something stale cannot be removed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / ".model.tmp-0123456789abcdef").mkdir()
    ...     [path.name for path in remove_stale(folder)]
    ['.model.tmp-0123456789abcdef']
    """
    parent = Path(parent)
    stale = []
    with _our_errors(parent):
        for path in sorted(parent.glob(".*.old-" + "[0-9a-f]" * 16)):
            target = parent / path.name[1:].rsplit(".old-", 1)[0]
            if target.exists():
                discard(path)
            else:
                path.rename(target)
            stale.append(path)
        for path in sorted(parent.glob(".*.tmp-" + "[0-9a-f]" * 16)):
            if _is_locked(path):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            stale.append(path)
    return stale


def discard(path: str | Path) -> None:
    """Remove a folder so that a crash half-way leaves a stale temporary name, never a folder with files missing.

    Raises:
        CheckpointError: the folder cannot be removed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / "old").mkdir()
    ...     discard(Path(folder) / "old")
    ...     list(Path(folder).iterdir())
    []
    """
    path = Path(path)
    temporary = _temporary_name(path, "tmp")
    with _our_errors(path):
        path.rename(temporary)
        shutil.rmtree(temporary)


def write_tensors(path: str | Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Write tensors of any device and layout as safetensors; tensors that share memory are written apart.

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
    try:
        save_file(copies, path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"Cannot write {path}: {error}. Check the free space and the permissions.") from error


def read_tensors(path: str | Path) -> dict[str, "Tensor"]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        CheckpointError: the file is absent or no safetensors file.

    >>> read_tensors("absent.safetensors")
    Traceback (most recent call last):
    energycomp.errors.CheckpointError: Cannot read absent.safetensors: ...
    """
    from safetensors.torch import load_file

    if Path(path).exists() and not Path(path).is_file():  # opening a pipe would wait for its other end
        raise CheckpointError(f"Cannot read {path}: it is no regular file. Restore the file or name another.")
    try:
        return load_file(path)
    except Exception as error:  # of a damaged header also KeyError, TypeError and RuntimeError
        raise CheckpointError(f"Cannot read {path}: {error}. Restore the file or name another.") from error


def _temporary_name(path: Path, kind: str) -> Path:
    return path.parent / f".{path.name}.{kind}-{token_hex(8)}"


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged: {what}. Expected exactly the files that {MANIFEST} lists; restore the folder or delete it."
    )


@contextmanager
def _our_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"Cannot write {path}: {error}. Expected a writable folder with free space; "
            "free some or name another folder. What was there before is unchanged."
        ) from error


@contextmanager
def _locked(path: Path, *, directory: bool) -> Iterator[None]:
    """Create `path` and hold a lock on it, which the kernel frees when the process dies (on Windows there is none)."""
    if directory:
        path.mkdir()
    else:
        path.touch()
    if sys.platform == "win32":
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _is_locked(path: Path) -> bool:
    if sys.platform == "win32":
        return False
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace_directory(temporary: Path, path: Path) -> None:
    if not path.exists():
        temporary.rename(path)
        _sync(path.parent)
        return
    aside = _temporary_name(path, "old")
    path.rename(aside)
    try:
        temporary.rename(path)
    except OSError:
        aside.rename(path)
        raise
    _sync(path.parent)
    discard(aside)


def _files(path: Path) -> dict[str, Path]:
    files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    files.pop(MANIFEST, None)
    return files


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_manifest(folder: Path) -> None:
    manifest = {name: {"sha256": _sha256(file), "size": file.stat().st_size} for name, file in _files(folder).items()}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_inside(path: Path, name: str, file: Path) -> None:
    try:
        root, target = path.resolve(), file.resolve()
    except (OSError, RuntimeError) as error:  # before Python 3.13 a loop of links is a RuntimeError
        raise _damaged(path, f"{name} is a link that leads nowhere ({error})") from error
    if not target.is_relative_to(root) and target.parent != root.parent.parent / "blobs":
        raise _damaged(path, f"{name} is a link out of the folder")


def _read_manifest(path: Path) -> dict[str, dict[str, str | int]]:
    file = path / MANIFEST
    try:
        _check_inside(path, MANIFEST, file)
        if file.exists() and not file.is_file():
            raise _damaged(path, f"{MANIFEST} is no regular file")
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise _damaged(path, f"{MANIFEST} has {file.stat().st_size:,} bytes, over {MAX_MANIFEST_BYTES:,}")
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, f"{MANIFEST} cannot be read ({error})") from error
    if not isinstance(manifest, dict):
        raise _damaged(path, f"{MANIFEST} holds {type(manifest).__name__}, not an object")
    for name, entry in manifest.items():
        if not isinstance(entry, dict) or entry.keys() != {"sha256", "size"}:
            raise _damaged(path, f"{MANIFEST} lacks the size or sha256 of {name:.60}, or says more")
    return manifest


def fingerprint(tensors: Mapping[str, "Tensor"]) -> str:
    """16 hex digits that are the same for the same names and numbers.

    >>> import torch
    >>> one, other = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    >>> fingerprint(one) == fingerprint({"w": torch.zeros(2)}), fingerprint(one) == fingerprint(other)
    (True, False)
    """
    import torch

    found = hashlib.sha256()
    for name, tensor in tensors.items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]
