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

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from energycomp.components.support import from_quantiles, to_quantiles
from energycomp.inference.attributes import DRAWS, mixed_support
from energycomp.inference.problem import Problem
from energycomp.inference.quadratic import QuadraticForm

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
    mixed_support(problem)  # raises
    if not len(values):
        return values
    quadratic = partial(problem.quadratic, bank=problem.draw(draws, generator))
    return moved_numbers(problem, quadratic(values), quadratic, values, range(len(values)))


def moved_numbers(
    problem: Problem,
    form: QuadraticForm,
    quadratic: Callable[[Tensor], QuadraticForm],
    values: Tensor,
    which: Sequence[int],
) -> Tensor:
    """Values (K, V) with better numbers: the Newton step on a parabola for each number of some of them.

    Costs 2 D network evaluations for each of these and each draw.

    Args:
        form: over the values.
        quadratic: the form over any values, on the same draws.
        values: with all their attributes, if they have some.
        which: the indices of those that move.

    >>> from energycomp.testing import bumps_model, planted
    >>> from energycomp.inference import make_problem
    >>> model = bumps_model()
    >>> problem = make_problem(planted(model, torch.tensor([[0.3, 0.5]])), model)
    >>> bank, near = problem.draw(8, 0), torch.tensor([[0.31, 0.49]])
    >>> def quadratic(values):
    ...     return problem.quadratic(values, bank)
    >>> moved_numbers(problem, quadratic(near), quadratic, near, [0]).round(decimals=2)
    tensor([[0.3000, 0.5000]])
    """
    mixed = problem.mixed
    chosen = list(which)
    count = len(values)
    # The numbers of a value, and their support; words stay as they are
    support = problem.slots[0].support if mixed is None else mixed.continuous
    numbers = values.shape[1] if mixed is None else mixed.length
    rest = values[chosen, numbers:]
    # Numbers as quantiles, in which a step has one size everywhere
    q = to_quantiles(support, values[chosen, :numbers], edge=EDGE)

    def valued(quantiles: Tensor, rest: Tensor) -> Tensor:
        return torch.cat([from_quantiles(support, quantiles, edge=EDGE).to(values), rest], dim=-1)

    # Each number of each value once higher and once lower.
    moves = STEP * torch.stack([torch.eye(numbers), -torch.eye(numbers)], dim=1).to(q)  # (D, 2, D)
    moved = valued(q[:, None, None] + moves, rest[:, None, None].expand(-1, numbers, 2, -1)).flatten(0, 2)
    both = form.append(quadratic(moved))
    # Answers as weights: as found, and with one value exchanged for a moved one
    weight = problem.weighting(count)
    weights = torch.zeros(1 + len(moved), len(both), dtype=torch.float64)
    weights[:, :count] = weight
    option = torch.arange(len(moved))
    weights[1 + option, torch.tensor(chosen)[option // (2 * numbers)]] = 0.0
    weights[1 + option, count + option] = weight
    # J0 of the answer as found, then J+ and J- of each number
    answers = weights.nonzero()[:, 1].view(-1, count)
    errors = both.with_prior(both.weighted_errors(weights).mean(1), answers)

    # The least of the parabola through three errors; where it has none, a whole step down the slope.
    here = errors[0]
    up, down = errors[1:].reshape(len(chosen), numbers, 2).unbind(2)
    curvature = up - 2 * here + down
    slope = (down - up) / 2
    step = torch.where(curvature > 0, slope / curvature, slope.sign()).clamp(-1.0, 1.0).to(q)
    # Back from quantiles to numbers
    made = values.clone()
    made[chosen] = valued(q + STEP * step, rest)
    return made
