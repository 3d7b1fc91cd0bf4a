"""What a person sees of an answer: its image, its table, and the line below it.

A `Solution` holds numbers. Its `View` says them in the words of the conditioner. Its record, `Solution.record()`, is
all of it as JSON data: what is printed, written to files, or sent to a page is made of records.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import attrs
from PIL import Image
from torch import Tensor

from energycomp.components.conditioning import groups_of, mixed_of
from energycomp.errors import InputError
from energycomp.images import as_picture, as_text, framed, grid, heat, overlay, rich_table, table_cells
from energycomp.images.draw import SIDE
from energycomp.images.process import ImageProcessor
from energycomp.models.model import Model

MAX_SIDE = 1024  # px of an image that is kept
JUDGED = ("certainty", "gain", "probability", "share")  # of a component, beside its description


@attrs.frozen(eq=False)
class View:
    """An image and its components in words and numbers. It holds no model, so that it is small and can be pickled.

    `View()` shows nothing: it is that of an answer that no conditioner has described, as a solver returns it.

    Args:
        image: the part of the image that the model sees, at most 1024 px a side; None for data that are no image.
        components, runner_up: as the conditioner describes them, JSON data; None for no other answer.
        attributes: the names of the attributes whose certainty is known, see `Solution.certainty`.
        noun: what a component is, "object" or "attribute", as the conditioner has it.

    >>> View(None, ({"x": 0.25, "y": 0.5}, {"x": 0.5, "y": 0.5})).places
    [(0.25, 0.5), (0.5, 0.5)]
    """

    image: Image.Image | None = None
    components: tuple[Any, ...] = ()
    runner_up: tuple[Any, ...] | None = None
    attributes: tuple[str, ...] = ()
    noun: str = "object"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per component: what the conditioner says by name, or as `value`."""
        return [as_row(one) for one in self.components]

    @property
    def places(self) -> list[tuple[float, float]]:
        """Where the components are, (x, y) in [0, 1]; none unless each of them says so."""
        found = []
        for row in self.rows:
            x = row.get("x")
            y = row.get("y")
            if not (_is_finite(x) and _is_finite(y)):
                return []
            found.append((float(x), float(y)))
        return found

    @property
    def sizes(self) -> list[tuple[float, float]]:
        """Width and height of the components, in [0, 1]; none unless each of them says so."""
        known = []
        for row in self.rows:
            width = row.get("width")
            height = row.get("height")
            if not (_is_finite(width) and _is_finite(height)):
                return []
            known.append((float(width), float(height)))
        return known

    def picture(self, *, side: int = SIDE) -> Image.Image:
        """The image with a numbered ring at each place, or a box, its shorter side enlarged to `side` px or more.

        Raises:
            InputError: there is no image.
        """
        return overlay(self._known_image(), self.places, sizes=self.sizes if self.places else (), side=side)

    def mapped(self, maps: Tensor, share: Sequence[float] | None = None, *, side: int = SIDE) -> Image.Image:
        """The marked image beside the map of each component, over the image in grey, with its name and its share.

        Args:
            maps: (K, H, W), as `Solution.maps` gives them.
            share: of each component.
            side: least length in px of the shorter side of each image.

        Raises:
            InputError: there is no image.
        """
        marked = self.picture(side=side)
        # What a component explains, in colours over the grey image; where others explain more, nothing
        grey = framed(self._known_image(), side=side).convert("L").convert("RGB")
        shown = [Image.blend(grey, heat(one.clamp(min=0), grey.size), 0.7) for one in maps]
        # Its number, what it is, and how much of all it explains
        captions = [f"{number} {row_text(row)}" for number, row in enumerate(self.rows, 1)]
        if share is not None:
            captions = [f"{name}: {part:.0%}" for name, part in zip(captions, share, strict=True)]
        return grid([marked, *shown], captions=["", *captions])

    def _known_image(self) -> Image.Image:
        if self.image is None:
            raise InputError("got a result without its image; expected one of `infer`; use energycomp.images.overlay")
        return self.image


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def as_row(described: Any) -> dict[str, Any]:
    """What a conditioner says of a value, as an object of JSON."""
    return dict(described) if isinstance(described, Mapping) else {"value": described}


def row_text(row: Mapping[str, Any]) -> str:
    """What a conditioner says of a value, in one line: its words, then its numbers."""
    words = [str(part) for part in row.values() if not isinstance(part, float)]
    numbers = [f"{part:.2f}" for part in row.values() if isinstance(part, float)]
    return " ".join([*words, *numbers])


def view_of(model: Model, values: Tensor, *, image: Any = None, runner_up: Tensor | None = None) -> View:
    """The view of values (K, *V) of a model's conditioner.

    Args:
        image: one image, as `ImageProcessor` takes it; what is none is left out.
        runner_up: values of the best other answer.

    >>> import torch
    >>> from energycomp.testing import tinted_model
    >>> model = tinted_model()
    >>> view_of(model, model.conditioner.parse(0.25, 0.5, tint="red")).components
    ({'x': 0.25, 'y': 0.5, 'tint': 'red'},)
    """
    mixed = mixed_of(model.conditioner)
    others = None if runner_up is None else _described(model, runner_up)
    attributes = () if mixed is None else tuple(mixed.attributes)
    noun = "attribute" if groups_of(model.conditioner) else "object"
    return View(_frame(model, image), _described(model, values), others, attributes, noun)


def _described(model: Model, values: Tensor) -> tuple[Any, ...]:
    try:
        return tuple(model.conditioner.describe(value) for value in values)
    except Exception:  # a conditioner of a plugin; an answer is not lost because nothing describes it
        return tuple(values.tolist())


def _frame(model: Model, image: Any) -> Image.Image | None:
    """The part of the image that the model sees; None for data that are no image."""
    if not isinstance(model.processor, ImageProcessor):
        return None
    # The image itself, also where it is in a list of one; data that are none have no picture
    is_list = isinstance(image, Sequence) and not isinstance(image, str)
    single = image[0] if is_list and len(image) == 1 else image
    try:
        frame = model.processor.frame(as_picture(single))
    except InputError:
        return None
    # In the shape that the model's images have, and not larger than a person looks at
    frame = model.shown(frame)
    frame.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return frame


def answer_cells(record: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table of the objects of a record, as columns and texts; objects are numbered, attributes have a name.

    The numbers that judge objects are left out where the image is not one that the model knows.

    Args:
        record: with `objects`, and `noun` and `trusted` where they are known, see `Solution.record`.

    >>> answer_cells({"objects": [{"x": 0.5, "y": 0.25, "gain": 2.5}]})
    (['#', 'x', 'y', 'gain'], [['1', '0.5', '0.25', '2.5']])
    """
    objects = record["objects"]
    if not record.get("trusted", True):
        objects = [one | {name: "-" for name in JUDGED if name in one} for one in objects]
    columns, cells = table_cells(objects)
    if record.get("noun") == "attribute":
        return columns, cells
    return ["#", *columns], [[str(number), *row] for number, row in enumerate(cells, start=1)]


def answer_text(record: Mapping[str, Any], *lines: str) -> str:
    """The table of a record, and lines below it.

    >>> print(answer_text({"objects": [{"x": 0.5, "y": 0.25}]}, "1 object, sure 0.97"))
    ┏━━━┳━━━━━┳━━━━━━┓
    ┃ # ┃ x   ┃ y    ┃
    ┡━━━╇━━━━━╇━━━━━━┩
    │ 1 │ 0.5 │ 0.25 │
    └───┴─────┴──────┘
    1 object, sure 0.97
    """
    columns, cells = answer_cells(record)
    table = [as_text(rich_table(columns, cells))] if cells else []
    return "\n".join([*table, *lines])


def answer_line(record: Mapping[str, Any]) -> str:
    """The line below the table of a record: the count, and how sure the answer is, in a word and a number.

    Where the numbers of each word are known, these with their intervals in place of the count. Without all that, how
    typical the image is, and the next best answer.

    >>> answer_line({"count": 2, "sure": 0.973, "verdict": "sure"})
    '2 objects, sure 0.97'
    >>> answer_line({"count": 2, "counts": {"six": (2, 1, 2)}, "sure": 0.7, "verdict": "likely"})
    '2 six (1 to 2 in 90 %), likely 0.70'
    """
    # How many components
    noun = record.get("noun", "object")  # a line of an earlier version has none
    parts = [f"{record['count']} {noun}{'' if record['count'] == 1 else 's'}"]
    # How sure the answer is; then nothing else is said
    if record.get("verdict") == "not trusted":
        return f"{parts[0]}, not trusted"
    counts = record.get("counts") or {}
    if counts:
        parts = [f"{number} {word} ({low} to {high} in 90 %)" for word, (number, low, high) in counts.items()]
    if record.get("sure") is not None:
        parts.append(f"{record['verdict']} {record['sure']:.2f}")
    if counts or record.get("sure") is not None:
        return ", ".join(parts)
    # Where that is not known, how usual the image is, or how well it is explained, and what else it might be
    if record.get("typicality") is not None:
        parts.append(f"typicality {record['typicality']:.2g}")
    elif record["fit"] is not None:
        parts.append(f"fit {record['fit']:.3f}")
    if record["p_value"] is not None:
        parts.append(f"next best answer of {len(record['runner_up'] or ())}: p = {record['p_value']:.2g}")
    return ", ".join(parts)
