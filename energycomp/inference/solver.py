"""What finds an answer: a solver, a conditioner that reads what solvers leave open, and a search that is stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch

from energycomp.inference.problem import Problem
from energycomp.inference.solution import Solution


@runtime_checkable
class Solver(Protocol):
    """Finds the values that explain an image best.

    `needs`, a class attribute, states the slots that it takes; `infer` checks it before any row is spent: "finite"
    (values are listed), "continuous", "differentiable" (continuous, for gradient descent) or None (any). Its options
    are the arguments of its constructor, all with default values. `energycomp_lab.checks.check_solver` checks a solver.

    >>> class First:
    ...     needs = "finite"
    ...
    ...     def solve(self, problem, *, generator=None):
    ...         values = problem.slots[0].candidates[:1]
    ...         errors = problem.errors(values[None], problem.draw(4, generator))[0]
    ...         return Solution(values, 1, float(errors.mean()), float(errors.std()) / 2, problem.rows)
    >>> isinstance(First(), Solver)
    True
    """

    @property
    def needs(self) -> str | None: ...

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        """The best answer found; all random numbers come from the generator.

        A `Solution` needs its first five fields, and a runner-up the comparison by `energycomp.inference.paired`.
        Errors are those on draws that did not select the answer; `rows` is `problem.rows`.
        """


class SearchInterrupted(KeyboardInterrupt):
    """Ctrl-C in a search that has an answer already, and only looks for a better one.

    Args:
        finish: returns that answer: it spends the network evaluations that compare it with the runner-up.

    >>> try:
    ...     raise SearchInterrupted(lambda: Solution(torch.zeros(0, 2), 0, error=1.5, stderr=0.1, rows=64))
    ... except KeyboardInterrupt as stop:
    ...     stop.finish().count
    0
    """

    def __init__(self, finish: Callable[[], Solution]) -> None:
        super().__init__()
        self.finish = finish
