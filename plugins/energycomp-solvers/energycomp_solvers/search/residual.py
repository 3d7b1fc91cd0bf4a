"""Residual scores: where an answer leaves something to explain.

Notation: variable -> symbol
    left      r, what the answer leaves of the target under each draw, (S, P)
    effects   e_k, what component k adds to the composed prediction, (S, P)
    shown     w_k = mean_s e_k^2, the pixels in which component k shows, summed over channels
    around    <r^2, w_k> / <1, w_k>: what is left around component k
    fit       (J without k - J) / |e_k|^2: 1 where the image holds just what component k predicts
    match     sum_s <r_s, e> / |e|, how much what is left is like what a value would add (Mallat and Zhang, 1993)

The score of a component is around / fit, that of a place is around. Both are errors per number, so that a missing
component can be compared with one that fits badly. They cost no network evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor
from torch.nn.functional import normalize

from energycomp.components import widen
from energycomp.inference import QuadraticForm
from energycomp_solvers.search.hypothesis import Hypothesis

LEAST_FIT = 0.2


@attrs.frozen(eq=False, slots=False)  # cached properties are kept in the dictionary of an instance
class Places:
    """Where a component may be missing: values, and what each adds under any draw.

    Args:
        values: (M, D).
        effects: (M, P).
        channels: over which the numbers of a sample are summed: the first axis of its shape.
    """

    values: Tensor
    effects: Tensor
    channels: int

    @cached_property
    def shown(self) -> Tensor:
        """The pixels in which each value shows, (M, P / channels), summed over channels."""
        return _sum_channels(widen(self.effects).square(), self.channels)

    @cached_property
    def directions(self) -> Tensor:
        """Effects of length 1."""
        return normalize(widen(self.effects), dim=1)

    @cached_property
    def places(self) -> Tensor:
        """Pixels of length 1, whose products are the `overlap`."""
        return normalize(self.shown, dim=1)


def component_scores(form: QuadraticForm, channels: int) -> Tensor:
    """How badly each component of an answer fits, (K,); `channels` are summed over, the first axis of a sample.

    >>> atoms = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> component_scores(QuadraticForm.of(atoms, torch.tensor([[1.0, 3.0]])), 1)  # the second one leaves 2
    tensor([0.0000, 0.8000], dtype=torch.float64)
    """
    # What is left around it
    effects = widen(form.atoms)
    left = left_of(form)
    shown = _sum_channels(effects.square().mean(0), channels)
    around = _mean_in(_sum_channels(left.square().mean(0), channels), shown)
    # How much of a component the image holds
    inner = torch.einsum("skp,sp->k", effects, left) / len(left)
    strength = effects.square().sum(2).mean(0)
    fit = 1 + 2 * inner / strength.clamp(min=torch.finfo(strength.dtype).tiny)
    return around / fit.clamp(min=LEAST_FIT)


def place_scores(form: QuadraticForm, places: Places) -> Tensor:
    """What an answer leaves around each of M values, (M,)."""
    return _mean_in(_sum_channels(left_of(form).square().mean(0), places.channels), places.shown)


def match_scores(form: QuadraticForm, places: Places) -> Tensor:
    """How much what an answer leaves is like what each of M values would add, (M,).

    A small component that is missing leaves less around it than a large one that fits badly, but nothing else leaves
    just this.
    """
    return left_of(form).sum(0) @ places.directions.T


def overlap(first: Tensor, second: Tensor, channels: int) -> Tensor:
    """The cosines (M, N) of the pixels in which effects (M, P) and others (N, P) show: 1 for the same place."""
    a, b = (_sum_channels(widen(effects).square(), channels) for effects in (first, second))
    return normalize(a, dim=1) @ normalize(b, dim=1).T


def overlap_with(hypothesis: Hypothesis, components: Sequence[int], other: int) -> Tensor:
    """The `overlap` (n,) of some components with another one."""
    shown = hypothesis.whole.atoms.square().mean(0).sqrt()
    return overlap(shown[list(components)], shown[[other]], hypothesis.space.channels)[:, 0]


def _sum_channels(squares: Tensor, channels: int) -> Tensor:
    """Numbers (..., P) summed over channels, (..., P / channels)."""
    return squares.unflatten(-1, (channels, -1)).sum(-2)


def left_of(form: QuadraticForm) -> Tensor:
    """What an answer leaves of the target under each draw, (S, P)."""
    left: Tensor = widen(form.target - form.atoms.sum(1))
    return left


def _mean_in(left: Tensor, shown: Tensor) -> Tensor:
    return (shown * left).sum(-1) / shown.sum(-1).clamp(min=torch.finfo(shown.dtype).tiny)
