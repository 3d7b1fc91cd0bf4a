"""Files that are either whole or absent: written under a temporary name, synced, verified and renamed."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import TYPE_CHECKING

from energycomp.errors import CheckpointError, EnergycompError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 10_000_000
SUFFIX = "[0-9a-f]" * 16
MOST_OF_NAME = 50  # characters of the name of a file in that of its temporary one; a name has 255 bytes at most
# Files beside a model that people and the hub add and change, such as the model card. Nothing here reads them.
DOCUMENTS = frozenset({".bib", ".cff", ".gif", ".jpeg", ".jpg", ".md", ".pdf", ".png", ".svg", ".txt", ".webp"})
NAMED_DOCUMENTS = frozenset({".gitattributes", ".gitignore", "LICENSE", "NOTICE"})
BOOKKEEPING = frozenset({".cache", ".git"})  # folders of the hub's client and of git


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

    The manifest lists `{file: {sha256, size}}`. No system replaces a folder in one operation: an older `path` is
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
            sums = {n: {"sha256": _sha256(f), "size": f.stat().st_size} for n, f in _files(temporary).items()}
            (temporary / MANIFEST).write_text(json.dumps(sums, indent=2, sort_keys=True) + "\n", encoding="utf-8")
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

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     (Path(folder) / ".model.tmp-0123456789abcdef").mkdir()
    ...     [path.name for path in remove_stale(folder)]
    ['.model.tmp-0123456789abcdef']
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


def verify(path: str | Path) -> None:
    """Compares the files in a folder with its manifest: names first, then sizes, then sha256.

    Documents are not compared: text, images, and the files of git. They may be added, edited or removed.

    Raises:
        CheckpointError: no readable manifest; a missing, extra or altered file, which the message names; or a link to
            a file outside the folder (except those of the hub's cache, to the blobs beside it).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_directory(Path(folder) / "model") as temporary:
    ...         _ = (temporary / "config.json").write_text("{}")
    ...     _ = (Path(folder) / "model" / "config.json").write_text("{ }")
    ...     verify(Path(folder) / "model")
    Traceback (most recent call last):
    energycomp.errors.CheckpointError: ... holds an edited config.json, which has 3 bytes, the manifest says 2...
    """
    path = Path(path)
    manifest = {name: entry for name, entry in _read_manifest(path).items() if not _is_document(name)}
    files = {name: file for name, file in _files(path).items() if not _is_document(name)}
    for problem, names in (("missing", manifest.keys() - files.keys()), ("extra", files.keys() - manifest.keys())):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise _damaged(path, f"{problem} file {', '.join(sorted(names)[:3])}{more}")
    try:
        for name, file in files.items():
            _check_inside(path, name, file)
            if (size := file.stat().st_size) != manifest[name]["size"]:
                raise _altered(path, file, name, f"has {size} bytes, the manifest says {manifest[name]['size']}")
        for name, file in files.items():
            if _sha256(file) != manifest[name]["sha256"]:
                raise _altered(path, file, name, "is altered, its sha256 is not the manifest's")
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error}. Check its permissions and the disk.") from error


def listed(path: str | Path) -> list[str]:
    """The names of the files in a folder's manifest; none where there is no manifest."""
    return sorted(_read_manifest(Path(path))) if (Path(path) / MANIFEST).is_file() else []


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
    """16 hex digits that are the same for the same names and numbers.

    >>> import torch
    >>> fingerprint({"w": torch.zeros(2)}) == fingerprint({"w": torch.ones(2)})
    False
    """
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


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(path: Path) -> dict[str, Path]:
    """The files in a folder, by their names in its manifest."""
    files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    files.pop(MANIFEST, None)
    return files


def _is_document(name: str) -> bool:
    """Whether a file is no part of a model.

    >>> _is_document("README.md"), _is_document(".git/config"), _is_document("model.safetensors")
    (True, True, False)
    """
    path = PurePosixPath(name)
    known = path.suffix.lower() in DOCUMENTS or path.name in NAMED_DOCUMENTS
    return known or not BOOKKEEPING.isdisjoint(path.parts[:1])


def _altered(path: Path, file: Path, name: str, how: str) -> CheckpointError:
    """A file that is not what was written. JSON that can be read was edited by a person; anything else is damaged."""
    if file.suffix == ".json":
        with suppress(ValueError):
            json.loads(file.read_text(encoding="utf-8"))
            return CheckpointError(
                f"{path} holds an edited {name}, which {how}. Expected the file as it was written; undo the edit. To "
                "change a setting, load the model, change it in Python, and write it by save_pretrained."
            )
    return _damaged(path, f"{name} {how}")


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged: {what}. Expected exactly the files that {MANIFEST} lists; restore the folder or delete it."
    )


def _check_inside(path: Path, name: str, file: Path) -> None:
    try:
        root, target = path.resolve(), file.resolve()
    except (OSError, RuntimeError) as error:  # before Python 3.13 a loop of links is a RuntimeError
        raise _damaged(path, f"{name} is a link that leads nowhere ({error})") from error
    blobs = [folder.parent / "blobs" for folder in root.parents if folder.name == "snapshots"]  # of the hub's cache
    if not target.is_relative_to(root) and target.parent not in blobs:
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
