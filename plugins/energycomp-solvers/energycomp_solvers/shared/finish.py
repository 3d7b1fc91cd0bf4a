"""How a search ends: the answer is compared with the best other one, and costs are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import attrs
import torch
from torch import Tensor

from energycomp.inference import ObjectWords, Problem, QuadraticForm, Solution
from energycomp_solvers.shared.compare import Worded, compared


@attrs.frozen(eq=False)
class Answer:
    """An answer, and what it is compared with.

    Args:
        values: of the components.
        words: what is known of their words.
        rivals: values that were not taken.
        chooses: the form over values and rivals on held-out draws.
        worded: a component with another word.
    """

    values: Tensor
    words: ObjectWords | None
    rivals: Tensor
    chooses: QuadraticForm
    worded: Worded | None = None


def finished(
    problem: Problem,
    spent: Sequence[int],
    draws: int,
    trace: Mapping[str, Sequence[float]],
    generator: torch.Generator | None,
    answer: Answer,
) -> Solution:
    """The solution of an answer, beside the best other one.

    Args:
        spent: network evaluations before each stage of the search, and after the last one.
        draws: that compare the answer with its runner-up.
        trace: of the solution.
        generator: of the draws that compare.
    """
    spent = [*spent, problem.rows]
    # Compare the answer with the best other one, on draws of their own
    solution = compared(problem, answer.values, answer.rivals, draws, trace, generator, answer.chooses, answer.worded)
    if answer.words is not None:
        solution = attrs.evolve(solution, **answer.words.posteriors(problem))
    # Say what each stage cost: the differences of the evaluations before and after it.
    rows = [after - before for before, after in pairwise([*spent, solution.rows])]
    return attrs.evolve(solution, trace={**solution.trace, "rows": rows})
