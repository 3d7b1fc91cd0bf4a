"""A search that goes on while something is left to explain: components are read again, added and removed.

Notation: variable -> symbol
    doubt      of a component, or of a place without one, see `energycomp_solvers.shared.doubts`
    judges     draws that accept or refuse the best candidate: they selected nothing

What is doubted most is tried first.

- A component is read again beside the others, see `energycomp_solvers.shared.reread`.
- A place where much is left, or what is left is like a component, gets one if the draws that judge want it.
- A component that they do not miss is removed.

The search ends when each component was read again and the last `PLACES` places got none, or when the budget is spent. A
component without words is read again only if its doubt is `STRONG` times the usual one: there is nothing but its
numbers to correct, which the search has moved already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

from energycomp.inference import NoiseBank, ObjectWords, Problem, QuadraticForm
from energycomp_solvers.shared.doubts import BESIDE, among, doubts, missing, most_doubted, shown_with, undoubted
from energycomp_solvers.shared.nearby import halves, nearby
from energycomp_solvers.shared.refit import NEAR, Candidate, Refit
from energycomp_solvers.shared.reread import Rereading
from energycomp_solvers.shared.subsets import subset_errors
from energycomp_solvers.shared.words import read_last
from energycomp_solvers.shared.worth import Worth

JUDGES = 16  # draws
# Places without a component that are tried in a row, while none gets one, see `most_doubted`
PLACES: tuple[Literal["left", "like"], ...] = ("left", "like", "left", "like")
RIVALS = 3  # of the values that were refused
ARRIVED = 0.005  # of a support: a component with another word that moved by less is at its place


@attrs.define(eq=False)
class Repair:
    """An answer that is being repaired. It needs the rule product.

    Args:
        problem: of the image.
        refit: the components, on the draws that choose.
        judges: the draws that judge.
        lattice: values (M, D) where a component may be missing, and what each adds under one draw, (M, P).
        worth: whether a component is taken, or kept, by the draws that judge.
        origins: the places of the components in the answer that was given; None for new ones.
        refused: values that were tried and not taken: the rivals of the answer.
        asked: how many additional components were judged.
        judging: the form over the components on the draws that judge; None until these are asked.
    """

    problem: Problem
    refit: Refit
    judges: NoiseBank
    lattice: tuple[Tensor, Tensor]
    worth: Worth
    origins: list[int | None]
    refused: list[Tensor] = attrs.field(factory=list)
    asked: int = 0
    _judging: QuadraticForm | None = None

    @classmethod
    def of(
        cls,
        problem: Problem,
        values: Tensor,
        lattice: tuple[Tensor, Tensor],
        p_value: float,
        generator: torch.Generator | None,
        asked: ObjectWords | None = None,
    ) -> Repair:
        """Costs what `Refit.of` costs; K + 1 rows for each draw that judges, once something is to be judged."""
        refit = Refit.of(problem, values, generator, asked)
        judges = problem.draw(JUDGES, generator)
        return cls(problem, refit, judges, lattice, Worth(problem, p_value), list(range(len(values))))

    @property
    def is_as_it_was(self) -> bool:
        """Whether nothing of the answer that was given has changed, or had to be judged."""
        return self._judging is None

    @property
    def judging(self) -> QuadraticForm:
        """The form over the components on the draws that judge."""
        if self._judging is None:
            self._judging = self.problem.quadratic(self.values, self.judges)
        return self._judging

    @property
    def values(self) -> Tensor:
        """The components, (K, V)."""
        return self.refit.values

    def run(self, budget: int) -> None:
        """Tries what is doubted most, until nothing changes any more. Spends about `budget` rows at most."""
        start = self.problem.rows
        refused = 0  # places in a row

        # Begin with what the image has
        if self.refit.words is not None or not self._each_is_missed():
            self._drop()
        tried = undoubted(self.refit)
        while self.problem.rows - start < budget:
            places = PLACES[refused] if refused < len(PLACES) else None
            doubted = most_doubted(self.refit, self.lattice, tried, places)
            if doubted is None:
                break
            tried.append(doubted.value)

            # A place without a component: add one
            if doubted.component is None:
                is_added = self._add(doubted.value, doubted.strong)
                refused = 0 if is_added else refused + 1
                if is_added:
                    self._drop()
                    tried = self._still_tried(tried)
                continue

            # A component: read it again
            before = self._read_again(doubted.component)
            if before is None:
                continue

            # What moved goes on moving, with those beside it, while that is worth something
            new = self.values[-1]
            is_the_same = self.refit.about_the_same(doubted.value, new)
            is_on_its_way = is_the_same or self.refit.is_elsewhere(doubted.value, new, ARRIVED)
            goes_on = is_on_its_way and self.worth.goes_on(float(self._judged().mean()), before)
            if goes_on or not is_the_same:
                self._drop()
                tried = self._still_tried(tried)
            if not goes_on:
                tried.append(new)  # which may have been dropped

    def read_last(self) -> None:
        """Reads the words of all components with more draws.

        What made up for wrong words may not be missed beside the right ones: it is removed.
        """
        known = self.words()
        if known is None:
            return
        self.refit.asked, exchanged = read_last(self.refit, known)
        self.origins = list(self.refit.every)
        if exchanged:
            self._judging = None
            self._drop()

    def doubted(self) -> list[float]:
        """The doubt of each component, and what is left around the value that is missing most."""
        form = self.refit.whole()
        of_components = doubts(form, self.refit.channels).tolist() if len(self.values) else []
        return [*of_components, float(missing(form, self.lattice[1], self.refit.channels).max())]

    def rivals(self) -> Tensor:
        """Values (M, V) that were refused last and are another answer, which the answer is compared with."""
        # Leave out what is a component by now
        found = [value for value in self.refused if not self._is_a_component(value)][-RIVALS:]
        return torch.stack(found) if found else self.values[:0]

    def compares(self) -> QuadraticForm:
        """The form over components, or values close to them, and `rivals` on the draws that judge.

        Costs a row for each rival and draw.
        """
        return self.judging.append(self.problem.quadratic(self.rivals(), self.judges))

    def words(self) -> ObjectWords | None:
        """What is known of the words of all components: of those that are new, nothing."""
        before = self.refit.asked
        if before is None:
            return None
        # Forget what was known of those that are new: 0 draws
        new = torch.tensor([k is None for k in self.origins], dtype=torch.bool)
        old = torch.tensor([k or 0 for k in self.origins], dtype=torch.long)
        errors = tuple(torch.where(new[:, None], 0.0, each[old]) for each in before.errors)
        return ObjectWords(self.values, errors, torch.where(new, 0.0, before.drawn[old]))

    def _read_again(self, component: int) -> float | None:
        """Reads one component anew. The mean error before on the draws that judge, or None where its value stays."""
        # Look for a better value on the draws that choose
        others = self.refit.others(component)
        reading = Rereading(self.refit, others)
        old = self.refit.own(component)
        origin = self.origins[component]
        best = reading.best(old.value, old, origin)
        if best is None and self.refit.words is None:
            # Perhaps it is further away
            start, _ = nearby(self.refit, others, old.value, old)
            best = None if start.equal(old.value) else reading.best(start, old, origin)
        if best is None:
            return None

        # Ask the draws that judge
        own = self.problem.quadratic(best.value[None], self.judges)
        before = float(self._judged().mean())
        if float(self._judged([*others, len(self.values)], own).mean()) >= before:
            self.refused.append(best.value)
            return None

        # Take it
        self._keep(others, [best], own)
        if self.refit.about_the_same(best.value, old.value):
            # What is known of its words holds
            self.origins[-1] = origin
        return before

    def _add(self, place: Tensor, strong: bool) -> bool:
        """Looks for a component around a place; whether one is taken."""
        # Look for the best value near the place
        every = self.refit.every
        start, gain = nearby(self.refit, every, place)
        best = Rereading(self.refit, every).best(start) if gain > 0 else None
        if best is None:
            return False

        # The value of a component, once more: the image may have two there
        for component in every:
            if not self.refit.is_elsewhere(best.value, self.values[component]):
                return self._halve(component)

        # Ask the draws that judge whether they miss it
        own = self.problem.quadratic(best.value[None], self.judges)
        without = self._judged(every)
        with_it = self._judged([*every, len(every)], own)
        self.asked += 1  # the same draws judge all of these (Bonferroni)
        if self.worth.is_missed(with_it, without, among=self.asked):
            self._keep(every, [best], own)
            return True

        # Refuse it, or read again what is beside it. What is not worth its place is no rival either
        if not self.worth.is_small(with_it, without):
            self.refused.append(best.value)
        return strong and bool(every) and self._split(best, own, without)

    def _halve(self, component: int) -> bool:
        """Puts two components to both sides of one that the image has twice; whether they are taken."""
        # The best two places, judged together
        others = self.refit.others(component)
        pair = [self.refit.candidate(value) for value in halves(self.refit, others, self.values[component])]
        own = self.problem.quadratic(torch.stack([each.value for each in pair]), self.judges)
        errors = self._judged([*others, len(self.values), len(self.values) + 1], own)
        if not self.worth.is_missed(errors, self._judged()):
            return False
        self._keep(others, pair, own)
        return True

    def _split(self, new: Candidate, own: QuadraticForm, without: Tensor) -> bool:
        """Whether a component that was refused is taken once the one beside it, which may stand for both, is read anew.

        Args:
            new, own: the refused one, and its form on the draws that judge.
            without: the errors of the answer on these.
        """
        # Take it for now, and read again what it overlaps most
        refit = attrs.evolve(self.refit)
        judging = self.judging
        origins = self.origins
        self._keep(self.refit.every, [new], own)
        beside = int(shown_with(self.refit, self.refit.every[:-1]).argmax())
        is_read = self._read_again(beside) is not None

        # Keep both if they are missed, else go back
        if is_read and self.worth.is_missed(self._judged(), without):
            return True
        self.refit = refit
        self._judging = judging
        self.origins = origins
        return False

    def _drop(self) -> None:
        """Removes components that the draws that judge do not miss."""
        while len(self.values) > self.problem.counts[0]:
            # The component without which the error is least
            errors = [self._judged(self.refit.others(drop)) for drop in self.refit.every]
            least = min(self.refit.every, key=lambda k: float(errors[k].mean()))
            with_all = self._judged()
            if self.worth.is_missed(with_all, errors[least]):
                return
            # It is a rival of the answer, unless it is not worth its place
            if not self.worth.is_small(with_all, errors[least]):
                self.refused.append(self.values[least])
            self._keep(self.refit.others(least))

    def _each_is_missed(self) -> bool:
        """Whether the draws that choose miss each component: without words they have chosen nothing yet."""
        errors = self.refit.errors(self.refit.every)
        rests = [self.refit.errors(self.refit.others(drop)) for drop in self.refit.every]
        return all(self.worth.is_missed(errors, rest) for rest in rests)

    def _judged(self, indices: Sequence[int] | None = None, more: QuadraticForm | None = None) -> Tensor:
        """Errors (S,) of some components, all if left out, on the draws that judge. `more` are behind the last one."""
        form = self.judging if more is None else self.judging.append(more)
        return subset_errors(form, self.refit.every if indices is None else list(indices), self.problem.weighting)

    def _keep(self, kept: Sequence[int], more: Sequence[Candidate] = (), own: QuadraticForm | None = None) -> None:
        """Some components, and candidates with their form on the draws that judge, are the answer."""
        judging = self.judging.take(list(kept))
        self._judging = judging if own is None else judging.append(own)
        self.refit.keep(kept, more)
        self.origins = [self.origins[k] for k in kept] + [None] * len(more)

    def _is_a_component(self, value: Tensor) -> bool:
        return any(self.refit.about_the_same(value, own, 2 * NEAR) for own in self.values)

    def _still_tried(self, tried: Sequence[Tensor]) -> list[Tensor]:
        """Values that were tried, but for components beside the newest one: they may have made up for it."""
        beside = [self.values[k] for k in self.refit.every[:-1] if float(shown_with(self.refit, [k])) > BESIDE]
        return [value for value in tried if not among(value, beside)]
