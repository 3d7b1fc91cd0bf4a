"""Searches over subsets of the atoms of a quadratic form. They cost no network evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.inference import QuadraticForm, with_each


def still_falls(form: QuadraticForm, chosen: Sequence[int], before: float, share: float) -> bool:
    """Whether the objective of some atoms is below the one before by more than a share of the error of the image.

    What a prior adds may have any constant.
    """
    mean = form.mean_objective(chosen)
    if form.prior is None:
        return mean < (1 - share) * before
    # An error with the prior is linear in that of the image: its slope times that error
    errors = form.errors(chosen)
    own = form.with_prior(2 * errors, [list(chosen)]) - form.with_prior(errors, [list(chosen)])
    return mean < before - share * float(own.mean())


def errors_of_last(form: QuadraticForm, first: int) -> Tensor:
    """Errors (S, M - K) of the first K atoms of a form and each further one."""
    return form.errors_with_each(range(first))[:, first:].cpu()


def mean_with_prior(form: QuadraticForm, errors: Tensor, first: int) -> Tensor:
    """The mean (N,) over draws of errors (S, N) of the first K atoms and each of N further ones, with the prior."""
    sets = with_each(range(first), len(form))[first:][: errors.shape[1]]
    return form.with_prior(errors.mean(0), sets).cpu()


def greedy(form: QuadraticForm, counts: tuple[int, int], chosen: Sequence[int] = ()) -> tuple[list[int], list[float]]:
    """Matching pursuit (Mallat and Zhang, 1993) with weights fixed to the rule: adds what lowers the mean error most.

    Stops at the greatest count, or past the least where nothing lowers the error. Returns the indices in the order
    chosen, and the mean error after each, the starting error first.
    """
    chosen = list(chosen)
    errors = [form.mean_objective(chosen)]
    while len(chosen) < min(counts[1], len(form)):
        # The atom that lowers the mean error most
        candidate = form.objective_with_each(chosen)
        best = int(candidate.argmin())
        if float(candidate[best]) >= errors[-1] and len(chosen) >= counts[0]:
            break
        chosen.append(best)
        errors.append(float(candidate[best]))
    return chosen, errors


def find_promising(form: QuadraticForm, counts: tuple[int, int], most: int) -> list[int]:
    """The best atoms for each component that `greedy` adds, `most` of them a component, and those that it chooses.

    An atom next to a strong component lowers the error of the empty answer more than a weak component does: every
    component is given its own atoms. At least as many atoms as the least count.

    >>> form = QuadraticForm.of(torch.tensor([[[9.0, 0.0], [8.0, 0.0], [0.0, 1.0]]]), torch.tensor([[9.0, 1.0]]))
    >>> find_promising(form, (0, 2), 1)
    [0, 2]
    """
    chosen, _ = greedy(form, counts)
    found = list(chosen)
    # The runners-up of each step of the pursuit, where they lower the error
    for place in range(len(chosen) + 1):
        before = chosen[:place]
        errors = form.objective_with_each(before)
        now = form.mean_objective(before) if place >= counts[0] else torch.inf
        found += [int(k) for k in errors.argsort()[:most] if float(errors[k]) < now]
    return list(dict.fromkeys(found))


def swap(form: QuadraticForm, chosen: Sequence[int], *, rounds: int = 4) -> list[int]:
    """Coordinate descent: each chosen atom is replaced by the best one for its place, until none changes."""
    chosen = list(chosen)
    for _ in range(rounds):
        before = list(chosen)
        # Each place in turn, with all others fixed
        for place in range(len(chosen)):
            others = chosen[:place] + chosen[place + 1 :]
            chosen[place] = int(form.objective_with_each(others).argmin())
        if chosen == before:
            break
    return chosen
