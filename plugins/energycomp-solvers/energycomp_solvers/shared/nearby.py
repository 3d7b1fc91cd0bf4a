"""Places around a component of an answer: the best one near it, and two in place of one.

Notation: variable -> symbol
    q           numbers as quantiles in their support, in (0, 1)
    steps       s, of each number down, not at all, or up by `NEAR`

    nearby      q + s, for each of 3^D steps
    halves      q + s and q - s, of steps of one and two times `NEAR`
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.components import from_quantiles, to_quantiles
from energycomp_solvers.shared.refit import EDGE, NEAR, Candidate, Refit
from energycomp_solvers.shared.subsets import subset_errors

NEAREST = 3  # places nearby that stay after the first part of the draws


def nearby(refit: Refit, others: Sequence[int], start: Tensor, old: Candidate | None = None) -> tuple[Tensor, float]:
    """The best value whose numbers are a little lower, the same or higher, and by how much it lowers the error.

    Costs 3^D rows, and two for each of the `NEAREST` best; what is known of `old` costs nothing.
    """
    # All values around it, itself the first one.
    length = refit.problem.value_shape[0]
    steps = torch.cartesian_prod(*[torch.tensor([0.0, -NEAR, NEAR])] * length).view(-1, length)
    values = _shifted(refit, start, steps)
    values[0] = start

    # Halve them: each part of the draws sees fewer of them.
    errors = torch.zeros(0, len(values), dtype=torch.float64)
    for number in (0, 1):
        form = refit.forms[number].take(list(others)).append(refit.on_part(number, values, old))
        errors = torch.cat([errors, refit.with_each(form, len(others))])
        means = refit.mean_of(form, errors, len(others))
        order = means.argsort()[:NEAREST]
        values = values[order]
        errors = errors[:, order]
        means = means[order]
    return values[0], refit.without(others, 2) - float(means[0])


def halves(refit: Refit, others: Sequence[int], whole: Tensor) -> list[Tensor]:
    """Two values in place of one, to both sides of it: the best of (3^D - 1) pairs.

    Costs two rows for each of them and each of three draws.
    """
    # All values to one side, followed by those to the other side.
    length = refit.problem.value_shape[0]
    directions = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * length).view(-1, length)
    forward = directions[len(directions) // 2 + 1 :]  # the other half are their opposites
    steps = NEAR * torch.cat([forward, 2 * forward])
    values = _shifted(refit, whole, torch.cat([steps, -steps]))
    pairs = list(zip(range(len(steps)), range(len(steps), 2 * len(steps)), strict=True))

    # The pair of least error on the first two parts of the draws.
    means = torch.zeros(len(pairs), dtype=torch.float64)
    for number in (0, 1):
        form = refit.forms[number].take(list(others)).append(refit.on_part(number, values))
        sets = [[*range(len(others)), *(len(others) + one for one in pair)] for pair in pairs]
        means += torch.stack([subset_errors(form, each, refit.problem.weighting).sum() for each in sets]).cpu()
    return [values[one] for one in pairs[int(means.argmin())]]


def _shifted(refit: Refit, start: Tensor, steps: Tensor) -> Tensor:
    """A value (V,) with its numbers changed by steps (M, D) of their quantiles, its words unchanged, (M, V)."""
    support = refit.problem.slots[0].support
    length = refit.problem.value_shape[0]
    q = to_quantiles(support, start[None, :length], edge=EDGE)
    numbers = from_quantiles(support, q + steps.to(q), edge=EDGE).to(start)
    return torch.cat([numbers, start[length:].expand(len(numbers), -1)], dim=1)
