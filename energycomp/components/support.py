"""Supports: numbers followed by attributes that may be open, and the quantiles of continuous values."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints, transform_to


@attrs.frozen
class MixedSupport(constraints.Constraint):
    """Values of continuous numbers, then of one whole number for each attribute: 1 to n, or 0 where it is left open.

    This layout is known here, and to conditioners that have it; all others take values apart by the methods below.

    Args:
        continuous: what the D numbers satisfy.
        length: D.
        words: n for each of the A attributes.
        unread: n for each of the U whole numbers behind them, which reading leaves open, such as a turn.

    >>> support = MixedSupport(constraints.independent(constraints.unit_interval, 1), 2, (3,))
    >>> support.check(torch.tensor([[0.5, 0.5, 3.0], [0.5, 0.5, 0.0], [0.5, 0.5, 4.0], [0.5, 1.5, 1.0]]))
    tensor([ True,  True, False, False])
    >>> support.split(torch.tensor([0.25, 0.5, 3.0])), support.opened(torch.tensor([0.25, 0.5, 3.0]))
    ((tensor([0.2500, 0.5000]), tensor([3.])), tensor([0.2500, 0.5000, 0.0000]))
    >>> MixedSupport(support.continuous, 2, (3,), (90,)).joined(torch.zeros(2), torch.ones(1))
    tensor([0., 0., 1., 0.])
    """

    is_discrete = False
    event_dim = 1

    continuous: constraints.Constraint
    length: int
    words: tuple[int, ...]
    unread: tuple[int, ...] = ()

    def check(self, value: Tensor) -> Tensor:
        """Whether values (..., D + A + U) are legal, (...)."""
        numbers, codes = self.split(value)
        most = torch.tensor((*self.words, *self.unread), dtype=codes.dtype, device=codes.device)
        legal = (codes == codes.round()) & (codes >= 0) & (codes <= most)
        return self.continuous.check(numbers) & legal.all(-1)

    def split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers (..., D) and the codes (..., A + U) of values."""
        return values[..., : self.length], values[..., self.length :]

    def joined(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """The values (..., D + A + U) of numbers and codes (..., A + U), or (..., A), which leave the rest open."""
        rest = len(self.words) + len(self.unread) - codes.shape[-1]
        left = codes.new_zeros(*codes.shape[:-1], rest)
        return torch.cat([numbers, torch.cat([codes, left], dim=-1).to(numbers)], dim=-1)

    def opened(self, values: Tensor) -> Tensor:
        """Values, or numbers alone, as values with all attributes left open."""
        numbers, _ = self.split(values)
        return self.joined(numbers, numbers.new_zeros(*numbers.shape[:-1], len(self.words)))

    def kept(self, old: Tensor, new: Tensor) -> Tensor:
        """The new values, with the attributes of the old ones where the new ones leave them open."""
        (_, before), (numbers, codes) = self.split(old), self.split(new)
        return self.joined(numbers, torch.where(codes == 0, before, codes))

    def worded(self, values: Tensor, attribute: int, words: Tensor | int) -> Tensor:
        """Values (N, D + A + U) with other words of one attribute, (N,) counted from 0."""
        numbers, codes = self.split(values)
        codes = codes.clone()
        codes[..., attribute] = torch.as_tensor(words).to(codes) + 1
        return self.joined(numbers, codes)


def from_quantiles(support: constraints.Constraint, quantiles: Tensor, *, edge: float = 0.0) -> Tensor:
    """The values of a continuous support at quantiles in (0, 1); those of the logistic distribution without bounds.

    Args:
        edge: quantiles are kept at least so far from 0 and 1.

    >>> from_quantiles(constraints.interval(2.0, 4.0), torch.tensor([0.25, 1.0]), edge=0.01)
    tensor([2.5000, 3.9800])
    """
    values: Tensor = transform_to(support)(torch.logit(quantiles.clamp(edge, 1 - edge)))
    return values


def to_quantiles(support: constraints.Constraint, values: Tensor, *, edge: float = 0.0) -> Tensor:
    """The quantiles of values, in float64: what `from_quantiles` takes back."""
    quantiles: Tensor = torch.sigmoid(transform_to(support).inv(values.double()))
    return quantiles.clamp(edge, 1 - edge)
