"""Arithmetic on a quadratic form for subsets of atoms: what a greedy search, swaps and pruning share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from energycomp.inference import QuadraticForm

__all__ = ["add_each", "greedy", "subset_errors", "swap"]

Weighting = Callable[[int], float]


def subset_errors(form: QuadraticForm, chosen: Sequence[int], weighting: Weighting) -> Tensor:
    """Errors (S,) of the atoms `chosen`, all with the weight of their number.

    >>> form = QuadraticForm(torch.eye(2)[None], torch.ones(1, 2))
    >>> subset_errors(form, [0, 1], lambda count: 1.0).tolist()
    [0.0]
    """
    if not chosen:
        return form.c
    index, w = list(chosen), weighting(len(chosen))
    return form.c - 2 * w * form.b[:, index].sum(1) + w**2 * form.gram(index).sum((1, 2))


def add_each(form: QuadraticForm, chosen: Sequence[int], weighting: Weighting) -> Tensor:
    """Mean errors (M,) of `chosen` with each atom of the form added; infinite for those already chosen."""
    w = weighting(len(chosen) + 1)
    inner = form.b.new_zeros(form.draws, len(form))
    base, linear = form.c, form.b
    if chosen:
        index = list(chosen)
        base = base - 2 * w * form.b[:, index].sum(1) + w**2 * form.gram(index).sum((1, 2))
        inner = torch.stack([form.column(i) for i in index]).sum(0)
    errors = base[:, None] - 2 * w * linear + w**2 * (form.diagonal + 2 * inner)
    mean = errors.mean(0)
    mean[list(chosen)] = torch.inf
    return mean


def greedy(
    form: QuadraticForm, counts: tuple[int, int], weighting: Weighting, chosen: Sequence[int] = ()
) -> tuple[list[int], list[float]]:
    """Matching pursuit (Mallat and Zhang, 1993) with weights fixed to the rule: adds what lowers the mean error most.

    Stops at the greatest count, or past the least where nothing lowers the error. Costs no network row.

    Returns:
        The indices in the order chosen, and the mean error after each, the starting error first.
    """
    chosen = list(chosen)
    errors = [float(subset_errors(form, chosen, weighting).mean())]
    while len(chosen) < min(counts[1], len(form)):
        candidate = add_each(form, chosen, weighting)
        best = int(candidate.argmin())
        if float(candidate[best]) >= errors[-1] and len(chosen) >= counts[0]:
            break
        chosen.append(best)
        errors.append(float(candidate[best]))
    return chosen, errors


def swap(form: QuadraticForm, chosen: Sequence[int], weighting: Weighting, *, rounds: int = 4) -> list[int]:
    """Coordinate descent: each chosen atom is replaced by the best one for its place, until none changes."""
    chosen = list(chosen)
    for _ in range(rounds):
        before = list(chosen)
        for place in range(len(chosen)):
            others = chosen[:place] + chosen[place + 1 :]
            chosen[place] = int(add_each(form, others, weighting).argmin())
        if chosen == before:
            break
    return chosen
