"""How the cubes of a picture are turned, read last: all else is known then.

Notation: variable -> symbol
    errors    J_kj, the error, with the prior, where cube k is turned by j STEP degrees, and all else is as it was read
    shift     where a parabola through the least of them and both its neighbours has its minimum, in steps
"""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp.inference import Problem
from energycomp_clevr.codes import CUBE, QUARTER, SHAPE, TURN

STEP = 10  # degrees
DRAWS = 12


def read_turns(
    problem: Problem, values: Tensor, *, draws: int = DRAWS, generator: torch.Generator | None = None
) -> Tensor:
    """Values (K, 7) with the turn of each cube, in whole degrees; those of other objects stay open.

    Costs draws (K + 9 C) network evaluations for C cubes, and those of u and of the trunk.
    """
    cubes = (values[:, SHAPE] == CUBE).nonzero()[:, 0].tolist()
    if not cubes:
        return values
    count = len(values)
    turns = torch.arange(0, QUARTER, STEP)
    # Atoms: the objects as they are, and each cube under each turn.
    options = values[cubes].repeat_interleave(len(turns), 0)
    options[:, TURN] = 1 + turns.to(values).repeat(len(cubes))
    form = problem.quadratic(torch.cat([values, options]), problem.draw(draws, generator))
    # Answers: one cube is swapped for one of its options.
    weights = torch.zeros(len(options), len(form), dtype=torch.float64)
    weights[:, :count] = problem.weighting(count)
    for number in range(len(options)):
        weights[number, cubes[number // len(turns)]] = 0.0
        weights[number, count + number] = problem.weighting(count)
    answers = weights.nonzero()[:, 1].view(-1, count)
    errors = form.with_prior(form.weighted_errors(weights).mean(1), answers).cpu().view(len(cubes), len(turns))
    found = values.clone()
    found[cubes, TURN] = 1 + (least_turn(errors).round() % QUARTER).to(values)
    return found


def least_turn(errors: Tensor) -> Tensor:
    """The turn (C,) in degrees at which errors (C, 9), of turns of 0, 10, ..., 80 degrees, are least.

    >>> turns = torch.arange(0, 90, 10)
    >>> least_turn(-torch.cos((4 * (turns - torch.tensor([[33], [88]]))).deg2rad())).round()
    tensor([33., 88.])
    """
    best = errors.argmin(1, keepdim=True)
    before, here, after = (errors.gather(1, (best + step) % errors.shape[1])[:, 0] for step in (-1, 0, 1))
    curvature = before - 2 * here + after
    shift = torch.where(curvature > 0, (before - after) / (2 * curvature), 0.0).clamp(-0.5, 0.5)
    return STEP * (best[:, 0] + shift) % QUARTER
