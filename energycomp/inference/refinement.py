"""The continuous numbers of objects once their attributes are known: one Newton step on a parabola for each number.

Notation: variable -> symbol
    q           a number as its quantile in the support, in (0, 1)
    J+, J-, J0  the error with one number of one object moved by +step and -step, and as found

    q <- q + clip(step (J- - J+) / (2 (J+ - 2 J0 + J-)), -step, step)

Places are searched with all attributes open, and an error that knows the attributes has a sharper minimum.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import transform_to

from energycomp.inference.problem import Problem

DRAWS, STEP, EDGE = 6, 0.02, 1e-4


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
    count, numbers = len(values), values.shape[1] - len(problem.words)
    if not count:
        return values
    to_support = transform_to(problem.slots[0].support)
    q = torch.sigmoid(to_support.inv(values[:, :numbers].double())).clamp(EDGE, 1 - EDGE)
    moves = STEP * torch.stack([torch.eye(numbers), -torch.eye(numbers)], dim=1).to(q)  # (D, 2, D)
    moved = values[:, None, None].repeat(1, numbers, 2, 1)
    moved[..., :numbers] = to_support(torch.logit((q[:, None, None] + moves).clamp(EDGE, 1 - EDGE))).to(values)
    form = problem.quadratic(torch.cat([values, moved.flatten(0, 2)]), problem.draw(draws, generator))

    weight = problem.weighting(count)
    weights = torch.zeros(1 + 2 * numbers * count, len(form), dtype=torch.float64)
    weights[:, :count] = weight
    option = torch.arange(len(weights) - 1)
    weights[1 + option, option // (2 * numbers)] = 0.0
    weights[1 + option, count + option] = weight
    errors = form.weighted_errors(weights).mean(1)
    here, up, down = errors[0], *errors[1:].reshape(count, numbers, 2).unbind(2)

    curvature, slope = up - 2 * here + down, (down - up) / 2
    step = torch.where(curvature > 0, slope / curvature, slope.sign()).clamp(-1.0, 1.0).to(q)
    refined = values.clone()
    refined[:, :numbers] = to_support(torch.logit((q + STEP * step).clamp(EDGE, 1 - EDGE))).to(values)
    return refined
