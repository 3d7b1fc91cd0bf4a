"""Gradient descent on continuous values, in the unconstrained space of their support."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from energycomp.inference import Problem


def descend(
    problem: Problem,
    values: Tensor,
    *,
    steps: int,
    draws: int,
    learning_rate: float,
    generator: torch.Generator | None = None,
    on_step: Callable[[], object] = lambda: None,
) -> tuple[Tensor, Tensor]:
    """Adam on N candidates at once, every step on fresh draws that all candidates share (thesis alg. 5, lines 5-9).

    Noised samples and trunks are made once per step; only heads are in the graph.

    Args:
        problem: its `errors` and its prior are differentiated.
        values: (N, K, *V), inside the support.
        steps: how many.
        draws: noise draws per step; the thesis takes 1.
        learning_rate: of Adam in the unconstrained space, falling to a tenth along a cosine.
        on_step: called after each step.

    Returns:
        Values (N, K, *V) and the mean error of each, with the prior, on the draws of the steps, (N,). Costs N K draws
        rows per step, and a backward pass through the heads.
    """
    if values.shape[1] == 0 or steps == 0:
        return values, torch.zeros(len(values), device=values.device)
    # A bijection from all reals to the support, so that no step leaves it
    to_support = transform_to(problem.slots[0].support)
    free = to_support.inv(values.clamp(1e-3, 1 - 1e-3) if _is_box(problem) else values).detach().requires_grad_()
    optimizer = torch.optim.Adam([free], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=learning_rate / 10)
    # Adam, each step on fresh draws
    total = torch.zeros(len(values), device=values.device)
    for _ in range(steps):
        bank = problem.draw(draws, generator)
        # Gradient of error and prior, through the heads alone
        with torch.enable_grad():
            values = to_support(free)
            errors = problem.with_prior(problem.errors(values, bank).mean(1), values)
            (free.grad,) = torch.autograd.grad(errors.sum(), free)
        optimizer.step()
        schedule.step()
        total += errors.detach()
        on_step()
    return to_support(free).detach(), total / steps


def _is_box(problem: Problem) -> bool:
    support = problem.slots[0].support
    inner = support.base_constraint if isinstance(support, constraints.independent) else support
    return isinstance(inner, constraints.interval) and (inner.lower_bound, inner.upper_bound) == (0.0, 1.0)
