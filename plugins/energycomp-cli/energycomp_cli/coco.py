"""Answers in the format of COCO: one JSON document of images, annotations and categories.

A component with a place is an annotation with one keypoint, in pixels of the image file, or with its box; one without,
such as an attribute of a face, has a box around all that the model saw. Categories are the words of a component, such
as "large red cube". Keys that COCO does not know are `attributes` and `score` of an annotation, and `trusted` of an
image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from energycomp.errors import InputError
from energycomp.inference import JUDGED

PLACE = ("x", "y", "width", "height")
VISIBLE = 2  # a keypoint that is labelled and seen


@contextmanager
def coco(file: BinaryIO, names: Sequence[str] = ()) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A writer, see `energycomp.plugins.Add.writer`. The document is written at the end.

    Args:
        names: of categories that come first, in this order.

    >>> import io
    >>> one = {"x": 0.25, "y": 0.5, "color": "red", "shape": "cube"}
    >>> frame = {"size": [80, 64], "box": [8, 0, 72, 64]}
    >>> with coco(stream := io.BytesIO()) as write:
    ...     write({"file_name": "a.png", "frame": frame, "trusted": True, "noun": "object", "objects": [one]})
    >>> document = json.loads(stream.getvalue())
    >>> document["annotations"][0]["keypoints"], document["categories"][0]["name"]
    ([24.0, 32.0, 2], 'red cube')
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories = {name: number for number, name in enumerate(names, start=1)}  # others follow as they are found

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
    if one.get("width") is not None and one.get("height") is not None:
        width, height = one["width"] * width, one["height"] * height
        return {"bbox": [x - width / 2, y - height / 2, width, height], "area": width * height}
    return {"keypoints": [x, y, VISIBLE], "num_keypoints": 1, "bbox": [x, y, 0, 0], "area": 0}


def _judge(one: Mapping[str, Any]) -> dict[str, Any]:
    """Collects what is known of a component, and how sure that is, where the answer says it."""
    found: dict[str, Any] = {"attributes": {name: one[name] for name in one if name not in (*JUDGED, *PLACE)}}
    # The probability of the object, and those of its words
    known = [*(one.get("certainty") or {}).values()]
    if one.get("probability") is not None:
        known.append(one["probability"])
    if known:
        found["score"] = math.prod(known)
    return found
