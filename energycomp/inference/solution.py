"""What a solver returns, what a solver is, and how two answers are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference.problem import Problem

__all__ = ["Solution", "Solver", "paired"]

ROUNDING = 1e-6  # of an error: differences below it come from float32 and not from the image


@attrs.frozen(eq=False)
class Solution:
    """An answer, with its error and how it compares to the runner-up.

    Args:
        conditions: values (K, *V).
        count: K.
        error: mean error J over the draws on which it was evaluated.
        stderr: standard error of that mean.
        runner_up: the best other answer (K', *V), or None.
        difference: mean paired difference J(runner_up) - J(answer) on draws that selected neither.
        difference_stderr: its standard error.
        p_value: of the hypothesis that the runner-up is as good, one-sided.
        rows: network rows spent.
        trace: what a plot of the search needs, lists of numbers by name.
        fit: share of the unconditional error that the answer explains, 1 at best; filled in by `infer`.
        out_of_distribution: whether the error exceeds the limit measured on images like the training data; filled in by
            `infer`.
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
    out_of_distribution: bool = False
    component_gain: Tensor | None = None
    probability: Tensor | None = None


@runtime_checkable
class Solver(Protocol):
    """Finds the values that explain an image best.

    `needs`, a class attribute, states the slots that it takes; `infer` checks it before any row is spent: "finite"
    (values are listed), "continuous", "differentiable" (continuous, for gradient descent) or None (any). A plain
    `needs = "finite"` is enough: type checkers take it for a string.
    """

    @property
    def needs(self) -> str | None: ...

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
