"""Hugging Face's imagefolder: pictures beside `metadata.jsonl`, one line a picture.

`objects` of a line is a list of `{"x": ..., "y": ..., "width": ..., "height": ..., "category": ...}`, centres and sizes
in shares of the upright picture, or Hugging Face's `{"bbox": [[left, top, width, height], ...], "category": [...]}` in
pixels of it. Further texts of an object, or lists of them, are attributes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from energycomp.errors import InputError
from energycomp_objects.formats.files import (
    Labels,
    LabelSet,
    as_list,
    as_object,
    make_mark,
    parse_json,
    read_text,
    write_text,
)
from energycomp_objects.formats.marks import Mark, MarkedPhotos

FILE = "metadata.jsonl"
SIZE = ("width", "height")


def find(path: Path) -> list[Path]:
    file = path / FILE if path.is_dir() else path
    return [file] if file.suffix == ".jsonl" and file.is_file() else []


def read(file: Path, images: Path | None) -> LabelSet:
    labels = []
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file.name}, line {number},"
        record = parse_json(line, where)
        if not isinstance(record.get("file_name"), str):
            raise InputError(f'got {where} without "file_name"; expected the name of a picture; add it')
        objects = record.get("objects", [])
        pixels = isinstance(objects, dict)
        marks = tuple(_marks_of_lists(objects, where) if pixels else _marks_of_list(objects, where))
        labels.append(Labels(record["file_name"], where, marks, pixels))
    return LabelSet(file, images or file.parent, labels)


def _marks_of_list(objects: object, where: str) -> Iterator[Mark | None]:
    for entry in as_list(objects, f"{where} objects"):
        one = as_object(entry, f"{where} objects")
        if not {"x", "y"} <= one.keys():
            raise InputError(f"got {where} with an object of {', '.join(one) or 'nothing'}; expected x and y; add them")
        attributes = {name: value for name, value in one.items() if name not in ("x", "y", *SIZE)}
        size = [one[name] for name in SIZE if one.get(name) is not None]
        yield make_mark(where, [one["x"], one["y"], *size], attributes)


def _marks_of_lists(objects: dict[str, Any], where: str) -> Iterator[Mark | None]:
    boxes = as_list(objects.get("bbox"), f"{where} bbox")
    columns = {name: values for name, values in objects.items() if isinstance(values, list)}
    for name, values in columns.items():
        if len(values) != len(boxes):
            raise InputError(f"got {where} with {len(boxes)} boxes and {len(values)} of {name}; expected one for each")
    for index, box in enumerate(boxes):
        attributes = {name: values[index] for name, values in columns.items()}
        yield make_mark(where, as_list(box, f"{where} bbox"), attributes, corner=True)


def write(photos: MarkedPhotos, names: Sequence[str], path: Path) -> None:
    lines = []
    for photo, name in zip(photos, names, strict=True):
        objects = [mark.as_dict() for mark in photo.marks]
        lines.append(json.dumps({"file_name": name, "objects": objects}, ensure_ascii=False) + "\n")
    write_text(path / FILE, "".join(lines))
