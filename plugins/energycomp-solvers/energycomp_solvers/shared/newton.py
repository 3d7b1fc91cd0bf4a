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

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import from_quantiles, to_quantiles
from energycomp.inference import NoiseBank, Problem, QuadraticForm
from energycomp_solvers.shared.subsets import subset_errors

STEP, EDGE, DAMPING = 0.01, 1e-3, 1e-3


def newton_step(
    problem: Problem,
    bank: NoiseBank,
    atoms: Tensor,
    form: QuadraticForm,
    chosen: Sequence[int],
    places: Sequence[int],
    *,
    reach: float,
) -> tuple[Tensor, QuadraticForm, list[int]]:
    """Moves some of the chosen atoms at once. Costs D + 1 rows for each and draw, and at most 1 for u.

    Args:
        atoms: (M, D), over which `form` is on the draws of `bank`.
        chosen: the atoms of the answer.
        places: which of the answer move.
        reach: by how much of the support a number changes at most.

    Returns:
        The atoms, the form and the answer with the moved values added, if these lower the mean error; else as given.
    """
    # Finite differences: each number of each value that moves, one small step towards the middle
    support, weight, count = problem.slots[0].support, problem.weighting(len(chosen)), len(chosen)
    if not places:
        return atoms, form, list(chosen)
    q = to_quantiles(support, atoms[[chosen[k] for k in places]], edge=EDGE)
    steps = STEP * (1 - 2 * (q > 0.5).double())  # towards the middle: (k, D)
    near = from_quantiles(support, (q[:, None] + torch.diag_embed(steps)).flatten(0, 1), edge=EDGE).to(atoms)
    mean = form.take(list(chosen)).append(problem.quadratic(near, bank)).mean()
    b, gram, size = mean.b[0].cpu(), mean.gram()[0].cpu(), steps.cpu().flatten()

    # D, as weights of the atoms of the form: (near - old) / step
    difference = torch.zeros(len(near), len(b), dtype=torch.float64)  # of each number, by the atoms
    number = torch.arange(len(near))
    difference[number, count + number] = weight / size
    difference[number, torch.tensor(places).repeat_interleave(q.shape[1])] = -weight / size
    # D.r and D.D, from inner products alone
    answer = torch.zeros(len(b), dtype=torch.float64)
    answer[:count] = weight
    gradient, hessian = difference @ (b - gram @ answer), difference @ gram @ difference.T
    # The prior adds half its gradient and half its curvature
    slope, curvature = _of_prior(problem, atoms[list(chosen)], places, q, float(mean.errors(range(count), weight)))
    gradient, hessian = gradient - slope / 2, hessian + curvature / 2
    # Solve the damped normal equations (Levenberg, 1944), within reach
    hessian.diagonal().add_(DAMPING * hessian.diagonal().mean() + 1e-12)
    moves = torch.linalg.solve(hessian, gradient).clamp(-reach, reach).reshape(q.shape)

    # Accept the step where it lowers the mean error
    values = from_quantiles(support, q + moves.to(q), edge=EDGE).to(atoms)
    both = form.append(problem.quadratic(values, bank))
    moved = list(chosen)
    for new, place in enumerate(places):
        moved[place] = len(atoms) + new
    before, after = (float(subset_errors(both, indices, problem.weighting).mean()) for indices in (chosen, moved))
    return (torch.cat([atoms, values]), both, moved) if after < before else (atoms, form, list(chosen))


def _of_prior(
    problem: Problem, values: Tensor, places: Sequence[int], q: Tensor, error: float
) -> tuple[Tensor | float, Tensor | float]:
    """Gradient (n,) and positive part of the Hessian (n, n) of what the prior adds to an error, in the numbers of q.

    It adds E / beta to J. Where the posterior is of log J, it adds J0 E / beta, with J0 the error before the step:
    log J lies below its tangent, so that a step that lowers J / J0 + E / beta lowers log J + E / beta.
    """
    if problem.prior(values[None]) is None:
        return 0.0, 0.0
    support, constant = problem.slots[0].support, torch.tensor([error], dtype=torch.float64, device=values.device)

    # What the prior adds to the energy, as a function of the numbers of q
    def added(numbers: Tensor) -> Tensor:
        moved = from_quantiles(support, numbers.view_as(q), edge=EDGE).to(values)
        whole = values.index_copy(0, torch.tensor(places, device=values.device), moved)
        return problem.energies(problem.with_prior(constant, whole[None])).sum()

    # Gradient and Hessian; negative eigenvalues become 0, so that the step descends
    start = q.flatten()
    with torch.enable_grad():
        slope = torch.autograd.functional.jacobian(added, start).cpu()
        scales, axes = torch.linalg.eigh(torch.autograd.functional.hessian(added, start).cpu())
        per_error = float(torch.autograd.functional.jacobian(lambda J: problem.energies(J).sum(), constant))
    # From energy to error
    scale = 1.0 / per_error if per_error else 0.0  # 1, or J0; of an answer without any error the prior changes nothing
    return scale * slope, scale * (axes * scales.clamp(min=0)) @ axes.T


def is_apart(support: constraints.Constraint, value: Tensor, others: Tensor, reach: float) -> bool:
    """Whether a value (1, D) is further than `reach` of the support from each other one (K, D), in some number.

    >>> unit = constraints.independent(constraints.unit_interval, 1)
    >>> is_apart(unit, torch.tensor([[0.5, 0.5]]), torch.tensor([[0.51, 0.5], [0.9, 0.5]]), 0.1)
    False
    """
    if not len(others):
        return True
    own, other = (to_quantiles(support, given, edge=EDGE) for given in (value, others))
    return bool(((own - other).abs().amax(1) > reach).all())
