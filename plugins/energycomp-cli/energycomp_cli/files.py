"""Files of the commands: images that are read, PNG files that are written, and folders."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import typer

from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet

    from PIL import Image

RESULTS = "results.jsonl"  # marks a folder that `energycomp infer` wrote
SETTINGS = "_settings.json"  # marks a folder of Parquet files that `energycomp batch` wrote


def check_png(path: Path, option: str = "-o", *, formats: Sequence[str] = (".png",)) -> None:
    """Raises `InputError` where no PNG, or file of these formats, can be written, before any work; creates nothing."""
    kind = "a PNG file" if len(formats) == 1 else "a PNG, JPEG or WebP file"
    try:
        if path.is_dir():
            raise InputError(f"got {option} {path}, a folder; expected {kind}, such as {path / 'image.png'}")
        if path.suffix.lower() not in formats:
            example = path.with_suffix(".png") if path.stem[:1].isalnum() else "image.png"
            raise InputError(f"got {option} {path}; expected the name of {kind}, such as {example}")
    except OSError as error:  # such as too long a name
        raise InputError(f"got {option} {path}, which cannot be a file ({error.strerror}); choose another") from error
    check_folder(path.parent, option, path=path, expected=f"{kind} in a folder that can be written")


def check_folder(
    folder: Path, option: str, *, path: Path | None = None, expected: str = "a folder that can be written"
) -> None:
    """Raises `InputError` where a folder cannot be made or written, before any work; creates nothing.

    Args:
        path: what the option names; the folder when left out.
        expected: what the option expects.
    """
    known = folder.absolute()
    try:
        known = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        reason = None if known.is_dir() and os.access(known, os.W_OK) else f"{known} is not"
        if reason is None:
            with TemporaryFile(dir=known):  # some file systems, such as /proc, only refuse the file itself
                pass
    except OSError as error:
        reason = f"{known} is not" if known.is_dir() else error.strerror
    if reason is not None:
        raise InputError(f"got {option} {path or folder}; expected {expected}; {reason}")


def make_folder(folder: Path, option: str) -> Path:
    """Makes the folder and its parents where they are missing; raises `InputError` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"got {option} {folder}; expected a folder that can be written; {error.strerror}") from error
    return folder


def read_image(path: Path, *, written: bool = False) -> Image.Image:
    """The one image of a file, after a warning on stderr of what is not kept of it.

    Args:
        written: whether an image of the same kind is written, which has 8 bits a channel and no transparency.
    """
    from energycomp.images import lost, open_image
    from energycomp.progress import over_bar

    image = open_image(path, single=True)
    notes = lost(path)
    if not written:
        notes.pop("depth", None)  # no model has more
    elif notes.keys() & {"depth", "transparency"}:
        notes["written"] = "what is written has 8 bits a channel and no transparency"
    if notes:
        with over_bar():
            typer.echo(f"energycomp: warning: {path}: {'; '.join(notes.values())}", err=True)
    return image


def check_any_image(files: Sequence[Path]) -> None:
    """Raises `InputError` where none of the files can be read as an image or a table, by their first bytes alone.

    Args:
        files: named by a person, or found in folders; movies and tables are not opened.
    """
    from energycomp.images import FORMATS, is_movie, lost
    from energycomp_cli.output import TABLES

    first = None
    for path in files:
        if path.suffix.lower() in TABLES or is_movie(path):
            return
        try:
            lost(path)
        except InputError as error:
            first = first or error
        else:
            return
    if first is not None:
        formats = ", ".join(dict.fromkeys(FORMATS.values()))
        raise InputError(f"{first}; the formats are {formats}, and MP4 with energycomp[mp4]")


def count_skipped(paths: Sequence[Path], files: Mapping[Path, Path]) -> int:
    """How many files directly in the folders that were named are no images by the ends of their names."""
    folders = [path for path in paths if path.is_dir()]
    inside = [entry for folder in folders for entry in folder.iterdir() if not entry.name.startswith(".")]
    return sum(entry.is_file() and entry.resolve() not in files for entry in inside)


def image_files(
    paths: Sequence[Path], *, without: Path | None = None, suffixes: AbstractSet[str] | None = None
) -> dict[Path, Path]:
    """The image files of all paths, each once, under its resolved path, and with its first name.

    Those of a folder, and of the folders in it, are sorted by name. Left out are hidden ones, links to folders, and
    folders of results inside it (with results.jsonl, or that of a shard, or _settings.json).

    Args:
        without: a file or folder inside a folder that is left out, such as that of the results.
        suffixes: of the files that are taken from folders; those of images when left out.
    """
    from energycomp.images import FORMATS, check_no_address

    found: dict[Path, Path] = {}
    suffixes = FORMATS.keys() if suffixes is None else suffixes
    for path in paths:
        try:
            is_folder, is_file = path.is_dir(), path.is_file()
        except OSError:  # too long a name
            is_folder = is_file = False
        if not (is_folder or is_file):
            check_no_address(path)
            raise InputError(f"got {path}, which does not exist; expected an image or a folder of images")
        files = [path]
        if is_folder:
            try:
                files = sorted(_inside(path, without and without.resolve(), suffixes))
            except OSError as error:
                raise InputError(
                    f"got {path}, in which {error.filename} cannot be read ({error.strerror}); check its permissions, "
                    "or name the folders in it"
                ) from error
            if not files:
                raise InputError(f"got {path} without an image in it; expected PNG or JPEG files; name another folder")
        for file in files:
            found.setdefault(file.resolve(), file)
    return found


def _inside(folder: Path, without: Path | None, suffixes: AbstractSet[str]) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            results = [entry / SETTINGS, *result_files(entry / RESULTS)]
            if entry.resolve() != without and not any(file.exists() for file in results):
                yield from _inside(entry, without, suffixes)
        elif entry.suffix.lower() in suffixes and entry.resolve() != without:
            yield entry


def result_files(lines: Path) -> list[Path]:
    """The file of a process that reads everything, then those of the shards of energycomp batch and evaluate."""
    return [lines, *sorted(lines.parent.glob(f"{lines.stem}-[0-9]*-of-[0-9]*{lines.suffix}"))]
