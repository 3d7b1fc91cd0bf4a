"""Answers of `energycomp infer` as scene records in the official layout of CLEVR, one JSON line per image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from energycomp_datasets.clevr.layout import described_record


@contextmanager
def scene_records(file: BinaryIO) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A writer, see `energycomp.plugins.Add.writer` and `described_record`. Unread images are left out."""

    def write(record: Mapping[str, Any]) -> None:
        if "failed" not in record:
            file.write(json.dumps(described_record(record["objects"], record["file_name"])).encode() + b"\n")

    yield write
