"""Conditioners of the models in closed form: places in the unit square, and labels."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from energycomp.components.conditioning import Condition
from energycomp.errors import InputError

__all__ = ["Labels", "UnitSquare"]


@attrs.frozen
class UnitSquare:
    """A conditioner of places in the unit square.

    >>> UnitSquare().describe(torch.tensor([0.25, 0.5]))
    [0.25, 0.5]
    """

    value_shape: tuple[int, ...] = (2,)
    token_shape: tuple[int, int] = (1, 2)

    @property
    def support(self) -> constraints.Constraint:
        """The unit square."""
        return constraints.independent(constraints.unit_interval, 1)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """Two numbers as a value (1, 2)."""
        legal = len(args) == 2 and not kwargs and all(isinstance(v, int | float) and 0 <= v <= 1 for v in args)
        if not legal:
            raise InputError(f"got {args} {kwargs}; expected two numbers in [0, 1]; divide pixels by the image size")
        return torch.tensor([[float(v) for v in args]])

    def describe(self, value: Tensor) -> list[float]:
        """The two numbers."""
        return [round(float(v), 4) for v in value]

    def config(self) -> dict[str, Any]:
        """No arguments."""
        return {}

    def __call__(self, values: Tensor) -> Condition:
        """Places (R, 2) as rows (R, 1, 2)."""
        if values.ndim != 2 or values.shape[1] != 2:
            raise InputError(f"got places {tuple(values.shape)}; expected (R, 2); stack pairs")
        return Condition(values[:, None, :])


@attrs.frozen
class Labels:
    """A finite conditioner: one of `size` labels, a value of shape () and a one-hot token.

    >>> Labels(3)(torch.tensor([2])).rows
    tensor([[[0., 0., 1.]]])
    """

    size: int
    paired: bool = False  # labels 2k and 2k + 1 are the two values of attribute k
    value_shape: tuple[int, ...] = attrs.field(default=(), init=False)

    @property
    def groups(self) -> tuple[Tensor, ...] | None:
        """The labels of each attribute, or None without attributes."""
        return torch.arange(self.size).view(-1, 2).unbind() if self.paired else None

    @property
    def token_shape(self) -> tuple[int, int]:
        """One token, as wide as the number of labels."""
        return (1, self.size)

    @property
    def support(self) -> constraints.Constraint:
        """0 to size - 1."""
        return constraints.integer_interval(0, self.size - 1)

    def enumerate_support(self) -> Tensor:
        """All labels, (M,)."""
        return torch.arange(self.size)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """A label as a value (1,)."""
        if len(args) != 1 or kwargs or not isinstance(args[0], int) or not 0 <= args[0] < self.size:
            raise InputError(f"got {args} {kwargs}; expected one label from 0 to {self.size - 1}; choose one")
        return torch.tensor([args[0]])

    def describe(self, value: Tensor) -> int:
        """The label."""
        return int(value)

    def config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"size": self.size, "paired": self.paired}

    def __call__(self, values: Tensor) -> Condition:
        """Labels (R,) as one-hot rows (R, 1, M)."""
        if values.ndim != 1:
            raise InputError(f"got labels {tuple(values.shape)}; expected (R,); flatten them")
        return Condition(nn.functional.one_hot(values.long(), self.size).float()[:, None])
