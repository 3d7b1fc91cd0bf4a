"""The view conditioner: from where a scene is seen, and from where it is lit; it has no place in the image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import Condition
from energycomp.errors import InputError
from energycomp.fields import is_number

MOST = 6.0  # scene units, of an offset
VIEW_COLUMNS = 7  # of a token: the six numbers of a `Viewpoint`, and whether it is one
HOME = (7.48, -6.51, 5.34)  # where CLEVR's camera stands, on average; it looks at the origin
AXES = ((0.6565, 0.7543, 0.0), (-0.3577, 0.3113, 0.8805), (-0.6641, 0.5780, -0.4741))  # right, up, forward from there
JITTER = (0.5, 1.0)  # scene units: how far CLEVR moves the camera and the lamps along each axis of the scene, at most


@attrs.frozen
class Viewpoint:
    """Camera and light of a scene, as offsets from CLEVR's own in scene units.

    A value (6,) is how far the camera stands to the right, up and forward of its usual place, and then the key lamp, as
    the usual camera sees it. Its token is one of `Objects(viewpoint=True)`, with no place and no words.

    >>> view = Viewpoint()
    >>> near = view.parse(camera=(0.0, 0.0, 0.5))
    >>> near, view.describe(near[0])
    (tensor([[0.0000, 0.0000, 0.5000, 0.0000, 0.0000, 0.0000]]), {'camera': (0.0, 0.0, 0.5), 'light': (0.0, 0.0, 0.0)})
    """

    value_shape: ClassVar[tuple[int, ...]] = (6,)

    token_shape: tuple[int, int] = (1, 22)

    @property
    def support(self) -> constraints.Constraint:
        """Offsets of at most 6 scene units."""
        return constraints.independent(constraints.interval(-MOST, MOST), 1)

    def parse(self, *, camera: Sequence[float] = (0.0, 0.0, 0.0), light: Sequence[float] = (0.0, 0.0, 0.0)) -> Tensor:
        """The value (1, 6) of both offsets, right, up and forward."""
        both: tuple[tuple[str, Any], ...] = (("camera", camera), ("light", light))
        for name, given in both:
            numbers = list(given) if isinstance(given, list | tuple) else []
            if len(numbers) != 3 or not all(is_number(number) and abs(number) <= MOST for number in numbers):
                raise InputError(
                    f"got {name}={given!r}; expected three numbers of at most {MOST:g}: how far right, up and forward"
                )
        return torch.tensor([[*map(float, camera), *map(float, light)]])

    def describe(self, value: Tensor) -> dict[str, Any]:
        """One value (6,) as {"camera": ..., "light": ...}, to four digits."""
        right, up, forward, *light = (round(float(number), 4) for number in value)
        return {"camera": (right, up, forward), "light": tuple(light)}

    def config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    def __call__(self, values: Tensor) -> Condition:
        """Values (R, 6) as condition rows (R, *token_shape)."""
        if values.ndim != 2 or values.shape[1:] != self.value_shape:
            raise InputError(f"got views of shape {tuple(values.shape)}; expected (R, 6)")
        width, own = self.token_shape[1], self.value_shape[0]
        rows = torch.nn.functional.pad(values, (width - own - 1, 0))
        return Condition(torch.cat([rows, torch.ones_like(rows[:, :1])], 1)[:, None])


def says_view(condition: Condition) -> bool:
    """Whether a row of a condition is that of a `Viewpoint`."""
    return bool(((condition.rows[:, 0, -1] == 1) & ~condition.null).any())


def draw_views(token_shape: tuple[int, int], rows: int, generator: torch.Generator | None) -> Condition:
    """Rows of `Viewpoint` with camera and lamp where CLEVR's own generator puts them."""
    moved = (2 * torch.rand(rows, 2, 3, generator=generator) - 1) * torch.tensor(JITTER)[:, None]
    values = moved @ torch.tensor(AXES).T  # as the usual camera sees it
    return Viewpoint(token_shape)(values.flatten(1))
