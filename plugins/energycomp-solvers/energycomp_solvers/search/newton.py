"""Gauss-Newton steps of continuous values, from differences of predictions on the quadratic form.

Notation: variable -> symbol
    q           a value as its quantile in the support, in (0, 1)
    difference  D, the change of the composed prediction per unit of one number of q
    gradient    D.r, with r what the composed prediction leaves of the target; minus half that of the prior
    hessian     D.D, and half that of the prior: negative curvature is left out

    q <- q + clip(hessian^-1 gradient, -reach, reach)

Values that move together account for each other: they may share pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import from_quantiles, to_quantiles, wide_type
from energycomp.inference import Problem, QuadraticForm

STEP = 0.01
EDGE = 1e-3
DAMPING = 1e-3


def newton_step(
    problem: Problem,
    quadratic: Callable[[Tensor], QuadraticForm],
    atoms: Tensor,
    form: QuadraticForm,
    chosen: Sequence[int],
    places: Sequence[int],
    *,
    reach: float,
    step: float = STEP,
) -> tuple[Tensor, QuadraticForm, list[int]]:
    """Moves some of the chosen atoms at once. Costs D + 1 rows for each and draw, and at most 1 for u.

    Args:
        quadratic: the form over any values, on the draws of `form`.
        atoms: (M, D), over which `form` is, or (M, V) with attributes behind the numbers, which stay.
        chosen: the atoms of the answer.
        places: which of the answer move.
        reach: by how much of the support a number changes at most.
        step: over how much of it differences are taken.

    Returns:
        The atoms, the form and the answer with the moved values added, if these lower the mean error; else as given.
    """
    support = problem.slots[0].support
    weight = problem.weighting(len(chosen))
    count = len(chosen)
    if not places:
        return atoms, form, list(chosen)

    # Predict each value once more, with each of its numbers a little nearer to the middle
    length = problem.value_shape[0]
    moving = atoms[[chosen[k] for k in places]]
    q = to_quantiles(support, moving[:, :length], edge=EDGE)
    near, steps = step_inwards(support, moving, length, step)
    mean = form.take(list(chosen)).append(quadratic(near)).mean()
    b = mean.b[0].cpu()
    gram = mean.gram()[0].cpu()
    size = steps.cpu().flatten()

    # Differences of predictions, by the atoms; with them gradient and Hessian
    difference = torch.zeros(len(near), len(b), dtype=torch.float64)
    number = torch.arange(len(near))
    difference[number, count + number] = weight / size
    difference[number, torch.tensor(places).repeat_interleave(length)] = -weight / size
    answer = torch.zeros(len(b), dtype=torch.float64)
    answer[:count] = weight
    gradient = difference @ (b - gram @ answer)
    hessian = difference @ gram @ difference.T

    # Add those of the prior, and solve
    error = float(mean.errors(range(count), weight))
    slope, curvature = _of_prior(problem, atoms[list(chosen)], places, q, error)
    gradient = gradient - slope / 2
    hessian = hessian + curvature / 2
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean() + 1e-12)
    moves = torch.linalg.solve(hessian, gradient).clamp(-reach, reach).reshape(q.shape)

    # Take the moved values if they are better
    values = shift(support, moving, length, moves)
    both = form.append(quadratic(values))
    order = list(chosen)
    for new, place in enumerate(places):
        order[place] = len(atoms) + new
    before = both.mean_objective(chosen)
    after = both.mean_objective(order)
    return (torch.cat([atoms, values]), both, order) if after < before else (atoms, form, list(chosen))


def step_inwards(
    support: constraints.Constraint, values: Tensor, length: int, step: float = STEP
) -> tuple[Tensor, Tensor]:
    """Values (k, V), each with one of its D numbers a step nearer to the middle, (k D, V), and these steps (k, D)."""
    q = to_quantiles(support, values[:, :length], edge=EDGE)
    steps = step * (1 - 2 * (q > 0.5).double())
    numbers = from_quantiles(support, (q[:, None] + torch.diag_embed(steps)).flatten(0, 1), edge=EDGE).to(values)
    return torch.cat([numbers, values[:, length:].repeat_interleave(length, 0)], dim=1), steps


def shift(support: constraints.Constraint, values: Tensor, length: int, moves: Tensor) -> Tensor:
    """Values (k, V) whose numbers are moved by shares of the support, (k, D)."""
    q = to_quantiles(support, values[:, :length], edge=EDGE)
    return torch.cat([from_quantiles(support, q + moves.to(q), edge=EDGE).to(values), values[:, length:]], dim=1)


def _of_prior(
    problem: Problem, values: Tensor, places: Sequence[int], q: Tensor, error: float
) -> tuple[Tensor | float, Tensor | float]:
    """Gradient (n,) and positive part of the Hessian (n, n) of what the prior adds to an error, in the numbers of q.

    It adds E / beta to J. Where the posterior is of log J, it adds J0 E / beta, with J0 the error before the step:
    log J lies below its tangent, so that a step that lowers J / J0 + E / beta lowers log J + E / beta.
    """
    if problem.prior(values[None]) is None:
        return 0.0, 0.0
    support = problem.slots[0].support
    constant = torch.tensor([error], dtype=wide_type(values.device), device=values.device)
    moving = torch.tensor(list(places), device=values.device)
    rest = values[moving, q.shape[1] :]

    # What the prior adds to the energy, as a function of the numbers of q
    def added(numbers: Tensor) -> Tensor:
        new = from_quantiles(support, numbers.view_as(q), edge=EDGE).to(values)
        whole = values.index_copy(0, moving, torch.cat([new, rest], dim=1))
        return problem.posterior.energies(problem.with_prior(constant, whole[None])).sum()

    # Gradient and Hessian; negative eigenvalues become 0, so that the step descends
    start = q.flatten()
    with torch.enable_grad():
        slope = torch.autograd.functional.jacobian(added, start).cpu()
        scales, axes = torch.linalg.eigh(torch.autograd.functional.hessian(added, start).cpu())
        per_error = float(torch.autograd.functional.jacobian(lambda J: problem.posterior.energies(J).sum(), constant))
    # From energy to error
    scale = 1.0 / per_error if per_error else 0.0  # 1, or J0; of an answer without any error the prior changes nothing
    return scale * slope, scale * (axes * scales.clamp(min=0)) @ axes.T


def is_apart(support: constraints.Constraint, value: Tensor, others: Tensor, reach: float) -> bool:
    """Whether a value (1, D) is further than `reach` of the support from each other one (K, D), in some number."""
    if not len(others):
        return True
    own, other = (to_quantiles(support, given, edge=EDGE) for given in (value, others))
    return bool(((own - other).abs().amax(1) > reach).all())
