"""The search: propose a change, evaluate it, accept it or not, until nothing in the image is left to explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from energycomp.progress import counting
from energycomp_solvers.search.accept import Acceptance
from energycomp_solvers.search.attributes import read_last, rival_attribute
from energycomp_solvers.search.hypothesis import Hypothesis
from energycomp_solvers.search.proposals import Place, birth, merge, prune, update
from energycomp_solvers.search.residual import Places, component_scores, place_scores
from energycomp_solvers.search.runner_up import Answer
from energycomp_solvers.search.schedule import Schedule


@attrs.frozen(eq=False)
class Found:
    """What a search ends with.

    Args:
        answer: None where it is the one that the search began with, and no validation draws were asked.
        residual: the residual score of each component, and of the place where most is left, if places were asked for.
    """

    answer: Answer | None
    residual: list[float]


def search(
    hypothesis: Hypothesis,
    places: Callable[[], Places],
    p_value: float,
    budget: int,
    settled: Sequence[Tensor] | None = None,
) -> Found:
    """Changes an answer until its schedule ends, for the rule product, within about `budget` network evaluations.

    Args:
        places: makes those where a component may be missing.
        settled: values that need no update, of an answer that began with proposals; places are asked for where this
            leaves much, then.
    """
    space = hypothesis.space
    acceptance = Acceptance(space.problem, p_value, space.options.penalty)
    # Places were found with all attributes open: these say more of them now
    if len(hypothesis) and space.attributes is not None and settled is None:
        hypothesis = hypothesis.move(hypothesis.components)

    # Begin with what the image has
    start = hypothesis
    if space.attributes is not None or not acceptance.needs_each(hypothesis):
        hypothesis = prune(hypothesis, acceptance)

    # Births and updates, where the residual is greatest
    schedule = Schedule.start(hypothesis, places, budget, settled)
    with counting("search", budget, unit="evaluation") as bar:
        spent = space.problem.rows
        while (proposal := schedule.next(hypothesis)) is not None:
            if isinstance(proposal, Place):
                more = birth(hypothesis, proposal, acceptance)
                hypothesis = schedule.after_birth(hypothesis, more, acceptance)
            else:
                updated = update(hypothesis, proposal, acceptance)
                hypothesis = schedule.after_update(hypothesis, proposal, updated, acceptance)
            bar.advance(space.problem.rows - spent)
            spent = space.problem.rows

    # Merges: one component for two
    is_decided = space.attributes is not None or hypothesis.is_validated
    while (merged := merge(hypothesis, acceptance)) is not None:
        hypothesis = merged

    # Attributes once more. What made up for wrong ones may not be missed beside the right ones
    hypothesis, is_swapped = read_last(hypothesis)
    if is_swapped:
        hypothesis = prune(hypothesis.unvalidated(), acceptance)

    # What is left
    scores = component_scores(hypothesis.whole, space.channels).tolist() if len(hypothesis) else []
    left = [] if schedule.places is None else [float(place_scores(hypothesis.whole, schedule.places).max())]
    is_decided = is_decided or hypothesis is not start or settled is not None
    return Found(_describe(hypothesis, acceptance) if is_decided else None, [*scores, *left])


def _describe(hypothesis: Hypothesis, acceptance: Acceptance) -> Answer:
    """The answer, beside what was rejected last and is no component by now. Costs a row for each rival and draw."""
    space = hypothesis.space
    rivals: list[Tensor] = []
    for value in acceptance.rejected:
        is_component = [space.is_alike(value, own, 2 * space.options.reach) for own in hypothesis.values]
        rivals += [] if any(is_component) else [value]
    rejected = torch.stack(rivals[-space.options.rivals :]) if rivals else hypothesis.values[:0]
    form = hypothesis.validated.append(space.problem.quadratic(rejected, space.validation))
    return Answer(hypothesis.values, rejected, form, hypothesis.attribute_errors, rival_attribute(hypothesis))
