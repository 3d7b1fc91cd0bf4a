"""Files of the commands: images that are read, PNG files that are written, and folders."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from energycomp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set as AbstractSet


RESULTS = "results.jsonl"  # marks a folder that `energycomp infer` wrote


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
    try:
        known = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    except OSError as error:
        raise InputError(
            f"got {option} {path or folder}, which cannot be made ({error.strerror}); expected {expected}"
        ) from error
    if not known.is_dir() or not os.access(known, os.W_OK):
        raise InputError(f"got {option} {path or folder}; expected {expected}; {known} is not")


def sample_files(out: Path, n: int, as_grid: bool) -> list[Path]:
    """The files of n samples: one for a grid, otherwise one per sample, with numbers of equal width."""
    from energycomp.images import WRITTEN

    if as_grid and n == 1:
        raise InputError("got --grid with one sample; expected several, such as -n 4; leave --grid out for one")
    if as_grid and out.suffix.lower() in set(WRITTEN) - {".png"}:
        raise InputError(f"got --grid with {out}; expected a PNG file, which says that it shows several images")
    check_png(out, formats=WRITTEN)
    if as_grid or n == 1:
        return [out]
    files = [out.with_stem(f"{out.stem}-{number:0{len(str(n))}}") for number in range(1, n + 1)]
    for file in files:
        check_png(file, formats=WRITTEN)
    return files


def image_files(paths: Sequence[Path], *, without: Path | None = None, tables: bool = False) -> dict[Path, Path]:
    """The image files of all paths, each once, under its resolved path.

    Those of a folder, and of the folders in it, are sorted by name; hidden ones are left out, and so are folders of
    results (with a file results.jsonl, or that of a shard) inside it. `@LIST` stands for the paths in a file, one per
    line; whether its files can be read is seen when they are. `{000..003}` stands for the numbers of a range.

    Args:
        without: a file or folder inside a folder that is left out, such as that of the results.
        tables: whether Parquet and tar files are taken from folders, too.
    """
    from energycomp.batch.tables import TABLES
    from energycomp.images import FORMATS

    found: dict[Path, Path] = {}
    suffixes = FORMATS.keys() | (TABLES if tables else ())
    for path, listed in _given(paths):
        try:
            is_folder, is_file = path.is_dir(), path.is_file()
        except OSError:  # too long a name
            is_folder = is_file = False
        if is_folder:
            try:
                files = sorted(_inside(path, None if without is None else without.resolve(), suffixes))
            except OSError as error:
                raise InputError(
                    f"got {path}, in which {error.filename} cannot be read ({error.strerror}); check its permissions, "
                    "or name the folders in it"
                ) from error
            if not files:
                raise InputError(f"got {path} without an image in it; expected PNG or JPEG files; name another folder")
        elif is_file or listed:
            files = [path]
        else:
            raise InputError(f"got {path}, which does not exist; expected an image or a folder of images")
        found.update((file.resolve(), file) for file in files)
    return found


def _given(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """The paths, and those of lists, each with whether it is of a list."""
    for path in (one for given in paths for one in _numbered(given)):
        if not str(path).startswith("@") or path.exists():
            yield path, False
            continue
        try:
            with Path(str(path)[1:]).open(encoding="utf-8", errors="surrogateescape") as lines:
                for line in filter(str.strip, lines):
                    if "\0" in line:
                        raise InputError(
                            f"got {path}, a file that is no text; expected @ and a file with a path per line"
                        )
                    yield Path(line.rstrip("\r\n")), True
        except OSError as error:
            raise InputError(
                f"got {path}, whose list cannot be read ({error.strerror}); expected @ and a file with a path per line"
            ) from error


def _numbered(path: Path) -> Iterator[Path]:
    """The paths of a range such as shards/{000..003}.tar, which not every shell writes out.

    Raises:
        InputError: the range ends before it begins.

    >>> [str(path) for path in _numbered(Path("{08..10}.tar"))]
    ['08.tar', '09.tar', '10.tar']
    """
    found = re.search(r"\{(\d{1,18})\.\.(\d{1,18})\}", str(path))
    if found is None or os.path.lexists(path):
        yield path
        return
    first, last = int(found[1]), int(found[2])
    if first > last:
        raise InputError(f"got {path}, a range that ends before it begins; expected {{{found[2]}..{found[1]}}}")
    for number in range(first, last + 1):  # whoever takes the paths stops at the first that does not exist
        yield from _numbered(Path(f"{str(path)[: found.start()]}{number:0{len(found[1])}}{str(path)[found.end() :]}"))


def _inside(folder: Path, without: Path | None, suffixes: AbstractSet[str]) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            if entry.resolve() != without and not _holds_results(entry):
                yield from _inside(entry, without, suffixes)
        elif entry.suffix.lower() in suffixes and entry.resolve() != without:
            yield entry


def _holds_results(folder: Path) -> bool:
    return (folder / RESULTS).exists() or any(folder.glob("results-*-of-*.jsonl"))


def make_folder(folder: Path, option: str) -> Path:
    """Makes the folder and its parents where they are missing; raises `InputError` where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"got {option} {folder}, which cannot be made ({error.strerror}); expected a folder that can be written"
        ) from error
    return folder
