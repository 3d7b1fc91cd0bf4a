"""A weight of a component: a number, or a `Weight`, which varies over samples, pixels and the noise level.

Notation: variable -> symbol
    share       tau in [0, 1), the share of the sampling trajectory that is done: 0 is noise, 1 is the sample
    factors     maps m(x, y) over pixels, functions s(tau), and numbers n(b) over the samples b of a batch
    parts       w(b, x, y, tau) = sum of number * product of factors
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from numbers import Real
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import attrs
import numpy as np
import torch
from torch import Tensor

from energycomp.errors import CompositionError, InputError

if TYPE_CHECKING:
    from typing_extensions import TypeIs

LEAST_NUMBER = 1e-12  # what rounding leaves of numbers that cancel
GRID = 65  # noise levels between two edges: by them, the extremes of a cubic are off by 0.002 of its range at most
LEAST_VALUE = 1e-6  # what single precision leaves of maps that cancel, such as m and 1 - m

AnyWeight: TypeAlias = "float | Weight"
Shape: TypeAlias = tuple[int, ...]


class Factor(Protocol):
    """What varies over pixels, the noise level or samples. Factors are hashable; its `repr` stands in formulas."""

    @property
    def edges(self) -> tuple[float, ...]:
        """The shares of the trajectory at which it is not smooth."""

    @property
    def samples(self) -> int | None:
        """The number of samples that it has a value of each for; None if it is the same for all."""

    def at(self, share: Tensor, shape: Shape, /) -> Tensor:
        """Values in float64 for shares (B,) and the shape of a sample: (B or 1, ...), which broadcasts to (B, *shape).

        Its pixels are the last two axes of the shape, or the last one.
        """


Polynomial: TypeAlias = tuple[tuple[tuple[Factor, ...], float], ...]


def _merge(parts: Iterable[tuple[tuple[Factor, ...], float]]) -> Polynomial:
    total: dict[tuple[Factor, ...], float] = {(): 0.0}  # a constant is written first
    for factors, number in parts:
        key = tuple(sorted(factors, key=lambda factor: (repr(factor), id(factor))))
        total[key] = total.get(key, 0.0) + number
    return tuple((factors, number) for factors, number in total.items() if abs(number) > LEAST_NUMBER)


@attrs.frozen(eq=False, repr=False)
class Weight:
    """A weight that varies over pixels, the noise level or samples. Made by `region`, `during`, `ramp`, `per_sample`.

    Weights are added and multiplied with each other and with numbers; a result that is constant is a float. Multiply a
    component by one: `region("left half") * during(until=0.4) * a`. Two are equal if their formulas are.

    Args:
        parts: of a sum, each the factors of a product and its number.

    >>> from energycomp.components import during, region
    >>> left = region("left half")
    >>> 1 - 7.5 * left * during(until=0.4)
    1 - 7.5 [0 to 0.4] [left half]
    >>> left - left
    0.0
    """

    parts: Polynomial = attrs.field(converter=_merge)

    __array_ufunc__ = None  # numpy leaves `np.float32(2) * weight` to `__rmul__`

    def __add__(self, other: Any) -> AnyWeight:
        parts = _parts(other)
        return NotImplemented if parts is None else _simple(Weight((*self.parts, *parts)))

    __radd__ = __add__

    def __neg__(self) -> AnyWeight:
        return self * -1.0

    def __sub__(self, other: Any) -> AnyWeight:
        parts = _parts(other)
        return NotImplemented if parts is None else self + Weight(parts) * -1.0

    def __rsub__(self, other: Any) -> AnyWeight:
        return other + self * -1.0

    def __mul__(self, other: Any) -> AnyWeight:
        parts = _parts(other)
        if parts is None:
            return NotImplemented
        return _simple(Weight(((*f, *g), m * n) for f, m in self.parts for g, n in parts))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> AnyWeight:
        number = as_weight(divisor)
        if number == 0:
            raise InputError(f"got the weight {self!r} divided by 0; expected a number that is not 0; check it")
        return NotImplemented if number is None else self * (1.0 / number)

    def __rtruediv__(self, number: Any) -> AnyWeight:
        if as_weight(number) is None:
            return NotImplemented
        return Weight([((_Changed(self, _inverse, "[1 / ({!r})]"),), 1.0)]) * number

    def __eq__(self, other: object) -> bool:
        return dict(self.parts) == dict(other.parts) if isinstance(other, Weight) else NotImplemented

    def __hash__(self) -> int:
        return hash(frozenset(self.parts))

    @property
    def edges(self) -> tuple[float, ...]:
        """The shares of the trajectory at which a factor is not smooth."""
        return tuple(sorted({edge for factors, _ in self.parts for factor in factors for edge in factor.edges}))

    @property
    def samples(self) -> int | None:
        """The number of samples whose weights differ; None if the weight is the same for all samples of a batch.

        Raises:
            CompositionError: factors for different numbers of samples.
        """
        counts = {factor.samples for factors, _ in self.parts for factor in factors} - {None}
        if len(counts) > 1:
            got = f"got the weight {self!r} for {' and '.join(map(str, sorted(filter(None, counts))))} samples"
            raise CompositionError(f"{got}; expected one number; give every `per_sample` as many compositions")
        return next(iter(counts), None)

    def at(self, share: Tensor, shape: Shape) -> Tensor:
        """Values in float64 for shares (B,), see `noise_share`, and the shape of a sample, to which they broadcast.

        >>> from energycomp.components import region
        >>> (2 * region("left half")).at(torch.zeros(1), (3, 1, 4)).flatten()
        tensor([2., 2., 0., 0.], dtype=torch.float64)
        """
        total = torch.zeros([1] * (1 + len(shape)), dtype=torch.float64)
        for factors, number in self.parts:
            value = torch.full([1] * (1 + len(shape)), number, dtype=torch.float64)
            for factor in factors:
                value = value * factor.at(share, shape)
            total = total + value
        return total

    def everywhere(self, shape: Shape) -> Tensor:
        """Values (N, ...) at a grid of noise levels, edges included, for each sample in turn."""
        ends = [0.0, *(edge for edge in self.edges if 0.0 < edge < 1.0), 1.0]
        parts = torch.linspace(0.0, 1.0 - 1e-9, GRID, dtype=torch.float64)
        shares = torch.cat([a + (b - a) * parts for a, b in pairwise(ends)])
        return self.at(shares.repeat_interleave(self.samples or 1), shape)

    def span(self, shape: Shape) -> tuple[float, float]:
        """The least and the greatest value at all pixels and samples, on a grid of noise levels."""
        values = self.everywhere(shape)
        return float(values.min()), float(values.max())

    def __repr__(self) -> str:
        return write_sum((number, " ".join(map(repr, factors))) for factors, number in self.parts)


def varies(weight: Any) -> TypeIs[Weight]:
    """Whether a weight is a `Weight`, and not one number."""
    return isinstance(weight, Weight)


@attrs.frozen(repr=False)
class _Changed:
    """A function of a weight, as a factor."""

    weight: Weight
    function: Callable[[Weight, Tensor], Tensor]
    text: str

    edges = property(attrgetter("weight.edges"))
    samples = property(attrgetter("weight.samples"))

    def at(self, share: Tensor, shape: Shape, /) -> Tensor:
        return self.function(self.weight, self.weight.at(share, shape))

    def __repr__(self) -> str:
        return self.text.format(self.weight)


def _inverse(weight: Weight, values: Tensor) -> Tensor:
    if bool((values.abs() < LEAST_VALUE).any()):
        raise _sum_is_0(weight)
    return 1.0 / values


def _sum_is_0(weight: Weight) -> CompositionError:
    return CompositionError(
        f"got the weights {weight!r} under the rule 'mean', whose sum is 0 at a pixel and noise level; expected a "
        "sum that is not 0 anywhere; cover the whole image and trajectory, or use the rule 'sum'"
    )


def check_one_sign(weight: Weight, shape: Shape) -> None:
    """Raises `CompositionError` for a sum of weights, under the rule "mean", that is 0 or changes its sign."""
    least, greatest = weight.span(shape)
    if least <= -LEAST_VALUE and greatest >= LEAST_VALUE:
        got = f"got the weights {weight!r} under the rule 'mean', whose sum changes its sign"
        raise CompositionError(f"{got}; expected a sum that is positive everywhere; use the rule 'sum'")
    if least < LEAST_VALUE and greatest > -LEAST_VALUE:
        raise _sum_is_0(weight)


def _clamp(_: Weight, values: Tensor) -> Tensor:
    return values.clamp(min=0.0)


def positive(weight: AnyWeight, shape: Shape) -> AnyWeight:
    """max(w, 0): the weight itself where it is nowhere below 0 in a sample, and 0 where it is nowhere above."""
    if not varies(weight):
        return max(weight, 0.0)
    least, greatest = weight.span(shape)
    if least >= -LEAST_NUMBER:
        return weight
    return Weight([((_Changed(weight, _clamp, "[max({!r}, 0)]"),), 1.0)]) if greatest > LEAST_NUMBER else 0.0


def _parts(value: Any) -> Polynomial | None:
    """A weight or a number as parts; None for anything else."""
    if varies(value):
        return value.parts
    number = as_weight(value)
    return None if number is None else (((), number),)


def _simple(weight: Weight) -> AnyWeight:
    """A weight without factors as the number that it is."""
    return weight if any(factors for factors, _ in weight.parts) else sum((number for _, number in weight.parts), 0.0)


def as_weight(value: Any) -> float | None:
    """A real number as a float: of Python, of numpy, or a tensor or array without dimensions; None for anything else.

    Raises:
        CompositionError: infinity, NaN, or a tensor that requires a gradient, which a weight does not keep.
    """
    if isinstance(value, Tensor) and value.ndim == 0 and value.requires_grad:
        raise CompositionError("got a weight that requires a gradient; expected a number; call `.item()` on it")
    number = scalar(value)
    if not isinstance(number, Real):
        return None
    if not math.isfinite(number):
        raise CompositionError(f"got the weight {number}; expected a finite number; check how it was computed")
    return float(number)


def scalar(value: Any) -> Any:
    """A tensor or an array without dimensions, or a number of numpy, as a number of Python; anything else as it is."""
    return value.item() if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0 else value


def write_sum(parts: Iterable[tuple[float, str]]) -> str:
    """A weighted sum as it is written.

    >>> write_sum([(2.0, "a"), (-1.0, "b"), (1.0, "")]), write_sum([])
    ('2 a - b + 1', '0')
    """
    found: list[str] = []
    for number, text in parts:
        size = f"{abs(number):g}" if abs(number) != 1 or not text else ""
        if found:
            found.append(" - " if number < 0 else " + ")
        elif number < 0:
            found.append("-")
        found.append(" ".join(filter(None, [size, text])))
    return "".join(found) or "0"
