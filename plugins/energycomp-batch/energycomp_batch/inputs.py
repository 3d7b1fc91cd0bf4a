"""The images that a command is given: files and URLs, and the rows of tables, one after another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.cli import image_files
from energycomp.errors import InputError
from energycomp_batch.picture import Picture
from energycomp_batch.places import files_in, is_url, place_of, reaching
from energycomp_batch.tables import TABLES, require, row_count, table_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def is_table(path: Any) -> bool:
    """Whether a file holds images as rows."""
    return path.suffix.lower() in TABLES


@attrs.frozen
class Inputs:
    """Image files and tables, as given, under their resolved paths; iterating reads the files and tables.

    Args:
        files: each once.
        column: of the images in tables.
    """

    files: dict[Any, Any]
    column: str | None = None

    @classmethod
    def of(cls, paths: Sequence[str | Path], *, without: Any = None, column: str | None = None) -> Inputs:
        """The files that are meant by paths, URLs, folders and lists.

        `@LIST` stands for the paths in a file, one per line; whether its files can be read is seen when they are. The
        rest is as in `image_files`.

        Args:
            without: file or folder of the results.
        """
        from energycomp.images import FORMATS

        found, suffixes = cls({}, column), FORMATS.keys() | TABLES
        for text, listed in _given(paths):
            path = place_of(text)
            if is_url(path):
                files = [path] if listed else files_in(path, suffixes, without)
                found.files.update((file, file) for file in files)
                continue
            try:
                found.files.update(image_files([path], without=None if is_url(without) else without, suffixes=suffixes))
            except InputError:
                if not listed:
                    raise
                found.files[path.resolve()] = path
        tables = [path for path in found.files.values() if is_table(path)]
        for table in {path.suffix.lower(): path for path in reversed(tables)}.values():  # the first of each kind
            require(table)
            if column is not None:
                next(table_rows(table, column), None)
        if column is not None and not tables:
            raise InputError(f"got --column {column} without a Parquet or tar file; leave it out")
        return found

    @property
    def single(self) -> bool:
        """Whether one file is the only image."""
        return len(self.files) == 1 and not any(map(is_table, self.files))

    def expected(self) -> int | None:
        """The number of images; None where archives do not say it."""
        counts = [row_count(path) if is_table(path) else 1 for path in self.files]
        return None if None in counts else sum(count or 0 for count in counts)

    def __iter__(self) -> Iterator[Picture]:
        for path in self.files.values():
            if not is_table(path):
                yield Picture.at(path)
                continue
            try:
                yield from table_rows(path, self.column)
            except InputError as error:  # a table that breaks off ends with an image that cannot be read
                yield Picture(path, problem=str(error))


def _given(paths: Sequence[str | Path]) -> Iterator[tuple[str, bool]]:
    """The paths, and those of lists, each with whether it is of a list."""
    for path in map(str, paths):
        if not path.startswith("@") or os.path.lexists(path):
            yield path, False
            continue
        with reaching(path), place_of(path[1:]).open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in filter(str.strip, lines):
                if "\0" in line:
                    raise InputError(f"got {path}, a file that is no text; expected @ and a file with a path per line")
                yield line.rstrip("\r\n"), True
