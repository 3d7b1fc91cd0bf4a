"""What a solver returns, and what a solver is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.inference.problem import Needs, Problem

__all__ = ["Solution", "Solver"]


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
    (values are listed), "continuous", "differentiable" (continuous, for gradient descent) or None (any).
    """

    @property
    def needs(self) -> Needs | None: ...

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        """The best answer found."""
        ...
