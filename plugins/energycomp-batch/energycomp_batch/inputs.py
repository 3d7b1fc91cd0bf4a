"""The images that a command is given: files, the rows of tables, and the frames of movies, one after another."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from energycomp.cli import image_files
from energycomp.errors import InputError
from energycomp_batch.batch_image import BatchImage
from energycomp_batch.tables import TABLES, require, row_count, table_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def is_table(path: Path) -> bool:
    """Whether a file holds images as rows."""
    return path.suffix.lower() in TABLES


@attrs.frozen
class Inputs:
    """Image files and tables, as given, under their resolved paths; iterating reads the tables.

    Args:
        files: each once.
        column: of the images in tables.
    """

    files: dict[Path, Path]
    column: str | None = None

    @classmethod
    def of(cls, paths: Sequence[Path], *, without: Path | None = None, column: str | None = None) -> Inputs:
        """The files that are meant by paths, folders, lists and ranges.

        `@LIST` stands for the paths in a file, one per line; whether its files can be read is seen when they are.
        `{000..003}` stands for the numbers of a range. The rest is as in `image_files`.

        Args:
            without: file or folder of the results.
        """
        from energycomp.images import FORMATS

        found = cls({}, column)
        suffixes = FORMATS.keys() | TABLES
        for path, listed in _given(paths):
            try:
                found.files.update(image_files([path], without=without, suffixes=suffixes))
            except InputError:
                if not listed:
                    raise
                found.files[path.resolve()] = path
        tables = [path for path in found.files.values() if is_table(path)]
        for table in {path.suffix.lower(): path for path in tables}.values():  # one of each kind
            require(table)
        if column is not None and not tables:
            raise InputError(f"got --column {column} without a Parquet or tar file; leave it out")
        return found

    @property
    def single(self) -> bool:
        """Whether one file is the only image."""
        from energycomp.images import is_movie

        return len(self.files) == 1 and not any(is_table(path) or is_movie(path) for path in self.files)

    def expected(self) -> int | None:
        """The number of images; None where archives do not say it."""
        counts = list(map(_count, self.files))
        return None if None in counts else sum(count or 0 for count in counts)

    def __iter__(self) -> Iterator[BatchImage]:
        for path in self.files.values():
            try:
                yield from _images(path, self.column)
            except InputError as error:  # a table or a movie that breaks off ends with an image that cannot be read
                yield BatchImage(path, problem=str(error))


def _count(path: Path) -> int | None:
    """The number of images of a file; None for an archive."""
    from energycomp.images import frame_count, is_movie

    if is_table(path):
        return row_count(path)
    try:
        return frame_count(path) if is_movie(path) else 1
    except InputError:  # it is one image, which cannot be read
        return 1


def _images(path: Path, column: str | None) -> Iterator[BatchImage]:
    """The image of a file, the rows of a table, or the frames of a movie, from "#0"."""
    from energycomp.images import frames_of, is_movie, png

    if is_table(path):
        yield from table_rows(path, column)
    elif is_movie(path):
        for number, frame in enumerate(frames_of(path)):
            yield BatchImage(path, str(number), png(frame))
    else:
        yield BatchImage(path)


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
