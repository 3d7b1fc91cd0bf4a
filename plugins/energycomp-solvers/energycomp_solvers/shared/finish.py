"""How a search ends: words are read with more draws, the best other answer is compared, and costs are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import attrs
import torch
from torch import Tensor

from energycomp.inference import ObjectWords, Problem, QuadraticForm, Solution, read_attributes
from energycomp_solvers.shared.compare import compared
from energycomp_solvers.shared.refit import Refit


@attrs.frozen(eq=False)
class Answer:
    """Components, what is known of their words, values that were not taken, and the form over all on held-out draws.

    With `refit` the components are known on the draws that choose.
    """

    values: Tensor
    words: ObjectWords | None
    rivals: Tensor
    chooses: QuadraticForm
    refit: Refit | None = None


def finished(
    problem: Problem,
    spent: Sequence[int],
    draws: int,
    trace: Mapping[str, Sequence[float]],
    generator: torch.Generator | None,
    decides: torch.Generator | None,
    answer: Answer,
) -> Solution:
    """The solution of an answer, beside the best other one.

    Args:
        spent: network evaluations before each stage of the search, and after the last one.
        draws: that compare the answer with its runner-up.
        trace: of the solution.
        generator: of the draws that compare.
        decides: of the draws that read words.
    """
    values = answer.values
    words = answer.words
    # Read the words, if there are some, with more draws; each object moves with its words.
    if words is not None and answer.refit is not None:
        words, values = answer.refit.worded(words, decides)
    elif words is not None:
        words = read_attributes(problem, values, sweeps=2, known=words, generator=decides)
        values = words.values
    spent = [*spent, problem.rows]
    # Compare the answer with the best other one, on draws of their own.
    solution = compared(problem, values, answer.rivals, draws, trace, generator, answer.chooses)
    if words is not None:
        solution = attrs.evolve(solution, **words.posteriors(problem))
    # Say what each stage cost: the differences of the evaluations before and after it.
    rows = [after - before for before, after in pairwise([*spent, solution.rows])]
    return attrs.evolve(solution, trace={**solution.trace, "rows": rows})
