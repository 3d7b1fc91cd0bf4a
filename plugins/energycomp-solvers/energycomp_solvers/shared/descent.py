"""Gradient descent on continuous values: where it starts, and its steps in the unconstrained space of the support."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from energycomp.components import from_quantiles
from energycomp.inference import Problem, QuadraticForm

HOTTEST = 0.3  # temperature of the last initialisation, in units of the greatest fall of the error


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
    """Adam on N candidates (N, K, *V) at once, every step on fresh draws that all share (thesis alg. 5, lines 5-9).

    Noised samples and trunks are made once per step; only heads are in the graph. The learning rate falls to a tenth
    along a cosine. Returns the values and the mean error of each, with the prior, on the draws of the steps, (N,).
    Costs N K draws rows per step, and a backward pass through the heads.
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


def random_starts(
    support: constraints.Constraint,
    inits: int,
    count: int,
    value_shape: Sequence[int],
    generator: torch.Generator | None = None,
) -> Tensor:
    """Values (R, K, *V), uniform in the quantiles of their support."""
    device = generator.device if generator is not None else torch.device("cpu")
    quantiles = torch.rand(inits, count, *value_shape, generator=generator, device=device)
    return from_quantiles(support, quantiles, edge=0.02)


def residual_starts(
    form: QuadraticForm,
    atoms: Tensor,
    inits: int,
    count: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Values (R, K, *V) of a lattice, each drawn by how much it lowers the error that the ones before it leave.

    The first initialisation takes the best value each time. The temperature of the others rises from 0, so that
    components that were overlooked by one are found by another.

    >>> form = QuadraticForm.of(torch.eye(2)[None], torch.tensor([[1.0, 2.0]]))
    >>> residual_starts(form, torch.tensor([[0.1], [0.9]]), 1, 2)[..., 0].tolist()
    [[0.8999999761581421, 0.10000000149011612]]
    """
    starts = []
    # One initialisation for each temperature
    for temperature in torch.linspace(0, HOTTEST, inits).tolist():
        chosen: list[int] = []
        for _ in range(count):
            # How much each value lowers the error that is left
            falls = form.mean_objective(chosen) - form.objective_with_each(chosen)
            chosen.append(_draw_index(falls.cpu(), temperature, generator))
        starts.append(atoms[chosen])
    return torch.stack(starts)


def _draw_index(falls: Tensor, temperature: float, generator: torch.Generator | None) -> int:
    """An index, with probability proportional to exp(fall / (temperature times the greatest fall))."""
    greatest = float(falls.max())
    if temperature == 0 or greatest <= 0:
        return int(falls.argmax())
    # Boltzmann: the hotter, the more alike the values
    shares = torch.softmax(falls / (temperature * greatest), 0)
    device = generator.device if generator is not None else torch.device("cpu")
    return int(torch.multinomial(shares.to(device), 1, generator=generator))
