"""A joint Gauss-Newton step on continuous values, from differences of predictions on the quadratic form.

Notation: variable -> symbol
    q           a value as its quantile in the support, in (0, 1)
    difference  D, the change of a component's weighted prediction per unit of one number of q, (K D,) of them
    gradient    D.r, with r what the components leave of the target
    hessian     D.D, of which the curvature of the predictions is left out

    q <- q + clip(hessian^-1 gradient, -reach, reach)

All values move at once, so components that share pixels do not move in turns.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from energycomp.inference import Problem, QuadraticForm

__all__ = ["moved_values", "newton_step"]

STEP, EDGE, DAMPING = 0.01, 1e-3, 1e-3


def moved_values(support: constraints.Constraint, values: Tensor) -> Tensor:
    """Values (K, D) with one number moved by a hundredth of the support, towards its middle: (K D, D)."""
    q = _quantiles(support, values)
    steps = STEP * (1 - 2 * (q > 0.5).double())
    return _values(support, (q[:, None] + torch.diag_embed(steps)).flatten(0, 1), values)


def newton_step(
    problem: Problem, values: Tensor, form: QuadraticForm, chosen: list[int], moved: list[int], *, reach: float
) -> Tensor:
    """Values (K, D) after one step. Costs no network evaluation: the form holds the values and the moved values.

    Args:
        values: (K, D).
        form: over at least the values and `moved_values` of them.
        chosen: the places of the K values in the form.
        moved: the places of the K D moved values.
        reach: by how much of the support a number changes at most.
    """
    count, dimensions = values.shape
    support, weight = problem.slots[0].support, problem.weighting(count)
    q = _quantiles(support, values)
    mean = form.take([*chosen, *moved]).mean()
    b, gram = mean.b[0].cpu(), mean.gram()[0].cpu()
    steps = STEP * (1 - 2 * (q > 0.5).double()).flatten().cpu()
    owner = torch.arange(count).repeat_interleave(dimensions)
    difference = torch.zeros(len(steps), len(b), dtype=torch.float64)  # rows: coefficients over values and moved ones
    place = torch.arange(len(steps))
    difference[place, count + place] = weight / steps
    difference[place, owner] = -weight / steps
    answer = torch.zeros(len(b), dtype=torch.float64)
    answer[:count] = weight
    gradient, hessian = difference @ (b - gram @ answer), difference @ gram @ difference.T
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean() + torch.finfo(torch.float64).tiny)
    step = torch.linalg.solve(hessian, gradient).clamp(-reach, reach).reshape(count, dimensions)
    return _values(support, q + step.to(q), values)


def _quantiles(support: constraints.Constraint, values: Tensor) -> Tensor:
    return torch.sigmoid(transform_to(support).inv(values.double())).clamp(EDGE, 1 - EDGE)


def _values(support: constraints.Constraint, q: Tensor, like: Tensor) -> Tensor:
    moved: Tensor = transform_to(support)(torch.logit(q.clamp(EDGE, 1 - EDGE)))
    return moved.to(like)
