"""Where an answer leaves something to explain: components that fit badly, and places where one may be missing.

Notation: variable -> symbol
    left      r, what the answer leaves of the target under each draw, (S, P)
    effects   e_k, what component k adds to the composed prediction, (S, P)
    shown     w_k = mean_s e_k^2, the numbers of a sample in which component k shows, summed over channels
    around    <r^2, w_k> / <1, w_k>: what is left around component k
    fit       (J without k - J) / |e_k|^2: 1 where the image holds just what component k predicts
    doubt     around / fit
    like      sum_s <r_s, e> / |e|, how much what is left is like what a value would add (Mallat and Zhang, 1993)

Both kinds of doubt are errors per number, so that a missing component can be compared with one that fits badly. They
are arithmetic on predictions that are known: they cost no network evaluation, and know nothing of pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

from energycomp.components import widen
from energycomp.inference import QuadraticForm
from energycomp_solvers.shared.refit import Refit

LEAST_FIT = 0.2
STRONG = 2.0  # times the median doubt of components: where so much is left, one beside it may stand for two
SAME = 0.7  # cosine of the places of two values from which on they are about the same
BESIDE = 0.2  # cosine of the places of a component and of what is left, from which on it may be the component's


@attrs.frozen(eq=False)
class Doubt:
    """What is doubted most: a component, or a place without one.

    Args:
        value: of the component, or numbers of the place.
        component: its index; None for a place.
        strong: whether far more is left there than usual.
        beside: the component that shows most at the place; None for none.
    """

    value: Tensor
    component: int | None
    strong: bool
    beside: int | None = None


def doubts(form: QuadraticForm, channels: int) -> Tensor:
    """How badly each component of an answer fits, (K,).

    Args:
        form: over the K components of the answer, under the rule product; it holds their predictions.
        channels: by which the numbers of a sample are summed: the first axis of its shape.

    >>> atoms = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> doubts(QuadraticForm.of(atoms, torch.tensor([[1.0, 3.0]])), 1)  # the second one leaves 2
    tensor([0.0000, 0.8000], dtype=torch.float64)
    """
    # What is left around it
    effects = widen(form.atoms)
    left = _left(form)
    shown = summed(effects.square().mean(0), channels)
    around = _around(summed(left.square().mean(0), channels), shown)
    # How much of a component the image holds
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
    return _around(summed(_left(form).square().mean(0), channels), summed(widen(places).square(), channels))


def like(form: QuadraticForm, places: Tensor) -> Tensor:
    """How much what an answer leaves is like what each of M values would add, (M,).

    A small component that is missing leaves less around it than a large one that fits badly, but nothing else leaves
    just this. One that looks unlike others leaves more than this.

    Args:
        form: over the components of the answer.
        places: (M, P), what the M values would add under any draw.

    >>> form = QuadraticForm.of(torch.zeros(1, 0, 3), torch.tensor([[3.0, -3.0, 2.0]]))  # no component
    >>> like(form, torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    tensor([0., 2.], dtype=torch.float64)
    """
    effects = torch.nn.functional.normalize(widen(places), dim=1)
    return _left(form).sum(0) @ effects.T


def most_doubted(
    refit: Refit, lattice: tuple[Tensor, Tensor], tried: list[Tensor], places: Literal["left", "like"] | None
) -> Doubt | None:
    """What is doubted most of an answer and was not tried: a component, or a place without one; None for nothing.

    Args:
        refit: the answer.
        lattice: values (M, D) where a component may be missing, and what each adds under one draw, (M, P).
        tried: values that are left out. A place that is found is added to them.
        places: which place without a component may be the answer: the one around which most is left, the one where what
            is left is most `like` a component, or none.
    """
    chosen = refit.whole()
    channels = refit.channels

    # The component that fits worst of those that were not tried.
    untried = [k for k, value in enumerate(refit.values) if not among(value, tried)]
    component = None
    doubt = 0.0
    of_components = doubts(chosen, channels)
    usual = float(of_components.median()) if len(of_components) else torch.inf
    if untried:
        component = max(untried, key=of_components.tolist().__getitem__)
        doubt = float(of_components[component])

    # The place where one is missing most, if more is left around it.
    values, effects = lattice
    left = missing(chosen, effects, channels)
    by = left if places == "left" else like(chosen, effects).clamp(min=0)
    order = [k for k in by.argsort(descending=True).tolist() if not among(values[k], tried)]
    full = len(refit.values) >= refit.problem.counts[1]
    if places and order and not full and float(left[order[0]]) > doubt:
        most = order[0]
        # What is left beside a component may be its own: it is read again first.
        beside = overlap(effects[most : most + 1], chosen.atoms.square().mean(0).sqrt(), channels)[0]
        if untried:
            nearest = max(untried, key=beside.tolist().__getitem__)
            component = nearest if float(beside[nearest]) > BESIDE else None
        # The place is the mean of those around it, by how much is missing there.
        if component is None:
            tried.append(values[most])
            share = (overlap(effects[most : most + 1], effects, channels)[0] > SAME) * by.square()
            place = (share @ values.to(share)).to(values) / float(share.sum())
            shows = int(beside.argmax()) if len(beside) and float(beside.max()) > BESIDE else None
            return Doubt(place, None, float(left[most]) > STRONG * usual, shows)
    if component is None:
        return None
    return Doubt(refit.values[component], component, doubt > STRONG * usual)


def undoubted(refit: Refit) -> list[Tensor]:
    """The components that need not be read again: without words, those that fit about as well as the others."""
    if refit.words is not None or not len(refit.values):
        return []
    of_components = doubts(refit.whole(), refit.channels)
    doubted = of_components > STRONG * of_components.median()
    return [value for value, is_doubted in zip(refit.values, doubted.tolist(), strict=True) if not is_doubted]


def among(value: Tensor, values: Sequence[Tensor]) -> bool:
    """Whether a value is one of some others.

    >>> among(torch.tensor([0.2, 1.0]), [torch.tensor([0.2]), torch.tensor([0.2, 1.0])])
    True
    """
    return any(value.shape == other.shape and value.equal(other) for other in values)


def overlap(first: Tensor, second: Tensor, channels: int) -> Tensor:
    """The cosines (M, N) of the places in which effects (M, P) and others (N, P) show: 1 for the same place."""
    both = [summed(widen(effects).square(), channels) for effects in (first, second)]
    a, b = (torch.nn.functional.normalize(each, dim=1) for each in both)
    return a @ b.T


def shown_with(refit: Refit, components: Sequence[int], other: int = -1) -> Tensor:
    """The `overlap` (n,) of some components of an answer with another one, the newest one if left out."""
    shown = refit.whole().atoms.square().mean(0).sqrt()
    return overlap(shown[list(components)], shown[other][None], refit.channels)[:, 0]


def summed(squares: Tensor, channels: int) -> Tensor:
    """Numbers (..., P) added up over channels, (..., P / channels)."""
    return squares.unflatten(-1, (channels, -1)).sum(-2)


def _left(form: QuadraticForm) -> Tensor:
    left: Tensor = widen(form.target - form.atoms.sum(1))
    return left


def _around(left: Tensor, shown: Tensor) -> Tensor:
    return (shown * left).sum(-1) / shown.sum(-1).clamp(min=torch.finfo(shown.dtype).tiny)
