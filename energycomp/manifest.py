"""The manifest of a folder: what it holds, with sizes and sha256 sums, and whether it still does."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path, PurePosixPath

from energycomp.errors import CheckpointError

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 10_000_000
# Files beside a model that people and the hub add and change, such as the model card. Nothing here reads them.
DOCUMENTS = frozenset({".bib", ".cff", ".gif", ".jpeg", ".jpg", ".md", ".pdf", ".png", ".svg", ".txt", ".webp"})
NAMED_DOCUMENTS = frozenset({".gitattributes", ".gitignore", "LICENSE", "NOTICE"})
BOOKKEEPING = frozenset({".cache", ".git"})  # folders of the hub's client and of git


def write_manifest(path: Path) -> None:
    """Writes into a folder the list of its files, `{file: {sha256, size}}`."""
    sums = {name: {"sha256": _sha256(file), "size": file.stat().st_size} for name, file in _files(path).items()}
    (path / MANIFEST).write_text(json.dumps(sums, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def verify(path: str | Path) -> None:
    """Compares the files in a folder with its manifest: names first, then sizes, then sha256.

    Documents are not compared: text, images, and the files of git. They may be added, edited or removed.

    Raises:
        CheckpointError: no readable manifest; a missing, extra or altered file, which the message names; or a link to
            a file outside the folder (except those of the hub's cache, to the blobs beside it).
    """
    path = Path(path)
    manifest = {name: entry for name, entry in _read_manifest(path).items() if not _is_document(name)}
    files = {name: file for name, file in _files(path).items() if not _is_document(name)}
    for problem, names in (("missing", manifest.keys() - files.keys()), ("extra", files.keys() - manifest.keys())):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise _damage(path, f"{problem} file {', '.join(sorted(names)[:3])}{more}")
    try:
        for name, file in files.items():
            _check_inside(path, name, file)
            size = file.stat().st_size
            if size != manifest[name]["size"]:
                raise _alteration(path, file, name, f"has {size} bytes, the manifest says {manifest[name]['size']}")
        for name, file in files.items():
            if _sha256(file) != manifest[name]["sha256"]:
                raise _alteration(path, file, name, "is altered, its sha256 is not the manifest's")
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error}. Check its permissions and the disk.") from error


def list_files(path: str | Path) -> list[str]:
    """The names of the files in a folder's manifest; none where there is no manifest."""
    return sorted(_read_manifest(Path(path))) if (Path(path) / MANIFEST).is_file() else []


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _files(path: Path) -> dict[str, Path]:
    """The files in a folder, by their names in its manifest."""
    files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    files.pop(MANIFEST, None)
    return files


def _is_document(name: str) -> bool:
    """Whether a file is no part of a model."""
    path = PurePosixPath(name)
    known = path.suffix.lower() in DOCUMENTS or path.name in NAMED_DOCUMENTS
    return known or not BOOKKEEPING.isdisjoint(path.parts[:1])


def _alteration(path: Path, file: Path, name: str, how: str) -> CheckpointError:
    """A file that is not what was written. JSON that can be read was edited by a person; anything else is damaged."""
    if file.suffix == ".json":
        with suppress(ValueError):
            json.loads(file.read_text(encoding="utf-8"))
            return CheckpointError(
                f"{path} holds an edited {name}, which {how}. Expected the file as it was written; undo the edit. To "
                "change a setting, load the model, change it in Python, and write it by save_pretrained."
            )
    return _damage(path, f"{name} {how}")


def _damage(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged: {what}. Expected exactly the files that {MANIFEST} lists; restore the folder or delete it."
    )


def _check_inside(path: Path, name: str, file: Path) -> None:
    try:
        root, target = path.resolve(), file.resolve()
    except (OSError, RuntimeError) as error:  # before Python 3.13 a loop of links is a RuntimeError
        raise _damage(path, f"{name} is a link that leads nowhere ({error})") from error
    blobs = [folder.parent / "blobs" for folder in root.parents if folder.name == "snapshots"]  # of the hub's cache
    if not target.is_relative_to(root) and target.parent not in blobs:
        raise _damage(path, f"{name} is a link out of the folder")


def _read_manifest(path: Path) -> dict[str, dict[str, str | int]]:
    file = path / MANIFEST
    try:
        _check_inside(path, MANIFEST, file)
        if file.exists() and not file.is_file():
            raise _damage(path, f"{MANIFEST} is no regular file")
        if file.stat().st_size > MAX_MANIFEST_BYTES:
            raise _damage(path, f"{MANIFEST} has {file.stat().st_size:,} bytes, over {MAX_MANIFEST_BYTES:,}")
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damage(path, f"{MANIFEST} cannot be read ({error})") from error
    if not isinstance(manifest, dict):
        raise _damage(path, f"{MANIFEST} holds {type(manifest).__name__}, not an object")
    for name, entry in manifest.items():
        if not isinstance(entry, dict) or entry.keys() != {"sha256", "size"}:
            raise _damage(path, f"{MANIFEST} lacks the size or sha256 of {name:.60}, or says more")
    return manifest
