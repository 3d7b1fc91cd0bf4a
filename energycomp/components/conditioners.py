"""The conditioners of the core: latents of an encoder, and classes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components.condition import Condition
from energycomp.errors import InputError
from energycomp.fields import legal, whole


@attrs.frozen
class Latents:
    """A conditioner of latents of a width D that an encoder reads from an image; the token of a value is the value.

    >>> latents = Latents(3)
    >>> latents.parse(0.5, 1, -2), latents(torch.zeros(2, 3)).shape
    (tensor([[ 0.5000,  1.0000, -2.0000]]), (1, 3))
    """

    width: int = attrs.field(default=8, validator=whole(1, None))

    value_shape = property(lambda self: (self.width,))
    token_shape = property(lambda self: (1, self.width))
    support = constraints.independent(constraints.real, 1)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        numbers = all(isinstance(number, int | float) and math.isfinite(number) for number in args)
        if kwargs or len(args) != self.width or not numbers:
            expected = f"the {self.width} finite numbers of a latent"
            raise InputError(f"got {args} {kwargs or ''}; expected {expected}; take them from energycomp.decompose")
        return torch.tensor([args], dtype=torch.float32)

    def describe(self, value: Tensor) -> list[float]:
        return [float(number) for number in value]

    def config(self) -> dict[str, Any]:
        return {"width": self.width}

    def __call__(self, values: Tensor) -> Condition:
        if values.ndim != 2 or values.shape[1] != self.width:
            raise InputError(f"got latents {tuple(values.shape)}; expected (R, {self.width}); take those of this model")
        return Condition(values[:, None].float())


def _texts(names: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(str, names))


@attrs.frozen
class Classes:
    """A conditioner of labels: a value is the index of a name, its token is one-hot.

    >>> digits = Classes(["zero", "one"])
    >>> digits.parse("one"), digits(digits.enumerate_support()).rows.tolist()
    (tensor([1]), [[[1.0, 0.0]], [[0.0, 1.0]]])
    """

    names: tuple[str, ...] = attrs.field(
        converter=_texts,
        validator=legal(lambda names: 0 < len({*names}) == len(names), "names that differ, one at least"),
    )
    value_shape: ClassVar[tuple[int, ...]] = ()

    token_shape = property(lambda self: (1, len(self.names)))
    support = property(lambda self: constraints.integer_interval(0, len(self.names) - 1))

    def enumerate_support(self) -> Tensor:
        return torch.arange(len(self.names))

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        args = args or self.names[: len(self.names) == 1]  # there is one component alone
        if kwargs or len(args) != 1 or str(args[0]) not in self.names:
            some = ", ".join(self.names[:20]) + (", ..." if len(self.names) > 20 else "")
            raise InputError(f"got the class {', '.join(map(repr, args)) or kwargs}; expected one of {some}")
        return torch.tensor([self.names.index(str(args[0]))])

    def describe(self, value: Tensor) -> str:
        return self.names[int(value)]

    def config(self) -> dict[str, Any]:
        return {"names": list(self.names)}

    def __call__(self, values: Tensor) -> Condition:
        if values.ndim != 1:
            raise InputError(f"got classes {tuple(values.shape)}; expected (R,); flatten them")
        return Condition(torch.nn.functional.one_hot(values.long(), len(self.names)).float()[:, None])
