"""Answers as the columns of a table: those of a batch, and the writers of CSV and Parquet files."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from energycomp_batch.tables import require

NUMBERS = ("fit", "error", "stderr", "p_value", "typicality")  # columns of floats, NaN where there is none
TEXTS = ("objects", "runner_up")  # columns of JSON
COLUMNS = ("count", *NUMBERS, "out_of_distribution", *TEXTS, "warnings", "rows", "failed")
NONE = {"count": -1, "objects": [], "runner_up": None, "rows": -1, "out_of_distribution": False, "failed": ""}
FILE = ("image", "sha256", *COLUMNS, "settings")  # columns of a file
ROWS = 1000  # that are written to a Parquet file at once

Write = Callable[[Mapping[str, Any]], object]


def columns_of(record: Mapping[str, Any]) -> dict[str, Any]:
    r"""The record of an answer as values of `COLUMNS`, whose types do not depend on the answer.

    >>> columns_of({"count": 0, "objects": [], "warnings": ["one", "two"], "rows": 9})["warnings"]
    'one\ntwo'
    """
    numbers = {name: math.nan if record.get(name) is None else float(record[name]) for name in NUMBERS}
    row = {**NONE, **record, **numbers, "warnings": "\n".join(record.get("warnings", ()))}
    return {name: json.dumps(row[name]) if name in TEXTS else row[name] for name in COLUMNS}


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    head = {"image": record.get("image", ""), "sha256": record.get("sha256", "")}
    return {**head, **columns_of(record), "settings": json.dumps(record["settings"]) if "settings" in record else ""}


@contextmanager
def csv_writer(file: BinaryIO) -> Iterator[Write]:
    """A writer of CSV, see `energycomp_register_writers`: a row for each image.

    >>> import io
    >>> with csv_writer(stream := io.BytesIO()) as write:
    ...     _ = write({"image": "a.png", "count": 0, "objects": [], "rows": 9})
    >>> stream.getvalue().decode().splitlines()[1]
    'a.png,,0,nan,nan,nan,nan,nan,False,[],null,,9,,'
    """
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
    writer = csv.DictWriter(text, FILE)
    try:
        writer.writeheader()
        yield lambda record: writer.writerow(_row(record))
    finally:
        text.detach()  # the file is not ours to close


@contextmanager
def parquet_writer(file: BinaryIO) -> Iterator[Write]:
    """A writer of Parquet, see `energycomp_register_writers`. Memory holds a thousand rows.

    Raises:
        InputError: pyarrow is not installed.
    """
    require(Path("found.parquet"))
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"count": pa.int64(), "rows": pa.int64(), "out_of_distribution": pa.bool_()}
    kinds |= dict.fromkeys(NUMBERS, pa.float64())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in FILE])
    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(file, schema) as writer:

        def write(record: Mapping[str, Any]) -> None:
            rows.append(_row(record))
            if len(rows) == ROWS:
                flush()

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        yield write
        flush()
