"""Answers in the format of COCO: one JSON document of images, annotations and categories.

A component with a place is an annotation with one keypoint, in pixels of the image file; one without, such as an
attribute of a face, is a box around all that the model saw. Categories are the words of a component, such as "large red
cube". Keys that COCO does not know are `attributes` and `score` of an annotation, and `trusted` of an image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from energycomp.errors import InputError
from energycomp.inference import JUDGED

VISIBLE = 2  # a keypoint that is labelled and seen


@contextmanager
def coco(file: BinaryIO) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A writer, see `energycomp.plugins.Add.writer`. The document is written at the end."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}  # their numbers, from 1, in the order in which they are found

    def write(record: Mapping[str, Any]) -> None:
        if "failed" in record:
            return
        name = record["file_name"]
        frame = record.get("frame")
        if frame is None:
            raise InputError(f"got {name} without its size; expected an image that this version read; read it again")
        width, height = frame["size"]
        image = len(images) + 1
        images.append({"id": image, "file_name": name, "width": width, "height": height, "trusted": record["trusted"]})
        for one in record["objects"]:
            words = " ".join(value for value in one.values() if isinstance(value, str))
            category = categories.setdefault(words or record["noun"], len(categories) + 1)
            number = {"id": len(annotations) + 1, "image_id": image, "category_id": category, "iscrowd": 0}
            annotations.append({**number, **_locate(one, frame["box"]), **_judge(one)})

    yield write
    named = [
        {"id": number, "name": name, "supercategory": "", "keypoints": ["centre"], "skeleton": []}
        for name, number in categories.items()
    ]
    document = {"images": images, "annotations": annotations, "categories": named}
    file.write(json.dumps(document).encode() + b"\n")


def _locate(one: Mapping[str, Any], box: list[int]) -> dict[str, Any]:
    """Locates a component in pixels, within the box (left, top, right, bottom) that the model saw."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if not {"x", "y"} <= one.keys():
        return {"bbox": [left, top, width, height], "area": width * height}
    x, y = left + one["x"] * width, top + one["y"] * height
    return {"keypoints": [x, y, VISIBLE], "num_keypoints": 1, "bbox": [x, y, 0, 0], "area": 0}


def _judge(one: Mapping[str, Any]) -> dict[str, Any]:
    """Collects what is known of a component, and how sure that is, where the answer says it."""
    found: dict[str, Any] = {"attributes": {name: one[name] for name in one if name not in (*JUDGED, "x", "y")}}
    if one.get("certainty"):
        found["score"] = math.prod(one["certainty"].values())
    elif one.get("probability") is not None:
        found["score"] = one["probability"]
    return found
