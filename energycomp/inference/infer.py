"""Understanding: which conditions, and how many, explain a picture. Solver, Solution, infer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference.problem import Needs, Problem, make_problem
from energycomp.models.model import Model

__all__ = ["ForeignPictureWarning", "Solution", "Solver", "infer", "paired"]

FIT_DRAWS = 16  # draws that measure fit
ROUNDING = 1e-6  # of an error: differences below it come from float32 and not from the picture


class ForeignPictureWarning(UserWarning):
    """The answer leaves more error than pictures of the model's kind do: it should not be trusted."""


@attrs.frozen(eq=False)
class Solution:
    """An answer with what it is worth.

    Args:
        conditions: values (K, *V).
        count: K.
        error: mean error J over the draws that judged it.
        stderr: standard error of that mean.
        runner_up: the best other answer (K', *V), or None.
        difference: mean paired difference J(runner_up) - J(answer) on draws that selected neither.
        difference_stderr: its standard error.
        p_value: of the hypothesis that the runner-up is as good, one-sided.
        rows: network rows spent.
        trace: what a plot of the search needs, lists of numbers by name.
        fit: share of the unconditional error that the answer explains, 1 at best; filled in by `infer`.
        foreign: whether the picture's error is beyond that of the model's own kind; filled in by `infer`.
        component_gain: (K,) how much the error rises without each component, or None.
        probability: (K,) the posterior of each component's value, softmax(-beta J) over all answers, or None.
    """

    conditions: Tensor
    count: int
    error: float
    stderr: float
    rows: int
    runner_up: Tensor | None = None
    difference: float | None = None
    difference_stderr: float | None = None
    p_value: float | None = None
    trace: Mapping[str, Sequence[float]] = attrs.field(factory=dict)
    fit: float | None = None
    foreign: bool = False
    component_gain: Tensor | None = None
    probability: Tensor | None = None


@runtime_checkable
class Solver(Protocol):
    """Finds the values that explain a picture best.

    `needs`, a class attribute, says what slots must be; `infer` checks it before any row is spent: "finite" (values are
    listed), "continuous", "differentiable" (continuous, for a solver that follows gradients) or None (any).
    """

    @property
    def needs(self) -> Needs | None: ...

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        """The best answer found."""
        ...


def paired(errors: Tensor, other: Tensor) -> tuple[float, float, float]:
    """Mean, standard error and one-sided p-value of other - errors over the same draws (S,).

    A paired t-test: the draws' own difficulty cancels. Use draws that selected neither answer. The standard error is at
    least 1e-6 of the errors, so that rounding decides nothing.

    >>> mean, stderr, p = paired(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 3.1, 3.9]))
    >>> round(mean, 2), p < 0.01
    (1.0, True)
    """
    from scipy import stats

    if errors.shape != other.shape or not len(errors):
        raise InputError(f"got errors {tuple(errors.shape)} and {tuple(other.shape)}; expected (S,) of the same draws")
    gap = (other - errors).double()
    mean = float(gap.mean())
    if len(gap) < 2:
        return mean, float("inf"), 0.5
    rounding = ROUNDING * float(torch.maximum(errors.abs(), other.abs()).double().mean())
    stderr = max(float(gap.std() / len(gap) ** 0.5), rounding)
    if stderr == 0.0:
        return mean, 0.0, 0.5
    return mean, stderr, float(stats.t.sf(mean / stderr, len(gap) - 1))


def infer(
    image: Any,
    model: Model,
    *,
    solver: Solver | None = None,
    count: int | tuple[int, int] | None = None,
    candidates: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Solution:
    """Reads a picture: the values, and how many, whose composition explains it best (thesis eqs 5.7, 5.9).

    Args:
        image: one picture, as `ImageProcessor` takes it.
        model: a model.
        solver: an object with `solve(problem, generator=)`; the model's default one when left out.
        count: the number of components or its range; the model's default range when left out.
        candidates: restrict the search to these values (M, *V).
        generator: makes the answer repeatable; a fresh one seeded with 0 when left out.

    Returns:
        The solution, with `fit` and `foreign` filled in. Where the order of components has no meaning they come in that
        of their values, places from left to right, so that two runs that agree number them alike.

    Warns:
        ForeignPictureWarning: the picture is unlike those the model knows.
    """
    if solver is None:
        from energycomp.plugins.registry import find

        solver = find("solvers", model.defaults.solver)()
    observation = model.encode(image)
    if len(observation) != 1:
        raise InputError(f"got {len(observation)} pictures; expected one; call infer for each")
    generator = generator or torch.Generator().manual_seed(0)
    problem = make_problem(observation, model, count=count, candidates=candidates)
    problem.check(solver.needs, type(solver).__name__)
    solution = _ordered(solver.solve(problem, generator=generator), problem)
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
    """Adds the share of the unconditional error that is explained, on fresh draws, and whether it is foreign."""
    bank = problem.draw(FIT_DRAWS, generator)
    with torch.no_grad():
        error = float(problem.errors(solution.conditions[None], bank).mean())
        baseline = problem.baseline_errors(bank)
        empty = 0.0 if baseline is None else float(baseline.mean())
    foreign = limit is not None and solution.error > limit
    if foreign:
        warnings.warn(
            f"the answer leaves an error of {solution.error:.3g} a draw, pictures of this model's kind leave at most "
            f"{limit:.3g}: the picture is foreign to the model, do not trust the answer",
            ForeignPictureWarning,
            stacklevel=3,
        )
    fit = 1.0 - error / empty if empty > 0 else None
    return attrs.evolve(solution, fit=fit, foreign=foreign, rows=problem.rows)
