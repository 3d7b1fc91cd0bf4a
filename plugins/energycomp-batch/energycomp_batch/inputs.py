"""The images that a command is given: files and URLs, rows of tables, and frames of movies, one after another."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.cli import Item, image_files
from energycomp.errors import InputError
from energycomp_batch.places import is_url, item_at, place_of, reaching
from energycomp_batch.tables import TABLES, row_count, table_rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set as AbstractSet


MOST = 200  # images in a part, if nothing else is asked for
SHARES = 16  # parts for each actor, so that all end at about the same time
COUNTED = 1000  # tables and movies whose images are counted before they are read


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
            try:
                if not is_url(path):
                    files |= image_files([path], without=None if is_url(without) else without, suffixes=suffixes)
                else:
                    files |= {file: file for file in ([path] if listed else _in_bucket(path, suffixes, without))}
            except InputError:
                if not listed:
                    raise
                files[path.resolve()] = path
        tables = [path for path in files.values() if is_table(path)]
        if column is not None and not tables:
            raise InputError(f"got --column {column} without a Parquet or tar file; leave it out")
        for table in {path.suffix.lower(): path for path in reversed(tables)}.values() if column is not None else ():
            next(table_rows(table, column), None)  # the first of each kind has the column
        return cls(files, column)

    @property
    def single(self) -> bool:
        """Whether one file is the only image."""
        return len(self.files) == 1 and not any(map(holds_many, self.files))

    def expected(self) -> int | None:
        """The number of images; None where archives and movies do not say it."""
        counts = [1 if not holds_many(path) else row_count(path) for path in self.files]
        return None if None in counts else sum(count or 0 for count in counts)

    def __iter__(self) -> Iterator[Item]:
        for path in self.files.values():
            try:
                if is_table(path):
                    yield from table_rows(path, self.column)
                else:
                    yield from _frames(path) if holds_many(path) else [item_at(path)]
            except InputError as error:  # a table or a movie that breaks off ends with an image that cannot be read
                yield Item(path, problem=str(error))


def part_size(inputs: Inputs, actors: int) -> int:
    """Images in a part: few files in a long run, and several parts for each actor in a short one."""
    expected = inputs.expected() if sum(map(holds_many, inputs.files)) <= COUNTED else None
    return MOST if expected is None else max(1, min(MOST, expected // (SHARES * actors)))


def _in_bucket(url: Any, suffixes: AbstractSet[str], without: object) -> list[Any]:
    """The files of a folder of a bucket, or the one at a URL; names that begin with . or _, and results, are left out.

    Raises:
        InputError: the bucket cannot be read, or holds no such file.
    """
    with reaching(url):
        files = [url.with_segments(url.fs.unstrip_protocol(path)) for path in sorted(url.fs.find(url.path))]
    if [str(file) for file in files] != [str(url)]:
        results = f"{str(without).rstrip('/')}/"
        files = [one for one in files if one.suffix.lower() in suffixes and one.name[0] not in "._"]
        files = [one for one in files if not str(one).startswith(results)]
    if not files:
        raise InputError(f"got {url} without an image in it; expected a file, or a folder of images or tables")
    return files


def _frames(path: Any) -> Iterator[Item]:
    """The frames of a movie, from "#0"; an image of a URL that only ends as a movie does."""
    from energycomp.images import frames_of, png

    file = path
    with ExitStack() as copies:
        if is_url(path):  # decoders of movies take paths alone
            file = Path(copies.enter_context(TemporaryDirectory()), path.name)
            with reaching(path):
                path.fs.get_file(path.path, str(file))
        if not holds_many(file):
            yield item_at(file, path)
            return
        try:
            for number, frame in enumerate(frames_of(file)):
                yield Item(path, str(number), png(frame))
        except InputError as error:
            raise InputError(str(error).replace(str(file), str(path))) from error


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
