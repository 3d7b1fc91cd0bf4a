"""What a result shows of itself: its image, and its components as the conditioner describes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from PIL import Image
from torch import Tensor

from energycomp.components.conditioning import mixed_of
from energycomp.errors import InputError
from energycomp.images import as_picture, overlay
from energycomp.images.draw import SIDE
from energycomp.models.model import Model

MAX_SIDE = 1024  # px of an image that is kept


@attrs.frozen(eq=False)
class View:
    """An image and its components in words and numbers. It holds no model, so that it is small and can be pickled.

    Args:
        image: the part of the image that the model sees, at most 1024 px a side; None for data that are no image.
        components: each component as the conditioner describes it, JSON data.
        runner_up: the same for the best other answer, or None.
        attributes: the names of the attributes whose certainty is known, see `Solution.certainty`.

    >>> View(None, ({"x": 0.25, "y": 0.5}, {"x": 0.5, "y": 0.5})).places
    [(0.25, 0.5), (0.5, 0.5)]
    >>> View(None, ("a red cube",)).rows
    [{'value': 'a red cube'}]
    """

    image: Image.Image | None
    components: tuple[Any, ...]
    runner_up: tuple[Any, ...] | None = None
    attributes: tuple[str, ...] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per component: what the conditioner says by name, or as `value`."""
        return [as_row(one) for one in self.components]

    @property
    def places(self) -> list[tuple[float, float]]:
        """Where the components are, (x, y) in [0, 1]; none unless each of them says so."""
        places = [(row.get("x"), row.get("y")) for row in self.rows]
        known = all(isinstance(v, int | float) and math.isfinite(v) for place in places for v in place)
        return [(float(x), float(y)) for x, y in places] if known else []  # type: ignore[arg-type]

    def picture(self, *, side: int = SIDE) -> Image.Image:
        """The image with a numbered ring at each place, enlarged so that its shorter side has `side` px or more.

        Raises:
            InputError: there is no image.
        """
        if self.image is None:
            raise InputError(
                "got a result without its image; expected one of `infer` or `edit` for an image; draw it with "
                "energycomp.images.overlay(image, places)"
            )
        return overlay(self.image, self.places, side=side)


def as_row(described: Any) -> dict[str, Any]:
    """What a conditioner says of a value, as an object of JSON."""
    return dict(described) if isinstance(described, Mapping) else {"value": described}


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
    return View(
        _frame(model, image),
        _described(model, values),
        None if runner_up is None else _described(model, runner_up),
        () if mixed is None else tuple(mixed.attributes),
    )


def _described(model: Model, values: Tensor) -> tuple[Any, ...]:
    def described(value: Tensor) -> Any:
        try:
            return model.conditioner.describe(value)
        except Exception:  # a conditioner of a plugin; an answer is not lost because nothing describes it
            return value.tolist()

    return tuple(map(described, values))


def _frame(model: Model, image: Any) -> Image.Image | None:
    """The part of the image that the model sees; None for data that are no image."""
    single = image[0] if isinstance(image, Sequence) and not isinstance(image, str) and len(image) == 1 else image
    try:
        frame = model.processor.frame(as_picture(single))
    except InputError:
        return None
    frame.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return frame
