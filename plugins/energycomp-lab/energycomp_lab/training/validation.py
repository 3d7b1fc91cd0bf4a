"""Validation while a run goes on: which of its averaged weights it ends with, and whether it ends early."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
from torch import nn

from energycomp.fields import number, whole


@attrs.frozen(eq=False)
class Validation:
    """How good the averaged weights of a run are on data that it does not train on.

    A run ends with the weights of its best evaluation. The learning rate of a one-cycle run falls to 0 at its end,
    where weights are usually best, and an evaluation of few images is noisy: later weights therefore replace earlier
    ones unless they are worse by more than `tolerance`. For the same reason a run does not end early because nothing
    improves in its middle, where the learning rate is high, but after `patience` evaluations in a row that are worse
    than the best by more than that: it has overfitted.

    Args:
        measure: `measure(module, step)` sees the averaged weights in eval mode; a number, the greater the better.
        evaluations: how many there are in a run, at equal distances; the last one is at its end.
        patience: worse evaluations in a row after which the run ends; None for never.
        tolerance: of a measure: greater keeps later weights, and trains on for longer.
        begin: share of the run before which nothing is evaluated, such as where its loss changes.
        share: of the time of a run of so many minutes, for evaluations and what follows the training.

    >>> validation = Validation(lambda module, step: 0.0, patience=2)
    >>> standing = None
    >>> for step, value in ((100, 0.8), (200, 0.795), (300, 0.6), (400, 0.7)):
    ...     standing = validation.judge(standing, step, value)
    >>> standing.step, validation.has_ended(standing)
    (200, True)
    """

    measure: Callable[[nn.Module, int], float]
    evaluations: int = attrs.field(default=12, validator=whole(1))
    patience: int | None = attrs.field(default=4, validator=whole(1, or_none=True))
    tolerance: float = attrs.field(default=0.01, validator=number(least=0))
    begin: float = attrs.field(default=0.0, validator=number(least=0, below=1))
    share: float = attrs.field(default=0.1, validator=number(least=0, below=1))

    def is_due(self, step: int, steps: int) -> bool:
        return step == steps or (step >= self.begin * steps and step % math.ceil(steps / self.evaluations) == 0)

    def judge(self, before: Standing | None, step: int, value: float) -> Standing:
        """What is known after an evaluation."""
        if before is None or value >= before.best - self.tolerance:
            return Standing(value=value, best=max(value, before.best if before else value), step=step)
        return attrs.evolve(before, value=value, worse=before.worse + 1)

    def has_ended(self, standing: Standing | None) -> bool:
        return standing is not None and self.patience is not None and standing.worse >= self.patience


@attrs.frozen
class Standing:
    """The evaluations of a run so far.

    Args:
        value: of the newest evaluation.
        best: the greatest value.
        step: whose weights the run would end with.
        worse: evaluations in a row that were worse than the best.
    """

    value: float
    best: float
    step: int
    worse: int = 0
