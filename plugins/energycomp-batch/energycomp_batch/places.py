"""Where images are: paths and URLs, and the rows of Parquet files and WebDataset archives, one at a time.

A URL has the methods of `pathlib.Path`, by fsspec and universal_pathlib.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from energycomp.errors import EnergycompError, InputError, first_line
from energycomp_cli import Item

URL = re.compile(r"[a-zA-Z][\w+.-]*://")
SECRET = re.compile(r"://[^/]*:[^/]*@|[?&][^=&]*(sig|token|key|secret|password|credential)[^=&]*=", re.IGNORECASE)
TABLES = frozenset({".parquet", ".tar"})  # the ends of their names
KEY = "__key__"  # of a sample in a WebDataset
MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)  # key and suffix of a file of a sample
ANSWER = frozenset({"sha256", "objects", "runner_up", "settings"})  # columns of a table of answers
IMAGE = "image"  # the column that is taken where several hold images
END = 1024  # bytes, two blocks of zeros
ROWS = 32  # of a Parquet file that are decoded at once
BUCKETS = ("s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "http", "https")  # what a URL in a table may open


def is_url(place: object) -> bool:
    """Whether something is a URL, such as s3://bucket/image.png."""
    return URL.match(str(place)) is not None


def place_of(text: str | Path, *, found: bool = False) -> Any:
    """Makes a `Path`, also of file://, or a `UPath` of a URL; raises `InputError` where that cannot be one.

    Args:
        found: whether it was found in a bucket, and may have any name; a URL that is given must have no secret in it.
    """
    if not is_url(text):
        return Path(text)
    if not found and SECRET.search(str(text)):
        raise InputError(
            "got a URL with a password or a signature, which would be in the results; expected one without; give "
            "credentials as fsspec takes them, such as AWS_ACCESS_KEY_ID"
        )
    from upath import UPath

    with name_errors(text):
        place = UPath(text)
        return Path(place.path) if place.protocol in {"file", "local"} else place


@contextmanager
def name_errors(place: object) -> Iterator[None]:
    """What a file system of fsspec raises in the block, which may be anything, is an `InputError` of one line."""
    try:
        yield
    except (EnergycompError, BrokenPipeError):
        raise
    except Exception as error:
        check = "the credentials of fsspec" if is_url(place) else "its permissions"
        raise InputError(
            f"got {place}, which cannot be reached ({type(error).__name__}: {first_line(error)[:200]}); expected a "
            f"place that exists, and rights to it; check its name and {check}"
        ) from error


def item_at(place: Any, source: Any = None, row: str | None = None) -> Item:
    """The image in the file at a place, which is its source or named by a row of that."""
    from energycomp.images import MAX_BYTES

    if not is_url(place) and not place.is_file():  # a pipe would wait for its other end
        problem = f"got {place}, which is no file; expected an image (PNG, JPEG, ...); check the path"
        return Item(source or place, row, problem=problem)
    try:
        with name_errors(place), place.open("rb") as stream:
            return Item(source or place, row, stream.read(MAX_BYTES + 1))
    except InputError as error:
        return Item(source or place, row, problem=str(error))


def table_rows(path: Any, column: str | None = None) -> Iterator[Item]:
    """Yields the images of a Parquet file or a WebDataset archive, as bytes, read while they are taken.

    Memory holds some rows of a Parquet file, or a sample of an archive. The images are in `column`, or in `image`, or
    in the only column of images. In a WebDataset a column is the suffix of a file, such as `jpg`; when left out, the
    first image of each sample is taken.

    Raises:
        InputError: the table cannot be read, at first or from some row on; no such column, or several without a choice.
    """
    number = 0
    try:
        for number, row in enumerate((_parquet if path.suffix.lower() == ".parquet" else _archive)(path, column)):
            yield _row(number, row, path)
    except InputError:
        raise
    except Exception as error:  # damaged files fail in decoders, and file systems of fsspec, with errors of any type
        where = f"after row {number}" if number else "which cannot be read"
        raise InputError(f"got {path}, {where} ({first_line(error)[:200]}); expected a whole table") from error


def row_count(path: Any) -> int | None:
    """The number of rows of a Parquet file; None for an archive, and for a file that cannot be read."""
    if path.suffix.lower() != ".parquet":
        return None
    from pyarrow import parquet

    try:
        with path.open("rb") as stream:
            return int(parquet.read_metadata(stream).num_rows)
    except Exception:  # whoever reads its rows says why
        return None


def _parquet(path: Any, column: str | None) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    def holds_images(kind: Any) -> bool:
        names = [field.name for field in kind] if pa.types.is_struct(kind) else []
        return "bytes" in names or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    with path.open("rb") as stream, parquet.ParquetFile(stream, pre_buffer=False) as file:  # or it keeps what it read
        if ANSWER.issubset(file.schema_arrow.names):
            raise InputError(f"got {path}, which holds answers; expected images; move it out of the folder of images")
        columns = _columns(path, {field.name: holds_images(field.type) for field in file.schema_arrow}, column)
        for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
            yield from batch.to_pylist()


def _archive(path: Any, column: str | None) -> Iterator[dict[str, Any]]:
    """Yields the images of each sample, and its `__key__`: the files of a sample have one name up to its first dot."""
    from energycomp.images import FORMATS, MAX_BYTES

    column = column and column.lower()
    with path.open("rb") as stream:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for number, (key, members) in enumerate(groupby(_members(archive), itemgetter(0))):
                seen: dict[str, bool] = {}
                cells: dict[str, bytes] = {}
                for _, suffix, member in members:
                    seen[suffix] = f".{suffix.rpartition('.')[2]}" in FORMATS
                    if column == suffix or (column is None and seen[suffix]):
                        cells[suffix] = archive.extractfile(member).read(MAX_BYTES + 1)  # type: ignore[union-attr]
                if number == 0 and column is not None:
                    _columns(path, seen, column)
                yield {KEY: key, **cells}
        stream.seek(0, os.SEEK_END)  # tarfile takes an archive that is cut off for a whole one
        stream.seek(-min(END, stream.tell()), os.SEEK_END)
        if stream.read() != bytes(END):
            raise EOFError("its end is missing")


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Yields key, suffix in lower case, and member of each file of a sample; others and hidden files are none."""
    for member in archive:
        name = MEMBER.fullmatch(member.name)
        if name is not None and member.isfile():
            yield name[1], name[2].lower(), member
        archive.members.clear()  # type: ignore[attr-defined]  # it keeps them, also where it is a stream


def _columns(path: Any, images: Mapping[str, bool], column: str | None) -> Sequence[str]:
    """Chooses the columns of images, of all columns and whether they hold some."""
    names = ", ".join(images)
    wanted = column or IMAGE
    if wanted in images:
        return [wanted]
    if column is not None:
        raise InputError(f"got --column {column} of {path}; expected one of its columns: {names}")
    found = [name for name, holds in images.items() if holds]
    if len(found) != 1:
        raise InputError(
            f"got {path} with {len(found)} columns of images among {names}; expected one, or one of the name {IMAGE}; "
            "choose it by --column"
        )
    return found


def _row(number: int, cells: dict[str, Any], table: Any) -> Item:
    """Makes the item of a row, whose cell holds bytes, or a path."""
    key = str(cells.pop(KEY, number))
    values = [cell.get("bytes") or cell.get("path") if isinstance(cell, Mapping) else cell for cell in cells.values()]
    image = next((value for value in values if value and isinstance(value, str | bytes | bytearray)), None)
    if image is None:
        return Item(table, key, problem=f"got row {key} of {table} without an image; expected bytes or a path")
    if not isinstance(image, str):
        return Item(table, key, bytes(image))
    try:
        return item_at(_place(image, table), table, key)
    except InputError as error:
        return Item(table, key, problem=f"got row {key} of {table} with {str(error).removeprefix('got ')}")


def _place(image: str, table: Any) -> Any:
    """Locates the image of a row in the folder of the table, so that a table of somebody else opens no other file."""
    if image.partition("://")[0] in BUCKETS and is_url(image):
        return place_of(image)
    folder = table.parent if is_url(table) else Path(os.path.normpath(table.parent.absolute()))
    if not is_url(image) and "\0" not in image:
        path = folder / image if is_url(table) else Path(os.path.normpath(folder / image))
        if path.is_relative_to(folder) and ".." not in path.parts:
            return path
    raise InputError(
        f"got the path {image!r}; expected one in the folder of the table; write paths to a file and give that as @FILE"
    )
