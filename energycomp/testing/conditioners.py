"""Conditioners of the models in closed form: places in the unit square, alone or with attributes, and labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor, nn
from torch.distributions import constraints

from energycomp.components import Condition, MixedSupport
from energycomp.errors import InputError


@attrs.frozen
class UnitSquare:
    """A conditioner of places in the unit square.

    >>> UnitSquare().describe(torch.tensor([0.25, 0.5]))
    [0.25, 0.5]
    """

    value_shape = (2,)
    token_shape = (1, 2)
    support = constraints.independent(constraints.unit_interval, 1)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        legal = len(args) == 2 and not kwargs and all(isinstance(v, int | float) and 0 <= v <= 1 for v in args)
        if not legal:
            raise InputError(f"got {args} {kwargs}; expected two numbers in [0, 1]; divide pixels by the image size")
        return torch.tensor([[float(v) for v in args]])

    def describe(self, value: Tensor) -> list[float]:
        return [round(float(v), 4) for v in value]

    def config(self) -> dict[str, Any]:
        return {}

    def __call__(self, values: Tensor) -> Condition:
        if values.ndim != 2 or values.shape[1] != 2:
            raise InputError(f"got places {tuple(values.shape)}; expected (R, 2); stack pairs")
        return Condition(values[:, None, :])


@attrs.frozen
class TintedSquare:
    """A conditioner of places in the unit square with two attributes, tint and width, each of which may be left open.

    >>> square = TintedSquare()
    >>> square.describe(square.parse(0.25, 0.5, tint="blue")[0])
    {'x': 0.25, 'y': 0.5, 'tint': 'blue'}
    """

    value_shape = (4,)
    token_shape = (1, 7)
    attributes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "tint": ("red", "green", "blue"),
        "width": ("narrow", "wide"),
    }
    support = MixedSupport(UnitSquare.support, 2, (3, 2))

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        place = {name: kwargs[name] for name in "xy" if name in kwargs}
        numbers = UnitSquare().parse(*args, *place.values())
        given = {name: word for name, word in kwargs.items() if name not in place}
        if any(word not in self.attributes.get(name, ()) for name, word in given.items()):
            raise InputError(f"got {given}; expected words of {dict(self.attributes)}; change them")
        codes = [words.index(given[name]) + 1 if name in given else 0 for name, words in self.attributes.items()]
        return torch.cat([numbers, torch.tensor([codes], dtype=numbers.dtype)], dim=1)

    def describe(self, value: Tensor) -> dict[str, Any]:
        x, y = UnitSquare().describe(value[:2])
        codes = zip(self.attributes.items(), value[2:].tolist(), strict=False)
        return {"x": x, "y": y, **{name: words[int(code) - 1] for (name, words), code in codes if code}}

    def config(self) -> dict[str, Any]:
        return {}

    def __call__(self, values: Tensor) -> Condition:
        """Values (R, 4), or places (R, 2), as rows (R, 1, 7): the place, and a column for each word."""
        if values.ndim != 2 or values.shape[1] not in (2, 4):
            raise InputError(f"got values {tuple(values.shape)}; expected (R, 4), or places (R, 2); stack them")
        codes = values[:, 2:] if values.shape[1] == 4 else values.new_zeros(len(values), 2)
        words = [codes[:, k, None] == torch.arange(1, n + 1, device=codes.device) for k, n in enumerate((3, 2))]
        return Condition(torch.cat([values[:, :2], *(word.to(values.dtype) for word in words)], dim=1)[:, None])


@attrs.frozen
class Labels:
    """A finite conditioner: one of `size` labels, a value of shape () and a one-hot token.

    >>> Labels(3)(torch.tensor([2])).rows
    tensor([[[0., 0., 1.]]])
    """

    size: int
    paired: bool = False  # labels 2k and 2k + 1 are the two values of attribute k
    value_shape = ()
    token_shape = property(lambda self: (1, self.size))
    support = property(lambda self: constraints.integer_interval(0, self.size - 1))
    groups = property(lambda self: torch.arange(self.size).view(-1, 2).unbind() if self.paired else None)

    def enumerate_support(self) -> Tensor:
        return torch.arange(self.size)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        if len(args) != 1 or kwargs or not isinstance(args[0], int) or not 0 <= args[0] < self.size:
            raise InputError(f"got {args} {kwargs}; expected one label from 0 to {self.size - 1}; choose one")
        return torch.tensor([args[0]])

    def describe(self, value: Tensor) -> int:
        return int(value)

    def config(self) -> dict[str, Any]:
        return {"size": self.size, "paired": self.paired}

    def __call__(self, values: Tensor) -> Condition:
        if values.ndim != 1:
            raise InputError(f"got labels {tuple(values.shape)}; expected (R,); flatten them")
        return Condition(nn.functional.one_hot(values.long(), self.size).float()[:, None])
