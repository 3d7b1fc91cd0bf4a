"""The numbers of objects once more, when their attributes are known.

Notation: variable -> symbol
    values      v_k = (x_k, a_k1, a_k2, ...), the numbers and the attributes of object k
    q           a number as its quantile in the support, in (0, 1)
    J+, J-, J0  the error with one number of one object moved by +step and -step, and as found

    q <- q + clip(step (J- - J+) / (2 (J+ - 2 J0 + J-)), -step, step)

This is one Newton step on a parabola for each number. Places are searched with all attributes open, and an error that
knows the attributes has a sharper minimum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp.components.support import from_quantiles, to_quantiles
from energycomp.inference.attributes import DRAWS, mixed_support
from energycomp.inference.problem import Problem

STEP = 0.02  # of a number, as a quantile
EDGE = 1e-4  # quantiles are at least so far from 0 and 1


def refine_numbers(
    problem: Problem, values: Tensor, *, draws: int = DRAWS, generator: int | torch.Generator | None = None
) -> Tensor:
    """Values (K, D + A) of a `MixedConditioner` with better numbers D, the attributes unchanged.

    Costs draws K (1 + 2 D) network evaluations, and those of u and of the trunk.

    >>> from energycomp.inference.problem import make_problem
    >>> from energycomp.testing import planted, tinted_model
    >>> model = tinted_model()
    >>> true = model.conditioner.parse(0.2, 0.3, tint="red", width="wide")
    >>> problem = make_problem(planted(model, true), model)
    >>> start = true + torch.tensor([0.01, -0.01, 0.0, 0.0])
    >>> (refine_numbers(problem, start, generator=0) - true).abs().max() < 0.002
    tensor(True)
    """
    support = mixed_support(problem)
    count = len(values)
    if not count:
        return values
    bank = problem.draw(draws, generator)
    numbers, codes = support.split(values)
    length = support.length
    # Numbers as quantiles, in which a step has one size everywhere
    q = to_quantiles(support.continuous, numbers, edge=EDGE)

    def valued(quantiles: Tensor, codes: Tensor) -> Tensor:
        numbers = from_quantiles(support.continuous, quantiles, edge=EDGE)
        return torch.cat([numbers.to(values), codes], dim=-1)

    # Each number of each value once higher and once lower
    moves = STEP * torch.stack([torch.eye(length), -torch.eye(length)], dim=1).to(q)  # (D, 2, D)
    repeated = codes[:, None, None].expand(-1, length, 2, -1)
    moved = valued(q[:, None, None] + moves, repeated).flatten(0, 2)
    form = problem.quadratic(torch.cat([values, moved]), bank)
    # Answers as weights: as found, and with one value exchanged for a moved one
    weight = problem.weighting(count)
    weights = torch.zeros(1 + len(moved), len(form), dtype=torch.float64)
    weights[:, :count] = weight
    option = torch.arange(len(moved))
    weights[1 + option, option // (2 * length)] = 0.0
    weights[1 + option, count + option] = weight
    answers = weights.nonzero()[:, 1].view(-1, count)
    errors = form.with_prior(form.weighted_errors(weights).mean(1), answers)

    # The least of the parabola through three errors
    here, up, down = errors[0], *errors[1:].reshape(count, length, 2).unbind(2)
    curvature = up - 2 * here + down
    slope = (down - up) / 2
    step = torch.where(curvature > 0, slope / curvature, slope.sign()).clamp(-1.0, 1.0).to(q)
    return valued(q + STEP * step, codes)
