"""The search: propose a change, evaluate it, accept it or not, until nothing in the image is left to explain."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.inference import QuadraticForm
from energycomp.progress import counting
from energycomp_solvers.search.accept import Acceptance
from energycomp_solvers.search.attributes import read_last, rival_attribute
from energycomp_solvers.search.hypothesis import Hypothesis
from energycomp_solvers.search.proposals import Place, birth, merge, prune, update
from energycomp_solvers.search.proposed import Start
from energycomp_solvers.search.residual import Places, component_scores, place_scores
from energycomp_solvers.search.runner_up import Answer
from energycomp_solvers.search.schedule import FindPlaces, Schedule


@attrs.frozen(eq=False)
class Found:
    """What a search ends with.

    Args:
        answer: None where it is the one that the search began with, and no validation draws were asked.
        residual: the residual score of each component, and of the place where most is left, if places were asked for.
    """

    answer: Answer | None
    residual: list[float]


def search(hypothesis: Hypothesis, places: Places, p_value: float, budget: int) -> Found:
    """Changes an answer until its schedule ends, for the rule product, within about `budget` network evaluations.

    `places` are those where a component may be missing.
    """
    space = hypothesis.space
    acceptance = Acceptance(space.problem, p_value, space.options.penalty)
    # Places were found with all attributes open: these say more of them now
    if len(hypothesis) and space.attributes is not None:
        hypothesis = hypothesis.move(hypothesis.components)

    # Begin with what the image has
    start = hypothesis
    if space.attributes is not None or not acceptance.needs_each(hypothesis):
        hypothesis = prune(hypothesis, acceptance)
    hypothesis, is_decided = _improve(hypothesis, Schedule.start(hypothesis, places, budget), acceptance)

    # What is left
    residual = _scores(hypothesis)
    residual.append(float(place_scores(hypothesis.whole, places).max()))
    is_decided = is_decided or hypothesis is not start
    return Found(_describe(hypothesis, acceptance, hypothesis.validated) if is_decided else None, residual)


def search_proposed(start: Start, find_places: FindPlaces, p_value: float, budget: int) -> Found:
    """The same for an answer that began with proposals, of which the settled components are kept as they are.

    `find_places` makes the places around one where a component is missing.
    """
    space = start.hypothesis.space
    acceptance = Acceptance(space.problem, p_value, space.options.penalty)
    # The selection draws have chosen little: validation draws decide only where these leave it open
    hypothesis = start.hypothesis
    if not acceptance.needs_each(hypothesis):
        hypothesis = prune(hypothesis, acceptance)
    schedule = Schedule.after_proposals(hypothesis, find_places, budget, start.updated)
    hypothesis, _ = _improve(hypothesis, schedule, acceptance, start.settled)
    form = hypothesis.validated if hypothesis.is_validated else hypothesis.whole
    return Found(_describe(hypothesis, acceptance, form), _scores(hypothesis))


def _improve(
    hypothesis: Hypothesis, schedule: Schedule, acceptance: Acceptance, settled: Sequence[Tensor] | None = None
) -> tuple[Hypothesis, bool]:
    """The hypothesis at the end of a schedule, and whether its number of components was decided by validation draws."""
    space = hypothesis.space
    # Births and updates, where the residual is greatest
    with counting("search", schedule.end - space.problem.rows, unit="evaluation") as bar:
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
    hypothesis, is_swapped = read_last(hypothesis, settled)
    if is_swapped:
        hypothesis = prune(hypothesis.unvalidated(), acceptance)
    return hypothesis, is_decided


def _scores(hypothesis: Hypothesis) -> list[float]:
    return component_scores(hypothesis.whole, hypothesis.space.channels).tolist() if len(hypothesis) else []


def _describe(hypothesis: Hypothesis, acceptance: Acceptance, form: QuadraticForm) -> Answer:
    """The answer, beside what was rejected last and is no component by now. Costs a row for each rival and draw.

    `form` is over the components, on the validation draws, or on the selection draws where these were not asked.
    """
    space = hypothesis.space
    rivals: list[Tensor] = []
    for value in acceptance.rejected:
        is_component = [space.is_alike(value, own, 2 * space.options.reach) for own in hypothesis.values]
        rivals += [] if any(is_component) else [value]
    rejected = torch.stack(rivals[-space.options.rivals :]) if rivals else hypothesis.values[:0]
    is_validated = form is not hypothesis.whole
    own = space.problem.quadratic(rejected, space.validation) if is_validated else space.quadratic(rejected)
    return Answer(
        hypothesis.values, rejected, form.append(own), hypothesis.attribute_errors, rival_attribute(hypothesis)
    )
