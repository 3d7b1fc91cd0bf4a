"""Another number of components: one more at a place, two for one, and one for two.

Each of these is found on the draws that choose, and kept if the draws that judge want it. A component that stands for
two hides that one is missing: beside it neither of them gains anything. One that is cut up by two hides that one is too
many: without either of them much is left. So both are tried with what is beside them read anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp.inference import QuadraticForm
from energycomp_solvers.shared.doubts import Doubt, shown_with
from energycomp_solvers.shared.judged import Judged
from energycomp_solvers.shared.nearby import halves, nearby
from energycomp_solvers.shared.refit import Candidate
from energycomp_solvers.shared.reread import Rereading

JOINS = 40.0  # nats by which a component is missed, up to which it may be a part of the one beside it
PART = 0.1  # cosine of the places of both, from which on it may be


def add(judged: Judged, place: Doubt) -> bool:
    """Looks for a component around a place; whether one is taken."""
    # Look for the best value near the place
    refit = judged.refit
    every = refit.every
    start, gain = nearby(refit, every, place.value)
    best = Rereading(refit, every).best(start) if gain > 0 else None
    if best is None:
        return place.strong and place.beside is not None and _in_two(judged, place.value, place.beside)

    # The value of a component, once more: the image may have two there
    for component in every:
        if not refit.is_elsewhere(best.value, judged.values[component]):
            return _halve(judged, component)

    # Ask the draws that judge whether they miss it
    own = judged.own(best.value[None])
    without = judged.errors(every)
    with_it = judged.errors([*every, len(every)], own)
    judged.asked += 1  # the same draws judge all of these (Bonferroni)
    if judged.worth.is_missed(with_it, without, among=judged.asked):
        judged.keep(every, [best], own)
        return True

    # Refuse it, or read again what is beside it. What is not worth its place is no rival either
    is_small = judged.worth.is_small(with_it, without)
    if not is_small:
        judged.refused.append(best.value)
    return (place.strong or is_small) and bool(every) and _split(judged, best, own, without)


def join(judged: Judged) -> bool:
    """Whether one component, read anew, is taken for two, of which one is missed little beside the other one."""
    refit = judged.refit
    problem = judged.problem
    if problem.beta is None or len(judged.values) <= max(1, problem.counts[0]):
        return False

    # The component that is missed least, and the one that shows most where it does
    errors = [refit.without(refit.others(k)) for k in refit.every]
    least = min(refit.every, key=errors.__getitem__)
    beside = shown_with(refit, refit.every, least)
    beside[least] = 0.0
    with_all = refit.without()
    nats = problem.gap(with_all, errors[least] - with_all)
    if nats > JOINS or float(beside.max()) < PART:
        return False

    # Leave it out for now, and read the other one again
    before = judged.as_it_is()
    with_both = judged.errors()
    others = refit.others(least)
    judged.keep(others)
    is_read = judged.read_again(others.index(int(beside.argmax()))) is not None

    # Keep it so unless both are missed, else go back
    if is_read and not judged.worth.is_missed(with_both, judged.errors()):
        return True
    judged.go_back(before)
    return False


def _halve(judged: Judged, component: int) -> bool:
    """Puts two components to both sides of one that the image has twice; whether they are taken."""
    refit = judged.refit
    pair = halves(refit, refit.others(component), judged.values[component])
    return _take_two(judged, component, [refit.candidate(value) for value in pair])


def _in_two(judged: Judged, place: Tensor, component: int) -> bool:
    """Whether two components, one of them at a place where much is left, are taken for the one that shows there."""
    # Once an answer: it is dear
    if judged.tried_two:
        return False
    judged.tried_two = True

    # Without it look for the best one at the place, and beside this for the best one where it was
    value = judged.values[component]
    tried = judged.as_it_is().refit
    tried.keep(tried.others(component))
    pair: list[Candidate] = []
    for start in (place, value[: judged.problem.value_shape[0]]):
        near, gain = nearby(tried, tried.every, start)
        best = Rereading(tried, tried.every).best(near) if gain > 0 else None
        if best is None:
            return False
        tried.keep(tried.every, [best])
        pair.append(best)

    # Ask the draws that judge
    if tried.without() >= judged.refit.without():
        return False
    judged.asked += 1
    return _take_two(judged, component, pair, judged.asked)


def _split(judged: Judged, new: Candidate, own: QuadraticForm, without: Tensor) -> bool:
    """Whether a component that was refused is taken once the one beside it, which may stand for both, is read anew.

    Args:
        new, own: the refused one, and its form on the draws that judge.
        without: the errors of the answer on these.
    """
    # Take it for now, and read again what it overlaps most
    before = judged.as_it_is()
    judged.keep(judged.refit.every, [new], own)
    beside = int(shown_with(judged.refit, judged.refit.every[:-1]).argmax())
    is_read = judged.read_again(beside) is not None

    # Keep both if they are missed, else go back
    if is_read and judged.worth.is_missed(judged.errors(), without):
        return True
    judged.go_back(before)
    return False


def _take_two(judged: Judged, component: int, pair: list[Candidate], among: int = 1) -> bool:
    """Takes two components for one, if the draws that judge miss them; whether they do. `among` as for `Worth`."""
    own = judged.own(torch.stack([each.value for each in pair]))
    others = judged.refit.others(component)
    errors = judged.errors([*others, len(judged.values), len(judged.values) + 1], own)
    if not judged.worth.is_missed(errors, judged.errors(), among=among):
        return False
    judged.keep(others, pair, own)
    return True
