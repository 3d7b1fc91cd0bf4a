"""Proposals: answers that differ from a hypothesis by one step. Each returns the accepted one, or None.

The steps are those of reversible-jump samplers (Green, 1995): birth, death, split, merge and update. The swap of
attributes is in `energycomp_solvers.search.swap`. A proposal is found on the selection draws, and accepted by the
validation draws. Two components that share one object mask that it is missing: beside the one neither gains anything.
Two that cut one object up mask that one is too many: without either of them much is left. So splits and merges update
what is beside them before they ask.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.components import from_quantiles, to_quantiles
from energycomp.inference import QuadraticForm
from energycomp_solvers.search.accept import Acceptance
from energycomp_solvers.search.hypothesis import Candidate, Hypothesis, SearchSpace
from energycomp_solvers.search.newton import EDGE
from energycomp_solvers.search.residual import overlap_with
from energycomp_solvers.search.subsets import errors_of_last, mean_with_prior
from energycomp_solvers.search.update import Update


@attrs.frozen(eq=False)
class Place:
    """Where a component may be missing: numbers (D,), whether far more is left than usual, and what shows there."""

    numbers: Tensor
    is_strong: bool
    beside: int | None = None


def birth(hypothesis: Hypothesis, place: Place, acceptance: Acceptance) -> Hypothesis | None:
    """One component more, at a place, or around it. Falls back on splits where it is refused."""
    # Find the best value near the place
    components = hypothesis.components
    start, gain = find_nearby(hypothesis, components, place.numbers)
    best = Update(hypothesis, components).best(start) if gain > 0 else None
    if best is None:
        can_split = place.is_strong and place.beside is not None and not acceptance.has_split
        return split_at(hypothesis, place, acceptance) if can_split else None

    # It is the value of a component once more: the image may have two there
    for k in components:
        if not hypothesis.space.is_elsewhere(best.value, hypothesis.values[k]):
            return split(hypothesis, k, acceptance)

    # Accept it, or see whether the one beside it stands for both. What is too small is no rival either
    candidate = hypothesis.replace(components, [best])
    if acceptance.accepts(candidate, hypothesis):
        return candidate
    is_small = acceptance.is_small(candidate.validation_errors(), hypothesis.validation_errors())
    if not is_small:
        acceptance.rejected.append(best.value)
    if not components or not (place.is_strong or is_small):
        return None
    beside = int(overlap_with(candidate, components, len(components)).argmax())
    updated = update(candidate, beside, acceptance)
    if updated is None or not acceptance.is_better(updated.validation_errors(), hypothesis.validation_errors()):
        return None
    return updated


def death(hypothesis: Hypothesis, acceptance: Acceptance) -> Hypothesis | None:
    """Without the component that the validation draws miss least, if they do not miss it."""
    if len(hypothesis) <= hypothesis.space.problem.counts[0]:
        return None
    errors = [hypothesis.validation_errors(hypothesis.others(k)) for k in hypothesis.components]
    least = min(hypothesis.components, key=lambda k: float(errors[k].mean()))
    with_all = hypothesis.validation_errors()
    if acceptance.is_better(with_all, errors[least]):
        return None
    # It is a rival of the answer, unless it is too small
    if not acceptance.is_small(with_all, errors[least]):
        acceptance.rejected.append(hypothesis.values[least])
    return hypothesis.replace(hypothesis.others(least))


def prune(hypothesis: Hypothesis, acceptance: Acceptance) -> Hypothesis:
    """Deaths, until each component is missed."""
    while (fewer := death(hypothesis, acceptance)) is not None:
        hypothesis = fewer
    return hypothesis


def split(hypothesis: Hypothesis, component: int, acceptance: Acceptance) -> Hypothesis | None:
    """Two components to both sides of one that the image has twice."""
    pair = find_halves(hypothesis, hypothesis.others(component), hypothesis.values[component])
    new = [hypothesis.space.evaluate(Candidate(value, ())) for value in pair]
    candidate = hypothesis.replace(hypothesis.others(component), new)
    is_better = acceptance.is_better(candidate.validation_errors(), hypothesis.validation_errors())
    return candidate if is_better else None


def split_at(hypothesis: Hypothesis, place: Place, acceptance: Acceptance) -> Hypothesis | None:
    """Two components, one of them at a place where much is left, for the one that shows there. Once a search."""
    if place.beside is None:
        return None
    acceptance.has_split = True

    # Without it find the best one at the place, and beside this the best one where it was
    rest = hypothesis.replace(hypothesis.others(place.beside), validate=False)
    pair: list[Candidate] = []
    for start in (place.numbers, hypothesis.values[place.beside][: hypothesis.space.length]):
        near, gain = find_nearby(rest, rest.components, start)
        best = Update(rest, rest.components).best(near) if gain > 0 else None
        if best is None:
            return None
        rest = rest.replace(rest.components, [best], validate=False)
        pair.append(best)

    # Accept the pair
    if rest.error() >= hypothesis.error():
        return None
    candidate = hypothesis.replace(hypothesis.others(place.beside), pair)
    return candidate if acceptance.accepts(candidate, hypothesis) else None


def merge(hypothesis: Hypothesis, acceptance: Acceptance) -> Hypothesis | None:
    """One component, updated, for two, of which one is missed little beside the other."""
    problem = hypothesis.space.problem
    options = hypothesis.space.options
    if problem.posterior.beta is None or len(hypothesis) <= max(1, problem.counts[0]):
        return None

    # The component that is missed least, and the one that shows most where it does
    errors = [hypothesis.error(hypothesis.others(k)) for k in hypothesis.components]
    least = min(hypothesis.components, key=errors.__getitem__)
    beside = overlap_with(hypothesis, hypothesis.components, least)
    beside[least] = 0.0
    with_all = hypothesis.error()
    nats = problem.posterior.gap(with_all, errors[least] - with_all)
    if nats > options.merge_nats or float(beside.max()) < options.merge_overlap:
        return None

    # Leave it out, and update the other one
    with_both = hypothesis.validation_errors()
    others = hypothesis.others(least)
    merged = update(hypothesis.replace(others), others.index(int(beside.argmax())), acceptance)

    # Accept it unless both are missed
    if merged is None or acceptance.is_better(with_both, merged.validation_errors()):
        return None
    return merged


def update(hypothesis: Hypothesis, component: int, acceptance: Acceptance) -> Hypothesis | None:
    """One component with other attributes and numbers, as the last one."""
    # Find a better value on the selection draws
    space = hypothesis.space
    others = hypothesis.others(component)
    old = hypothesis.component(component)
    finder = Update(hypothesis, others)
    best = finder.best(old.value, component)
    if best is None and space.attributes is None:
        # Perhaps it is further away
        start, _ = find_nearby(hypothesis, others, old.value, old)
        best = None if start.equal(old.value) else finder.best(start, component)
    if best is None:
        return None

    # Accept it if the validation draws agree; what is known of its attributes holds if these are the same
    candidate = hypothesis.replace(others, [best])
    if not acceptance.improves(candidate, hypothesis):
        acceptance.rejected.append(best.value)
        return None
    if hypothesis.known is None or not space.is_alike(best.value, old.value):
        return candidate
    return attrs.evolve(candidate, known=hypothesis.known.take([*others, component]))


def find_nearby(
    hypothesis: Hypothesis, others: Sequence[int], start: Tensor, old: Candidate | None = None
) -> tuple[Tensor, float]:
    """The best value whose numbers are a little lower, the same or higher, and by how much it lowers the error.

    Costs 3^D rows, and two for each of the `nearby` best; what is known of `old` costs nothing.
    """
    # All values around it, itself the first one
    space = hypothesis.space
    reach = space.options.reach
    steps = torch.cartesian_prod(*[torch.tensor([0.0, -reach, reach])] * space.length).view(-1, space.length)
    values = _shift(space, start, steps)
    values[0] = start

    # Successive halving: each part of the draws sees fewer of them
    errors = torch.zeros(0, len(values), dtype=torch.float64)
    for part in (0, 1):
        own = _evaluate_but(space, part, values, old)
        form = hypothesis.forms[part].take(list(others)).append(own)
        errors = torch.cat([errors, errors_of_last(form, len(others))])
        means = mean_with_prior(form, errors, len(others))
        order = means.argsort()[: space.options.nearby]
        values, errors, means = values[order], errors[:, order], means[order]
    return values[0], hypothesis.error(others, 2) - float(means[0])


def find_halves(hypothesis: Hypothesis, others: Sequence[int], whole: Tensor) -> list[Tensor]:
    """Two values in place of one, to both sides of it: the best of (3^D - 1) pairs, at two rows each and draw."""
    # All values to one side, followed by those to the other side
    space = hypothesis.space
    directions = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * space.length).view(-1, space.length)
    forward = directions[len(directions) // 2 + 1 :]  # the other half are their opposites
    steps = space.options.reach * torch.cat([forward, 2 * forward])
    values = _shift(space, whole, torch.cat([steps, -steps]))

    # The pair of least error on the first two parts of the draws
    means = torch.zeros(len(steps), dtype=torch.float64)
    for part in (0, 1):
        form = hypothesis.forms[part].take(list(others)).append(space.problem.quadratic(values, space.parts[part]))
        for k in range(len(steps)):
            pair = [len(others) + k, len(others) + len(steps) + k]
            chosen = [*range(len(others)), *pair]
            means[k] += float(form.objective(chosen).sum())
    best = int(means.argmin())
    return [values[best], values[len(steps) + best]]


def _shift(space: SearchSpace, start: Tensor, steps: Tensor) -> Tensor:
    """A value (V,) with its numbers changed by steps (M, D) of their quantiles, its attributes unchanged, (M, V)."""
    support = space.problem.slots[0].support
    q = to_quantiles(support, start[None, : space.length], edge=EDGE)
    numbers = from_quantiles(support, q + steps.to(q), edge=EDGE).to(start)
    return torch.cat([numbers, start[space.length :].expand(len(numbers), -1)], dim=1)


def _evaluate_but(space: SearchSpace, part: int, values: Tensor, known: Candidate | None) -> QuadraticForm:
    """The form over values (M, V) on a part of the draws. Costs a row for each that is not known, and draw."""
    bank = space.parts[part]
    same = [] if known is None else [k for k, value in enumerate(values) if value.equal(known.value)]
    if known is None or not same:
        return space.problem.quadratic(values, bank)
    if len(values) == 1:
        return known.forms[part]
    # Evaluate the others, and put the known one in its place
    place = same[0]
    rest = [k for k in range(len(values)) if k != place]
    form = space.problem.quadratic(values[rest], bank).append(known.forms[part])
    return form.take([*range(place), len(rest), *range(place, len(rest))])
