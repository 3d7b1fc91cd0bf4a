"""COCO's JSON of object detection: `images`, `annotations` with `bbox` in pixels, and `categories`.

Pictures are beside the file, in the folder `images` or, for `annotations/instances_NAME.json`, in `../NAME`. Boxes are
those of the upright picture, [left, top, width, height]; one of size 0 is a point. Groups (`iscrowd`) are left out.
What `energycomp infer --format coco` writes is read, too: its `attributes` are those of the mark.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from energycomp.errors import InputError
from energycomp.files import atomic_file
from energycomp_cli import make_folder
from energycomp_objects.formats.files import (
    CATEGORY,
    SOLE,
    Labels,
    LabelSet,
    as_list,
    as_number,
    as_object,
    make_mark,
    parse_json,
    read_text,
)
from energycomp_objects.formats.marks import Mark, MarkedPhotos

FILE = "annotations.json"
CROWD = "marks of groups (iscrowd), which are left out"


def find(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted([*path.glob("[!.]*.json"), *path.glob("annotations/[!.]*.json")])
    return [path] if path.suffix == ".json" else []


def read(file: Path, images: Path | None) -> LabelSet:
    document = parse_json(read_text(file), file.name)
    categories = _by_id(document, "categories", "name", file.name)
    pictures = _by_id(document, "images", "file_name", file.name)
    marks: dict[int | str, list[Mark | None]] = {key: [] for key in pictures}
    crowds = 0
    for number, entry in enumerate(as_list(document.get("annotations"), f"{file.name}, annotations,"), start=1):
        where = f"{file.name}, annotation {number},"
        one = as_object(entry, where)
        for name, known in (("image_id", pictures), ("category_id", categories)):
            if not isinstance(one.get(name), int | str) or one[name] not in known:
                raise InputError(
                    f"got {where} with {name} {one.get(name)}; expected the id of an entry; add that entry"
                )
        if one.get("iscrowd"):
            crowds += 1
            continue
        attributes = _attributes(one, categories[one["category_id"]]["name"])
        marks[one["image_id"]].append(make_mark(where, as_list(one.get("bbox"), where), attributes, corner=True))
    labels = []
    for key, picture in pictures.items():
        where = f"{file.name}, image {key},"
        size = tuple(int(as_number(picture.get(side) or 0, where)) for side in ("width", "height"))
        known_size = (size[0], size[1]) if all(size) else None
        labels.append(Labels(picture["file_name"], where, tuple(marks[key]), pixels=True, size=known_size))
    folder = images or _picture_folder(file, labels)
    return LabelSet(file, folder, labels, [one["name"] for one in categories.values()], {CROWD: crowds})


def _by_id(document: dict[str, Any], name: str, text: str, where: str) -> dict[int | str, dict[str, Any]]:
    """The entries of a list under their ids; each has a text."""
    entries: dict[int | str, dict[str, Any]] = {}
    for entry in as_list(document.get(name), f"{where}, {name},"):
        one = as_object(entry, f"{where}, {name},")
        if not isinstance(one.get("id"), int | str) or one["id"] in entries:
            raise InputError(f"got {where}, {name}, with the id {one.get('id')}; expected each id once; correct it")
        if not isinstance(one.get(text), str):
            raise InputError(f"got {where}, {name}, id {one['id']}, without {text}; expected a text; add it")
        entries[one["id"]] = one
    return entries


def _attributes(annotation: dict[str, Any], category: str) -> dict[str, object]:
    """The attributes of an annotation, and its category unless they have it or are its words."""
    own = annotation.get("attributes")
    texts = {name: value for name, value in own.items() if isinstance(value, str)} if isinstance(own, dict) else {}
    words = " ".join(texts.values()) if own != {} else SOLE
    return {**texts} if CATEGORY in texts or words == category else {CATEGORY: category, **texts}


def _picture_folder(file: Path, labels: list[Labels]) -> Path:
    above = file.parent.parent
    split = file.stem.removeprefix("instances_")
    for folder in (file.parent, file.parent / "images", above / split, above / "images" / split, above / "images"):
        if labels and os.path.lexists(folder / labels[0].name):
            return folder
    return file.parent


def write(photos: MarkedPhotos, names: Sequence[str], path: Path) -> None:
    from energycomp_cli.coco import coco  # imports torch

    file = path if path.suffix == ".json" else path / FILE
    make_folder(file.parent, "the folder")
    kinds = photos.attributes[CATEGORY] if photos.attributes.keys() == {CATEGORY} else ()
    with atomic_file(file) as temporary, temporary.open("wb") as stream, coco(stream, kinds) as write_record:
        for photo, name in zip(photos, names, strict=True):
            frame = {"size": photo.size, "box": (0, 0, *photo.size)}
            objects = [mark.as_dict() for mark in photo.marks]
            write_record({"file_name": name, "frame": frame, "trusted": True, "noun": SOLE, "objects": objects})
