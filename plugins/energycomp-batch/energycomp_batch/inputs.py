"""The images that a command is given: files and URLs, rows of tables, and frames of movies, one after another."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.cli import image_files
from energycomp.errors import InputError
from energycomp_batch.batch_image import BatchImage
from energycomp_batch.places import files_in, is_url, place_of, reaching
from energycomp_batch.tables import TABLES, require, row_count, table_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def is_table(path: Any) -> bool:
    """Whether a file holds images as rows."""
    return path.suffix.lower() in TABLES


def holds_many(path: Any) -> bool:
    """Whether a file holds images as rows or frames; of a URL its end says so."""
    from energycomp.images import MOVIES, is_movie

    return is_table(path) or (path.suffix.lower() in MOVIES if is_url(path) else is_movie(path))


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

        files: dict[Any, Any] = {}
        suffixes = FORMATS.keys() | TABLES
        for text, listed in _given(paths):
            path = place_of(text)
            if is_url(path):
                files |= {file: file for file in ([path] if listed else files_in(path, suffixes, without))}
                continue
            try:
                files |= image_files([path], without=None if is_url(without) else without, suffixes=suffixes)
            except InputError:
                if not listed:
                    raise
                files[path.resolve()] = path
        tables = {path.suffix.lower(): path for path in reversed(files.values()) if is_table(path)}
        for table in tables.values():  # the first of each kind
            require(table)
            if column is not None:
                next(table_rows(table, column), None)
        if column is not None and not tables:
            raise InputError(f"got --column {column} without a Parquet or tar file; leave it out")
        return cls(files, column)

    @property
    def single(self) -> bool:
        """Whether one file is the only image."""
        return len(self.files) == 1 and not any(map(holds_many, self.files))

    def expected(self) -> int | None:
        """The number of images; None where archives and movies of URLs do not say it."""
        counts = list(map(_count, self.files))
        return None if None in counts else sum(count or 0 for count in counts)

    def __iter__(self) -> Iterator[BatchImage]:
        for path in self.files.values():
            try:
                if is_table(path):
                    yield from table_rows(path, self.column)
                else:
                    yield from _frames(path) if holds_many(path) else [BatchImage.at(path)]
            except InputError as error:  # a table or a movie that breaks off ends with an image that cannot be read
                yield BatchImage(path, problem=str(error))


def _count(path: Any) -> int | None:
    """The number of images of a file; None for an archive, and for a movie that would have to be fetched."""
    from energycomp.images import frame_count

    if is_table(path):
        return row_count(path)
    if not holds_many(path):
        return 1
    try:
        return None if is_url(path) else frame_count(path)
    except InputError:  # it is one image, which cannot be read
        return 1


def _frames(path: Any) -> Iterator[BatchImage]:
    """The frames of a movie, from "#0"; an image of a URL that only ends as a movie does."""
    from energycomp.images import frames_of, png

    with _on_this_machine(path) as file:
        if not holds_many(file):
            yield BatchImage.at(file, path)
            return
        try:
            for number, frame in enumerate(frames_of(file)):
                yield BatchImage(path, str(number), png(frame))
        except InputError as error:
            raise InputError(str(error).replace(str(file), str(path))) from error


@contextmanager
def _on_this_machine(path: Any) -> Iterator[Path]:
    """The file, or a copy of what is at a URL: decoders of movies take paths alone."""
    if not is_url(path):
        yield path
        return
    with TemporaryDirectory() as folder:
        with reaching(path):
            path.fs.get_file(path.path, f"{folder}/{path.name}")
        yield Path(folder, path.name)


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
