"""Whether a component is accepted: the only place that decides how many there are."""

from __future__ import annotations

import attrs
from torch import Tensor

from energycomp.inference import Problem, paired
from energycomp_solvers.search.hypothesis import Hypothesis


@attrs.define(eq=False)
class Acceptance:
    """The test of a search on its validation draws: a component lowers the error significantly, and by its penalty.

    Args:
        penalty: nats, see `SearchOptions`.
        tests: how many additional components these draws have tested (Bonferroni).
        has_split: whether two components were tried at a place of one.
        rejected: values that were tried and not taken: rivals of the answer.
    """

    problem: Problem
    p_value: float
    penalty: float
    tests: int = 0
    has_split: bool = False
    rejected: list[Tensor] = attrs.field(factory=list)

    def accepts(self, candidate: Hypothesis, hypothesis: Hypothesis) -> bool:
        """Whether one component more is accepted, as one of all that were tested."""
        self.tests += 1
        return self.is_better(candidate.validation_errors(), hypothesis.validation_errors(), among=self.tests)

    def is_better(self, errors: Tensor, fewer: Tensor, *, among: int = 1) -> bool:
        """Whether an answer is better than one with fewer components, on the same draws (S,), among several."""
        return paired(errors, fewer)[2] < self.p_value / among and not self.is_small(errors, fewer)

    def is_small(self, errors: Tensor, fewer: Tensor) -> bool:
        """Whether an answer is better than another one with fewer components, but by less than the penalty."""
        difference, _, p = paired(errors, fewer)
        if self.problem.posterior.beta is None or p >= self.p_value:
            return False
        return self.problem.posterior.gap(float(errors.mean()), difference) < self.penalty

    def needs_each(self, hypothesis: Hypothesis) -> bool:
        """Whether the selection draws accept each component: without attributes they have chosen nothing yet."""
        errors = hypothesis.errors()
        return all(self.is_better(errors, hypothesis.errors(hypothesis.others(k))) for k in hypothesis.components)

    def improves(self, candidate: Hypothesis, hypothesis: Hypothesis) -> bool:
        """Whether as many components leave less error on the validation draws."""
        return float(candidate.validation_errors().mean()) < float(hypothesis.validation_errors().mean())
