"""Answers as the columns of a table: those of a batch, and Parquet and CSV files of them."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from energycomp.files import atomic_file

NUMBERS = ("fit", "error", "stderr", "p_value", "typicality")  # columns of floats, NaN where there is none
TEXTS = ("objects", "runner_up")  # columns of JSON
COLUMNS = ("count", *NUMBERS, "out_of_distribution", *TEXTS, "warnings", "rows", "failed")
NONE = {"count": -1, "objects": [], "runner_up": None, "rows": -1, "out_of_distribution": False, "failed": ""}
HEAD = ("image", "sha256")  # of a file
FILE = (*HEAD, *COLUMNS, "settings")
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


@contextmanager
def answers_file(path: Path) -> Iterator[Write]:
    """What writes records of answers to a file of one of the formats of `WRITERS`, by the end of its name.

    Each record has the columns of a batch, and `image`, `sha256` and `settings`. The file is there, whole, when the
    block ends without an error. Memory holds a thousand records.

    Raises:
        CheckpointError: the file cannot be written; what was there is as it was.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with answers_file(Path(folder) / "found.csv") as write:
    ...         _ = write({"image": "a.png", "count": 0, "objects": [], "rows": 9})
    ...     (Path(folder) / "found.csv").read_text().splitlines()[1]
    'a.png,,0,nan,nan,nan,nan,nan,False,[],null,,9,,'
    """
    with atomic_file(path) as temporary, WRITERS[path.suffix.lower()](temporary) as write:
        yield write


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    settings = json.dumps(record["settings"]) if "settings" in record else ""
    return {**{name: record.get(name, "") for name in HEAD}, **columns_of(record), "settings": settings}


@contextmanager
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as text:
        writer = csv.DictWriter(text, FILE)
        writer.writeheader()
        yield lambda record: writer.writerow(_row(record))


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = {"count": pa.int64(), "rows": pa.int64(), "out_of_distribution": pa.bool_()}
    kinds |= dict.fromkeys(NUMBERS, pa.float64())
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in FILE])
    rows: list[dict[str, Any]] = []
    with parquet.ParquetWriter(path, schema) as writer:

        def write(record: Mapping[str, Any]) -> None:
            rows.append(_row(record))
            if len(rows) == ROWS:
                flush()

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            rows.clear()

        yield write
        flush()


WRITERS = {".csv": _csv, ".parquet": _parquet}  # by the end of a file's name
