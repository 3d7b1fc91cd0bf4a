"""What a solver returns, and what a solver is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.inference.problem import Problem

__all__ = ["OUT_OF_DISTRIBUTION", "Solution", "Solver"]

OUT_OF_DISTRIBUTION = 0.01  # typicality below which an image is out of distribution: the rate of false alarms


@attrs.frozen(eq=False)
class Solution:
    """An answer, with its error and how it compares to the runner-up.

    Args:
        conditions: values (K, *V).
        count: K.
        error: mean error J over the draws on which it was evaluated.
        stderr: standard error of that mean.
        rows: network rows spent.
        runner_up: the best other answer (K', *V), or None.
        difference: mean paired difference J(runner_up) - J(answer) on draws that selected neither.
        difference_stderr: its standard error.
        p_value: the probability of a difference at least as large on other draws, if both answers had the same expected
            error. It is not the probability that the runner-up is right, and says nothing about answers that were not
            searched.
        trace: what a plot of the search needs, lists of numbers by name.
        fit: share of the unconditional error that the answer explains, negative where it leaves more; None for the
            empty answer, and where the model has no unconditional prediction. Filled in by `infer`.
        typicality: share of held-out images of as many components that leave errors at least as unusual, see
            `energycomp.models.Calibration`; None for a model without calibration. Filled in by `infer`.
        out_of_distribution: whether the typicality is below `OUT_OF_DISTRIBUTION`; filled in by `infer`.
        component_gain: (K,) how much the error rises without each component, or None.
        probability: (K,) the posterior of each component's value, softmax(-beta J) over all answers, or None.
        certainty: (K, A) the posterior of the word of each attribute, of a conditioner with attributes that may be left
            open; NaN where the model has no inverse temperature. None for any other. Filled in by `infer`.
        at_count_limit: whether the count is an end of the range that was searched, so that the true count may be
            beyond it; filled in by `infer`.
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
    typicality: float | None = None
    out_of_distribution: bool = False
    component_gain: Tensor | None = None
    probability: Tensor | None = None
    at_count_limit: bool = False
    certainty: Tensor | None = None

    @property
    def unsupported(self) -> tuple[int, ...]:
        """The components (indices) without which the error does not rise: the image does not hold them.

        >>> Solution(torch.zeros(2, 2), 2, 1.0, 0.1, 0, component_gain=torch.tensor([3.0, -0.5])).unsupported
        (1,)
        """
        gains = [] if self.component_gain is None else self.component_gain.tolist()
        return tuple(k for k, gain in enumerate(gains) if gain <= 0)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the answer, one sentence each; none does not mean that it is right."""
        found = []
        if self.out_of_distribution:
            share = "" if self.typicality is None else f": {self.typicality:.1%} of held-out images leave such errors"
            found.append(f"the image is out of distribution{share}; do not trust the answer")
        if self.at_count_limit:
            found.append(
                f"the count {self.count} is at the end of the range that was searched; search a larger range (count=)"
            )
        if self.unsupported:
            numbers = ", ".join(str(k + 1) for k in self.unsupported)
            found.append(f"the error does not rise without component {numbers}; the image may hold fewer")
        return tuple(found)


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
