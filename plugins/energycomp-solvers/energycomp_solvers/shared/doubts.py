"""Where an answer leaves something to explain: components that fit badly, and places where one may be missing.

Notation: variable -> symbol
    left      r, what the answer leaves of the target under each draw, (S, P)
    effects   e_k, what component k adds to the composed prediction, (S, P)
    shown     w_k = mean_s e_k^2, the numbers of a sample in which component k shows, summed over channels
    around    <r^2, w_k> / <1, w_k>: what is left around component k
    fit       (J without k - J) / |e_k|^2: 1 where the image holds just what component k predicts
    doubt     around / fit

Both kinds of doubt are errors per number, so that a missing component can be compared with one that fits badly. They
are arithmetic on predictions that are known: they cost no network evaluation, and know nothing of pictures.
"""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp.inference import QuadraticForm

LEAST_FIT = 0.2


def doubts(form: QuadraticForm, channels: int) -> Tensor:
    """How badly each component of an answer fits, (K,).

    Args:
        form: over the K components of the answer, under the rule product; it holds their predictions.
        channels: by which the numbers of a sample are summed: the first axis of its shape.

    >>> atoms = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> doubts(QuadraticForm.of(atoms, torch.tensor([[1.0, 3.0]])), 1)  # the second one leaves 2
    tensor([0.0000, 0.8000], dtype=torch.float64)
    """
    effects, left = form.atoms.double(), _left(form)
    shown = summed(effects.square().mean(0), channels)
    around = _around(summed(left.square().mean(0), channels), shown)
    inner = torch.einsum("skp,sp->k", effects, left) / len(left)
    strength = effects.square().sum(2).mean(0)
    fit = 1 + 2 * inner / strength.clamp(min=torch.finfo(strength.dtype).tiny)
    return around / fit.clamp(min=LEAST_FIT)


def missing(form: QuadraticForm, places: Tensor, channels: int) -> Tensor:
    """What an answer leaves around each of M values that it does not have, (M,).

    Args:
        form: over the components of the answer.
        places: (M, P), what the M values would add under any draw.
    """
    return _around(summed(_left(form).square().mean(0), channels), summed(places.double().square(), channels))


def overlap(first: Tensor, second: Tensor, channels: int) -> Tensor:
    """The cosines (M, N) of the places in which effects (M, P) and others (N, P) show: 1 for the same place."""
    both = [summed(effects.double().square(), channels) for effects in (first, second)]
    a, b = (torch.nn.functional.normalize(each, dim=1) for each in both)
    return a @ b.T


def summed(squares: Tensor, channels: int) -> Tensor:
    """Numbers (..., P) added up over channels, (..., P / channels)."""
    return squares.unflatten(-1, (channels, -1)).sum(-2)


def _left(form: QuadraticForm) -> Tensor:
    left: Tensor = (form.target - form.atoms.sum(1)).double()
    return left


def _around(left: Tensor, shown: Tensor) -> Tensor:
    return (shown * left).sum(-1) / shown.sum(-1).clamp(min=torch.finfo(shown.dtype).tiny)
