"""Tables of images: the rows of Parquet files and of WebDataset archives, one at a time."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from energycomp.errors import InputError, first_line
from energycomp_batch.batch_image import BatchImage

PACKAGES = {".parquet": "pyarrow", ".tar": "datasets"}  # that a file of each kind needs
TABLES = frozenset(PACKAGES)  # the ends of their names
KEY = "__key__"  # column of a WebDataset
IMAGE = "image"  # the column that is taken where several hold images
END = 1024  # bytes, two blocks of zeros
ROWS = 32  # of a Parquet file that are decoded at once
INSTALL = "pip install 'energycomp-batch[datasets]'"


def table_rows(path: str | Path, column: str | None = None) -> Iterator[BatchImage]:
    """The images of a Parquet file or a WebDataset archive, as bytes, read while they are taken.

    Memory holds a row group of a Parquet file, or a sample of an archive.

    Args:
        path: ends in .parquet or .tar.
        column: that holds the images. When left out: `image`, or the only column of images. In a WebDataset a column is
            the suffix of a file, such as `jpg`; when left out, the first image of each sample is taken.

    Raises:
        InputError: pyarrow is not installed, or datasets for an archive; the table cannot be read, at first or from
            some row on; no such column, or several without a choice.
    """
    require(path)
    path, number = Path(path), 0
    try:
        for number, row in enumerate((_parquet if path.suffix.lower() == ".parquet" else _archive)(path, column)):
            yield _row(number, row, path)
    except InputError:
        raise
    except Exception as error:  # damaged files in an archive fail in decoders of datasets, with errors of any type
        where = f"after row {number}" if number else "which cannot be read"
        raise InputError(f"got {path}, {where} ({first_line(error)[:200]}); expected a whole table") from error


def row_count(path: str | Path) -> int | None:
    """The number of rows of a Parquet file; None for an archive, and for a file that cannot be read."""
    if Path(path).suffix.lower() != ".parquet":
        return None
    from pyarrow import ArrowException, parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (ArrowException, OSError):  # whoever reads its rows says why
        return None


def require(path: str | Path) -> None:
    """Raises `InputError` where the package is not installed that a Parquet file or an archive needs."""
    from importlib import import_module

    package = PACKAGES.get(Path(path).suffix.lower())
    if package is None:
        return
    try:
        import_module(package)
    except ImportError as error:
        raise InputError(
            f"got {path}; expected the package {package} for tables, which is not installed; {INSTALL}"
        ) from error


def _parquet(path: Path, column: str | None) -> Iterator[dict[str, Any]]:
    """The cells with images of each row. The stream of datasets reads ahead of who takes its rows; this does not."""
    import pyarrow as pa
    from pyarrow import parquet

    def holds_images(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    with parquet.ParquetFile(path, pre_buffer=False) as file:  # otherwise it keeps all that it has read
        images = {field.name: holds_images(field.type) for field in file.schema_arrow}
        columns = list(_columns(path, images, column))
        for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
            yield from batch.to_pylist()


def _archive(path: Path, column: str | None) -> Iterator[dict[str, Any]]:
    """The cells with images of each sample, and `__key__`."""
    import datasets

    with _silent():
        files = [glob.escape(str(path.resolve()))]
        data = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
        images = {
            name: isinstance(feature, datasets.Image)
            or (isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary"))
            for name, feature in data.features.items()
        }
        columns = _columns(path, images, column)
        for row in data.decode(False):
            yield {name: row.get(name) for name in (KEY, *columns)}
    with path.open("rb") as file:  # tarfile takes an archive that is cut off for a whole one
        file.seek(-min(END, path.stat().st_size), os.SEEK_END)
        if file.read() != bytes(END):
            raise EOFError("its end is missing")


@contextmanager
def _silent() -> Iterator[None]:
    """datasets does not log what it also raises."""
    from datasets.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _columns(path: Path, images: Mapping[str, bool], column: str | None) -> Sequence[str]:
    """The columns in which images are looked for, of all columns and whether they hold images."""
    names = ", ".join(name for name in images if not name.startswith("__"))
    if column is not None:
        if column not in images:
            raise InputError(f"got --column {column} of {path}; expected one of its columns: {names}")
        return [column]
    if IMAGE in images:
        return [IMAGE]
    plain = [name for name, holds in images.items() if holds and "." not in name]  # not seg.png beside jpg
    if not plain or (len(plain) > 1 and KEY not in images):
        raise InputError(
            f"got {path} with {len(plain)} columns of images among {names}; expected one, or one of the name {IMAGE}; "
            "choose it by --column"
        )
    return plain


def _row(number: int, cells: dict[str, Any], table: Path) -> BatchImage:
    """A row; a path in it names a file in the folder of the table, so that a table of somebody else opens no other."""
    key = str(cells.pop(KEY, number))
    image = next((found for cell in cells.values() if (found := _image(cell)) is not None), None)
    if not image:
        return BatchImage(table, key, problem=f"got row {key} of {table} without an image; expected bytes or a path")
    if isinstance(image, bytes):
        return BatchImage(table, key, image)
    folder, path = (Path(os.path.normpath(one)) for one in (table.parent.absolute(), table.parent.absolute() / image))
    if path.is_relative_to(folder) and "\0" not in image:
        return BatchImage(table, key, path)
    outside = f"got row {key} of {table} with the path {image!r}; expected one in the folder of the table"
    return BatchImage(table, key, problem=f"{outside}; write paths to a file and give that as @FILE")


def _image(value: Any) -> bytes | str | None:
    """The content of a cell: bytes, or a path."""
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, str):
        return value
    return bytes(value) if isinstance(value, bytes | bytearray) else None
