"""Which proposal comes next: what has the greatest residual score, until nothing is left to explain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from energycomp_solvers.search.accept import Acceptance
from energycomp_solvers.search.hypothesis import Hypothesis
from energycomp_solvers.search.proposals import Place, prune
from energycomp_solvers.search.proposed import find_missing
from energycomp_solvers.search.residual import (
    Places,
    component_scores,
    match_scores,
    overlap,
    overlap_with,
    place_scores,
)

FindPlaces: TypeAlias = Callable[[Tensor], Places]


@attrs.define(eq=False)
class Schedule:
    """What was tried, and what is left of the budget.

    The search ends when each component was updated and the last places got none, or when the budget is spent. A
    component without attributes is updated only if it fits far worse than usual: there is nothing but its numbers to
    correct, which the search has moved already.

    Args:
        places: where a component may be missing; None where none is sought.
        find_places: makes those around a place, after proposals.
        end: network evaluations at which the budget is spent.
        tried: values that were proposed or need not be.
        refused: places in a row that got no component.
    """

    places: Places | None
    end: int
    tried: list[Tensor]
    refused: int = 0
    find_places: FindPlaces | None = None

    @classmethod
    def start(cls, hypothesis: Hypothesis, places: Places, budget: int) -> Schedule:
        """Begins with all components to update, or without attributes those that fit far worse than the others."""
        space = hypothesis.space
        tried: list[Tensor] = []
        if space.attributes is None and len(hypothesis):
            tried = list(hypothesis.values[~find_doubtful(hypothesis)])
        return cls(places, space.problem.rows + budget, tried)

    @classmethod
    def after_proposals(
        cls, hypothesis: Hypothesis, find_places: FindPlaces, budget: int, updated: Sequence[Tensor]
    ) -> Schedule:
        """Begins with the components to update whose values are not updated yet, or fit far worse than the others."""
        is_doubtful = find_doubtful(hypothesis) if len(hypothesis) else torch.zeros(0)
        pairs = zip(hypothesis.values, is_doubtful, strict=True)
        tried = [value for value, doubtful in pairs if not doubtful and _is_among(value, updated)]
        return cls(None, hypothesis.space.problem.rows + budget, tried, find_places=find_places)

    def next(self, hypothesis: Hypothesis) -> int | Place | None:
        """The component to update, or the place where one may be missing, of the greatest score; None at the end.

        Places are, in turn, those around which most is left, and those where what is left is most like a component.
        """
        space = hypothesis.space
        if space.problem.rows >= self.end:
            return None
        scores = component_scores(hypothesis.whole, space.channels)
        usual = float(scores.median()) if len(scores) else torch.inf

        # The component that fits worst of those that were not tried
        untried = [k for k in hypothesis.components if not _is_among(hypothesis.values[k], self.tried)]
        worst = max(untried, key=scores.tolist().__getitem__) if untried else None
        score = 0.0 if worst is None else float(scores[worst])

        # After proposals, places only around what they have missed
        if self.find_places is not None and worst is None:
            missing = find_missing(hypothesis)
            self.places = None if missing is None else self.find_places(missing)

        # The place where one is missing most, if more is left around it
        has_room = self.refused < space.options.places and len(hypothesis) < space.problem.counts[1]
        if self.places is not None and has_room:
            places = self.places
            left = place_scores(hypothesis.whole, places)
            ranked = left if self.refused % 2 == 0 else match_scores(hypothesis.whole, places).clamp(min=0)
            order = [k for k in ranked.argsort(descending=True).tolist() if not _is_among(places.values[k], self.tried)]
            if order and float(left[order[0]]) > score:
                is_strong = float(left[order[0]]) > space.options.doubtful * usual
                return self._place(hypothesis, places, order[0], ranked, untried, is_strong)
        if worst is not None:
            self.tried.append(hypothesis.values[worst])
        return worst

    def _place(
        self,
        hypothesis: Hypothesis,
        places: Places,
        most: int,
        ranked: Tensor,
        untried: Sequence[int],
        is_strong: bool,
    ) -> int | Place:
        """The place of a lattice value; or the component beside it, since what is left may be its own."""
        space = hypothesis.space
        lattice = places.values
        beside = overlap(places.effects[[most]], hypothesis.whole.atoms.square().mean(0).sqrt(), space.channels)[0]
        if untried:
            nearest = max(untried, key=beside.tolist().__getitem__)
            if float(beside[nearest]) > space.options.beside:
                self.tried.append(hypothesis.values[nearest])
                return nearest
        # The mean of the places around it, by how much is missing there
        near = places.places[most] @ places.places.T > space.options.same_place
        share = near * ranked.square()
        numbers = (share @ lattice.to(share)).to(lattice) / float(share.sum())
        self.tried += [lattice[most], numbers]
        shows = int(beside.argmax()) if len(beside) and float(beside.max()) > space.options.beside else None
        return Place(numbers, is_strong, shows)

    def after_birth(self, before: Hypothesis, more: Hypothesis | None, acceptance: Acceptance) -> Hypothesis:
        if more is None:
            self.refused += 1
            return before
        self.refused = 0
        return self._prune(more, acceptance)

    def after_update(
        self, before: Hypothesis, component: int, updated: Hypothesis | None, acceptance: Acceptance
    ) -> Hypothesis:
        if updated is None:
            return before
        # What moved goes on moving, with those beside it, while that is worth something
        space = updated.space
        old = before.values[component]
        new = updated.values[-1]
        is_the_same = space.is_alike(old, new)
        is_on_its_way = is_the_same or space.is_elsewhere(old, new, space.options.moved)
        goes_on = is_on_its_way and _goes_on(before, updated)
        if goes_on or not is_the_same:
            updated = self._prune(updated, acceptance)
        if not goes_on:
            self.tried.append(new)  # which may have been dropped
        return updated

    def _prune(self, hypothesis: Hypothesis, acceptance: Acceptance) -> Hypothesis:
        """Deaths; components beside the newest one may have made up for it, and are tried again."""
        hypothesis = prune(hypothesis, acceptance)
        last = len(hypothesis) - 1
        limit = hypothesis.space.options.beside
        near = [k for k in hypothesis.components[:-1] if float(overlap_with(hypothesis, [k], last)) > limit]
        beside = [hypothesis.values[k] for k in near]
        self.tried = [value for value in self.tried if not _is_among(value, beside)]
        return hypothesis


def _goes_on(before: Hypothesis, after: Hypothesis) -> bool:
    problem = after.space.problem
    options = after.space.options
    was = float(before.validation_errors().mean())
    now = float(after.validation_errors().mean())
    if problem.posterior.beta is None:
        return now < (1 - options.goes_on_share) * was
    return problem.posterior.gap(now, was - now) >= options.goes_on


def find_doubtful(hypothesis: Hypothesis) -> Tensor:
    """Which components (K,) fit far worse than the others."""
    scores = component_scores(hypothesis.whole, hypothesis.space.channels)
    return scores > hypothesis.space.options.doubtful * scores.median()


def _is_among(value: Tensor, values: Sequence[Tensor]) -> bool:
    return any(value.shape == other.shape and value.equal(other) for other in values)
