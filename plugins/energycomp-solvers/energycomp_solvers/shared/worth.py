"""Whether draws that selected nothing want a component: it has to be significant, and worth its place."""

from __future__ import annotations

import attrs
from torch import Tensor

from energycomp.inference import WORTH, Problem, paired

ONWARD = 2.0  # nats after which a small move of a component is followed by another one
ONWARD_SHARE = 0.05  # the same as a share of the error, without an inverse temperature


@attrs.frozen(eq=False)
class Worth:
    """The tests of a component.

    Args:
        problem: of the image.
        p_value: a component is missed where the paired test is below this.
    """

    problem: Problem
    p_value: float

    def is_missed(self, errors: Tensor, without: Tensor, *, among: int = 1) -> bool:
        """Whether an answer is better than that without one of its components, significantly and by enough.

        Args:
            errors, without: (S,) of both answers on the same draws.
            among: how many components these draws have judged (Bonferroni).
        """
        p = paired(errors, without)[2]
        return p < self.p_value / among and not self.is_small(errors, without)

    def is_small(self, errors: Tensor, without: Tensor) -> bool:
        """Whether one component more makes an answer better, but by less than `WORTH`."""
        difference, _, p = paired(errors, without)
        if self.problem.beta is None or p >= self.p_value:
            return False
        return self.problem.gap(float(errors.mean()), difference) < WORTH

    def goes_on(self, now: float, before: float) -> bool:
        """Whether an answer is better than an error before by enough to go on in the same direction."""
        if self.problem.beta is None:
            return now < (1 - ONWARD_SHARE) * before
        return self.problem.gap(now, before - now) >= ONWARD
