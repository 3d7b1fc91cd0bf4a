"""Inference: which conditions, and how many, explain an image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference.problem import Problem, make_problem
from energycomp.inference.solution import Solution, Solver
from energycomp.models.model import Model, checked_model
from energycomp.plugins.registry import object_of
from energycomp.seeds import as_generator

__all__ = ["OutOfDistributionWarning", "infer"]

FIT_DRAWS = 16  # draws that measure fit


class OutOfDistributionWarning(UserWarning):
    """The error of the answer exceeds the limit measured on images like the training data: do not trust it."""


def infer(
    image: Any,
    model: Model,
    *,
    solver: Solver | type[Solver] | str | None = None,
    count: int | Sequence[int] | None = None,
    candidates: Any = None,
    generator: int | torch.Generator | None = None,
) -> Solution:
    """Finds the values, and their number, whose composition explains an image best (thesis eqs 5.7, 5.9).

    Args:
        image: one image, as `ImageProcessor` takes it.
        model: a model.
        solver: an object with `solve(problem, generator=)`, its class, or a registered name such as "pursuit"; the
            model's default solver when left out.
        count: the number of components, or least and greatest; the model's default range when left out.
        candidates: restrict the search to these values (M, *V): a tensor, an array, or a list of values or of what the
            model is called with.
        generator: or a seed, makes the answer repeatable; 0 when left out.

    Returns:
        The solution, with `fit` and `out_of_distribution` filled in. Exchangeable components are sorted by their
        values, positions from left to right, so that two runs with one answer number its components alike.

    Raises:
        InputError: more than one image, a solver that does not fit the problem, or another illegal argument.
        NotFoundError: no plugin registers a solver of that name.

    Warns:
        OutOfDistributionWarning: the error exceeds the model's `error_limit`.
    """
    model = checked_model(model)
    chosen: Solver = object_of("solvers", model.defaults.solver if solver is None else solver)
    generator = as_generator(0 if generator is None else generator)
    observation = model.encode(image)
    if len(observation) != 1:
        raise InputError(f"got {len(observation)} images; expected one; call infer for each")
    problem = make_problem(observation, model, count=count, candidates=candidates)
    problem.check(chosen.needs, type(chosen).__name__)
    solution = _ordered(chosen.solve(problem, generator=generator), problem)
    return _with_fit(solution, problem, model.defaults.error_limit, generator)


def _ordered(solution: Solution, problem: Problem) -> Solution:
    """The components in the order of their values, the first number first."""
    values = solution.conditions
    if not problem.exchangeable or len(values) < 2:
        return solution
    order = torch.tensor(sorted(range(len(values)), key=values.tolist().__getitem__), device=values.device)

    def ordered(numbers: Tensor | None) -> Tensor | None:
        return None if numbers is None else numbers[order.to(numbers.device)]

    return attrs.evolve(
        solution,
        conditions=values[order],
        component_gain=ordered(solution.component_gain),
        probability=ordered(solution.probability),
    )


def _with_fit(solution: Solution, problem: Problem, limit: float | None, generator: torch.Generator) -> Solution:
    """Adds the share of the unconditional error that is explained, on new draws, and whether the limit is exceeded."""
    bank = problem.draw(FIT_DRAWS, generator)
    with torch.no_grad():
        error = float(problem.errors(solution.conditions[None], bank).mean())
        baseline = problem.baseline_errors(bank)
        empty = 0.0 if baseline is None else float(baseline.mean())
    beyond = limit is not None and solution.error > limit
    if beyond:
        warnings.warn(
            f"the answer leaves an error of {solution.error:.3g} per draw; images like the training data leave at most "
            f"{limit:.3g}: the image is out of distribution, do not trust the answer",
            OutOfDistributionWarning,
            stacklevel=3,
        )
    fit = 1.0 - error / empty if empty > 0 else None
    return attrs.evolve(solution, fit=fit, out_of_distribution=beyond, rows=problem.rows)
