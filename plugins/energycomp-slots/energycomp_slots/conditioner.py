"""The condition of a component of slots: a whole scene, with one token for each slot."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import Condition
from energycomp.errors import InputError
from energycomp.fields import whole


@attrs.frozen
class Scenes:
    """A conditioner whose values are the slot latents of scenes, K slots of `width` numbers.

    >>> Scenes(3, 8)(torch.zeros(2, 3, 8)).shape
    (3, 8)
    """

    slots: int = attrs.field(default=6, validator=whole(1))
    width: int = attrs.field(default=48, validator=whole(1))

    @property
    def value_shape(self) -> tuple[int, ...]:
        return (self.slots, self.width)

    @property
    def token_shape(self) -> tuple[int, int]:
        return (self.slots, self.width)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, 2)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """K slot latents of D numbers each, or a tensor (K, D) of them, as a value (1, K, D)."""
        given = args[0] if len(args) == 1 and isinstance(args[0], Tensor) else args
        try:
            value = torch.as_tensor(given, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            value = torch.empty(0)
        if kwargs or tuple(value.shape) != self.value_shape or not bool(torch.isfinite(value).all()):
            raise InputError(
                f"got {len(args)} arguments {kwargs or ''}; expected the {self.slots} slots of a scene, "
                f"{self.width} finite numbers each; take them from an image: energycomp.decompose"
            )
        return value[None]

    def describe(self, value: Tensor) -> list[list[float]]:
        """The numbers of a value (K, D), which `parse` takes back."""
        return [[float(number) for number in row] for row in value]

    def config(self) -> dict[str, Any]:
        return {"slots": self.slots, "width": self.width}

    def __call__(self, values: Tensor) -> Condition:
        """Values (R, K, D) as rows."""
        if tuple(values.shape[1:]) != self.value_shape:
            raise InputError(
                f"got scenes of shape {tuple(values.shape)}; expected (R, {self.slots}, {self.width}); components have "
                "as many slots as their model"
            )
        return Condition(values.float())
