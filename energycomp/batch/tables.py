"""Tables of images: the rows of Parquet files and of WebDataset archives, one at a time."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from energycomp.errors import InputError, first_line

__all__ = ["TABLES", "TableRow", "require", "row_count", "table_rows"]

TABLES = {".parquet": "parquet", ".tar": "webdataset"}  # the builder of datasets for each end of a name
IMAGE = "image"  # the column that is taken where several hold images
INSTALL = "pip install 'energycomp[datasets]'"


@attrs.frozen
class TableRow:
    """A row of a table.

    Args:
        number: of the row, from 0.
        key: what identifies it in its table: `__key__` of a WebDataset, otherwise its number.
        image: the bytes of an image file, the path of one, or None where the row has neither.
    """

    number: int
    key: str
    image: bytes | Path | None


def table_rows(path: str | Path, column: str | None = None) -> Iterator[TableRow]:
    """The images of a Parquet file or a WebDataset archive, as bytes, read while they are taken.

    Memory holds a row group of a Parquet file, and a sample of an archive.

    Args:
        path: ends in .parquet or .tar.
        column: that holds the images. When left out: `image`, or the only column of images. In a WebDataset a column is
            the suffix of a file, such as `jpg`; when left out, the first image of each sample is taken.

    Raises:
        InputError: datasets is not installed; the table cannot be read, at first or from some row on; no such column,
            or several without a choice.
    """
    require("datasets", path)
    path = Path(path)
    number = 0
    try:
        data, columns = _opened(path, column)
        for number, row in enumerate(data):
            image = next((found for name in columns if (found := _image(row.get(name), path)) is not None), None)
            yield TableRow(number, str(row.get("__key__", number)), image)
    except InputError:
        raise
    except Exception as error:  # of datasets, pyarrow, tarfile, and the system
        where = f"after row {number}" if number else "which cannot be read"
        raise InputError(f"got {path}, {where} ({first_line(error)[:200]}); expected a whole table") from error


def row_count(path: str | Path) -> int | None:
    """The number of rows of a Parquet file; None for an archive, and for a file that cannot be read."""
    if Path(path).suffix.lower() != ".parquet":
        return None
    try:
        from pyarrow import parquet

        return int(parquet.read_metadata(path).num_rows)
    except Exception:  # whoever reads its rows says why
        return None


def require(package: str, path: str | Path) -> None:
    """Raises `InputError` where a package is not installed that a file needs."""
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise InputError(f"got {path}; expected the package {package} for tables, which is not installed; {INSTALL}")


def _opened(path: Path, column: str | None) -> tuple[Any, Sequence[str]]:
    """The stream of a table, and the columns in which images are looked for."""
    import datasets

    given = {"data_files": [glob.escape(str(path.resolve()))], "split": "train", "streaming": True}
    kind = TABLES[path.suffix.lower()]
    data = datasets.load_dataset(kind, **given)
    columns = _columns(path, data.features, column)
    if kind == "parquet":
        data = datasets.load_dataset(kind, columns=list(columns), **given)
    return data.decode(False), columns


def _columns(path: Path, features: Mapping[str, Any], column: str | None) -> Sequence[str]:
    """The columns in which images are looked for."""
    found = [name for name, feature in features.items() if _holds_images(feature)]
    if column is not None:
        if column not in features:
            raise InputError(f"got --column {column} of {path}; expected one of its columns {', '.join(features)}")
        return [column]
    if IMAGE in features:
        return [IMAGE]
    plain = [name for name in found if "." not in name]  # in an archive, not seg.png beside jpg
    if not plain or (len(plain) > 1 and "__key__" not in features):
        raise InputError(
            f"got {path} with {len(plain)} columns of images ({', '.join(features)}); expected one, or one of the name "
            f"{IMAGE}; choose it by --column"
        )
    return plain


def _holds_images(feature: Any) -> bool:
    """Whether a column may hold files of images."""
    import datasets

    if isinstance(feature, Mapping):
        return "bytes" in feature
    return isinstance(feature, datasets.Image) or getattr(feature, "dtype", None) in ("binary", "large_binary")


def _image(value: Any, table: Path) -> bytes | Path | None:
    """The content of a cell; a path is taken from the folder of the table."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return table.parent / value
    return bytes(value) if isinstance(value, bytes | bytearray) else None
