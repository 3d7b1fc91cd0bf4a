"""The coordinates conditioner: positions (x, y) of objects."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import Condition
from energycomp.errors import InputError


@attrs.frozen
class Coordinates:
    """Positions (x, y) in [0, 1], x to the right, y down, origin in the top-left corner; one token of width 2.

    >>> place = Coordinates()
    >>> place(place.parse(0.25, 0.5)).rows
    tensor([[[0.2500, 0.5000]]])
    """

    value_shape: tuple[int, ...] = (2,)
    token_shape: tuple[int, int] = (1, 2)

    @property
    def support(self) -> constraints.Constraint:
        """The unit square."""
        return constraints.independent(constraints.unit_interval, 1)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """The value (1, 2) for `(x, y)` or `x=, y=`."""
        named = {**dict(zip("xy", args, strict=False)), **kwargs}
        given: list[Any] = [named.get("x"), named.get("y")]
        legal = len(args) + len(kwargs) == len(named) == 2 and all(isinstance(v, int | float) for v in given)
        if not legal or not all(0.0 <= float(v) <= 1.0 for v in given):
            shown = [*map(repr, args), *(f"{k}={v!r}" for k, v in kwargs.items())]
            raise InputError(
                f"got the position ({', '.join(shown)}); expected two numbers x, y in [0, 1], "
                "x to the right and y down from the top-left corner; divide pixels by the image size"
            )
        return torch.tensor([[float(v) for v in given]])

    def describe(self, value: Tensor) -> dict[str, float]:
        """One position (2,) as {"x": ..., "y": ...}, to four digits."""
        x, y = (round(float(v), 4) for v in value)
        return {"x": x, "y": y}

    def config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    def __call__(self, values: Tensor) -> Condition:
        """Positions (R, 2) as condition rows (R, 1, 2)."""
        if values.ndim != 2 or values.shape[1] != 2:
            raise InputError(f"got positions of shape {tuple(values.shape)}; expected (R, 2); stack (x, y) pairs")
        return Condition(values[:, None, :])
