"""The images that a command is given: files and URLs, rows of tables, and frames of movies, one after another."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.errors import InputError
from energycomp_batch.places import TABLES, is_url, item_at, name_errors, place_of, row_count, table_rows
from energycomp_cli import SETTINGS, Item, frames, image_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence, Set as AbstractSet


MOST = 200  # images in a part, if nothing else is asked for
SHARES = 16  # parts for each actor, so that all end at about the same time
COUNTED = 1000  # tables and movies whose images are counted before they are read


def holds_many(path: Any) -> bool:
    """Whether a file holds images as rows or frames; of a URL its end says so."""
    from energycomp.images import MOVIES, is_movie

    suffix = path.suffix.lower()
    return suffix in TABLES or (suffix in MOVIES if is_url(path) else is_movie(path))


@attrs.frozen
class Inputs:
    """Image files and tables, each once, as given, under its resolved path; iterating reads them."""

    files: dict[Any, Any]
    column: str | None = None  # of the images in tables

    @classmethod
    def of(cls, paths: Sequence[str | Path], *, without: Any = None, column: str | None = None) -> Inputs:
        """Finds the files that are meant by paths, URLs, folders and lists, without those of the results.

        `@LIST` stands for the paths in a file, one per line; whether its files can be read is seen when they are. The
        rest is as in `image_files`.
        """
        from energycomp.images import FORMATS

        files: dict[Any, Any] = {}
        suffixes = FORMATS.keys() | TABLES
        for text, listed in _expand_lists(paths):
            for key, file in _files(place_of(text), listed, suffixes, without).items():
                files.setdefault(key, file)
        tables = [path for path in files.values() if path.suffix.lower() in TABLES]
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
                if path.suffix.lower() in TABLES:
                    yield from table_rows(path, self.column)
                elif holds_many(path):
                    yield from _copy_frames(path) if is_url(path) else frames(path)
                else:
                    yield item_at(path)
            except InputError as error:  # a table that breaks off ends with an image that cannot be read
                yield Item(path, problem=str(error))


def part_size(inputs: Inputs, actors: int) -> int:
    """Images in a part: few files in a long run, and several parts for each actor in a short one."""
    expected = inputs.expected() if sum(map(holds_many, inputs.files)) <= COUNTED else None
    return MOST if expected is None else max(1, min(MOST, expected // (SHARES * actors)))


def _files(path: Any, listed: bool, suffixes: AbstractSet[str], without: Any) -> dict[Any, Any]:
    """Finds the files that a path or a URL means, under their resolved paths; one of a list may be missing."""
    if is_url(path):
        return {file: file for file in ([path] if listed else _in_bucket(path, suffixes, without))}
    try:
        return image_files([path], without=None if is_url(without) else without, suffixes=suffixes)
    except InputError:
        if not listed:
            raise
        return {path.resolve(): path}


def _in_bucket(url: Any, suffixes: AbstractSet[str], without: object) -> list[Any]:
    """Lists the files of a folder of a bucket, or the one at a URL; hidden names, and results, are left out."""
    with name_errors(url):
        files = [url.with_segments(url.fs.unstrip_protocol(path)) for path in sorted(url.fs.find(url.path))]
    if [str(file) for file in files] != [str(url)]:
        marked = {str(one.parent).rstrip("/") for one in files if one.name == SETTINGS} - {str(url).rstrip("/")}
        answers = tuple(f"{str(folder).rstrip('/')}/" for folder in (without, *marked))
        files = [one for one in files if one.suffix.lower() in suffixes and not str(one).startswith(answers)]
        files = [one for one in files if "/." not in str(one).removeprefix(str(url).rstrip("/"))]
    if not files:
        raise InputError(f"got {url} without an image in it; expected a file, or a folder of images or tables")
    return files


def _copy_frames(url: Any) -> Iterator[Item]:
    """Yields the frames of a movie at a URL, or an image that only ends as one does: decoders take paths alone."""
    with TemporaryDirectory() as folder:
        file = Path(folder, url.name)
        with name_errors(url):
            url.fs.get_file(url.path, str(file))
        yield from frames(file, url) if holds_many(file) else [item_at(file, url)]


def _expand_lists(paths: Sequence[str | Path]) -> Iterator[tuple[str, bool]]:
    """Yields the paths, and those of lists, each with whether it is of a list."""
    for path in map(str, paths):
        if not path.startswith("@") or os.path.lexists(path):
            yield path, False
            continue
        with name_errors(path), place_of(path[1:]).open(encoding="utf-8", errors="surrogateescape") as lines:
            for line in filter(str.strip, lines):
                if "\0" in line:
                    raise InputError(f"got {path}, a file that is no text; expected @ and a file with a path per line")
                yield line.rstrip("\r\n"), True
