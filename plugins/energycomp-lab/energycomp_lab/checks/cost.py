"""The network evaluations of a solver on a problem as large as that of a real model."""

from __future__ import annotations

import time
from typing import Any

import attrs
import torch

from energycomp.components import value_of
from energycomp.inference import Problem, Solution, Solver, make_problem
from energycomp.models import Model
from energycomp.testing import labels_model, planted, tinted_model
from energycomp_lab.checks.expect import NotCheckedError

BUDGET = 20_000  # network evaluations; the solvers of the models that are included need up to 5,000 an image
SECONDS = 60.0  # that the same may take
A_SECOND = 400  # network evaluations of `clevr` in a second of one CPU core: 41,000 in 110 s, 16 official images
COUNTS = (0, 10)


def measure_solver(solver: Solver, *, budget: int = BUDGET) -> str:
    """Measures what reading one image costs, in words: five of up to ten components, or of twelve labels.

    Args:
        budget: network evaluations after which the solver is stopped.

    Raises:
        NotCheckedError: the budget, or a minute, was not enough.

    >>> from energycomp_solvers.pursuit import Pursuit
    >>> measure_solver(Pursuit(budget=0))
    '... network evaluations for five of up to ten components: about ... s an image with clevr on one CPU core'
    """
    model, values = _large(solver)
    problem: Any = _Budgeted(make_problem(planted(model, values), model), budget, time.monotonic() + SECONDS)
    try:
        solution: Solution = solver.solve(problem, generator=torch.Generator().manual_seed(0))
    except _SpentError:
        raise NotCheckedError(
            f"it was stopped after {problem.rows:,} network evaluations of one image, for five of up to ten "
            f"components: a reading by clevr would take more than {problem.rows / A_SECOND:.0f} s on one CPU core"
        ) from None
    return (
        f"{solution.rows:,} network evaluations for five of up to ten components: about "
        f"{max(1, round(solution.rows / A_SECOND))} s an image with clevr on one CPU core"
    )


def _large(solver: Solver) -> tuple[Model, torch.Tensor]:
    """A model whose slots the solver takes, and five values of it."""
    if solver.needs == "finite":
        return labels_model(12, counts=COUNTS), torch.tensor([0, 3, 5, 8, 11])
    model = tinted_model(counts=COUNTS)
    places = [(0.2, 0.3), (0.7, 0.2), (0.5, 0.55), (0.25, 0.8), (0.8, 0.75)]
    tints = ("red", "green", "blue", "red", "blue")
    objects = [{"x": x, "y": y, "tint": tint} for (x, y), tint in zip(places, tints, strict=True)]
    return model, torch.cat([value_of(model.conditioner, one) for one in objects])


class _SpentError(Exception):
    """The budget of a search is spent."""


@attrs.frozen(eq=False)
class _Budgeted:
    """A problem that ends a search once its evaluations, or its time, are spent."""

    problem: Problem
    budget: int
    until: float

    def __getattr__(self, name: str) -> Any:
        if self.problem.rows > self.budget or time.monotonic() > self.until:
            raise _SpentError
        return getattr(self.problem, name)

    @property
    def rows(self) -> int:
        """Network evaluations so far."""
        return self.problem.rows
