"""A search that goes on while something is left to explain: components are read again, added and removed.

Notation: variable -> symbol
    doubt      of a component, or of a place without one, see `energycomp_solvers.shared.doubts`

What is doubted most is tried first.

- A component is read again beside the others, see `energycomp_solvers.shared.reread`.
- A place where much is left, or what is left is like a component, gets one if the draws that judge want it. Where far
  more is left than usual, two components are tried for the one that shows there, see
  `energycomp_solvers.shared.counts`.
- A component that they do not miss is removed. At the end one component is tried for two.

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

from energycomp.inference import ObjectWords, Problem, QuadraticForm
from energycomp.progress import Bar, counting
from energycomp_solvers.shared.compare import Worded
from energycomp_solvers.shared.counts import add, join
from energycomp_solvers.shared.doubts import BESIDE, among, doubts, missing, most_doubted, shown_with, undoubted
from energycomp_solvers.shared.judged import Judged
from energycomp_solvers.shared.refit import NEAR
from energycomp_solvers.shared.words import read_words, with_another

# Places without a component that are tried in a row, while none gets one, see `most_doubted`
PLACES: tuple[Literal["left", "like"], ...] = ("left", "like", "left", "like")
RIVALS = 3  # of the values that were refused
ARRIVED = 0.005  # of a support: a component with another word that moved by less is at its place


@attrs.define(eq=False)
class Repair:
    """An answer that is being repaired. It needs the rule product.

    Args:
        judged: the answer.
        lattice: values (M, D) where a component may be missing, and what each adds under one draw, (M, P).
    """

    judged: Judged
    lattice: tuple[Tensor, Tensor]

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
        """Costs what `Judged.of` costs."""
        return cls(Judged.of(problem, values, p_value, generator, asked), lattice)

    @property
    def values(self) -> Tensor:
        """The components, (K, V)."""
        return self.judged.values

    def run(self, budget: int) -> None:
        """Tries what is doubted most, until nothing changes any more. Spends about `budget` rows at most."""
        judged = self.judged

        # Begin with what the image has
        if judged.refit.words is not None or not judged.each_is_missed():
            judged.drop()
        tried = undoubted(judged.refit)
        with counting("what is doubted", budget, unit="evaluation") as bar:
            self._try_doubted(budget, tried, bar)

        # One component for two
        while join(judged):
            pass

    def _try_doubted(self, budget: int, tried: list[Tensor], bar: Bar) -> None:
        """Tries what is doubted most, one after another."""
        judged = self.judged
        start = spent = judged.problem.rows
        refused = 0  # places in a row
        while judged.problem.rows - start < budget:
            bar.advance(judged.problem.rows - spent)
            spent = judged.problem.rows
            places = PLACES[refused] if refused < len(PLACES) else None
            doubted = most_doubted(judged.refit, self.lattice, tried, places)
            if doubted is None:
                break
            tried.append(doubted.value)

            # A place without a component: add one
            if doubted.component is None:
                is_added = add(judged, doubted)
                refused = 0 if is_added else refused + 1
                if is_added:
                    judged.drop()
                    tried = self._still_tried(tried)
                continue

            # A component: read it again
            before = judged.read_again(doubted.component)
            if before is None:
                continue

            # What moved goes on moving, with those beside it, while that is worth something
            refit = judged.refit
            new = self.values[-1]
            is_the_same = refit.about_the_same(doubted.value, new)
            is_on_its_way = is_the_same or refit.is_elsewhere(doubted.value, new, ARRIVED)
            goes_on = is_on_its_way and judged.worth.goes_on(float(judged.errors().mean()), before)
            if goes_on or not is_the_same:
                judged.drop()
                tried = self._still_tried(tried)
            if not goes_on:
                tried.append(new)  # which may have been dropped

    def read_words(self) -> None:
        """Reads the words of all components with more draws.

        What made up for wrong words may not be missed beside the right ones: it is removed.
        """
        known = self.words()
        if known is None:
            return
        judged = self.judged
        judged.refit.asked, exchanged = read_words(judged.refit, known)
        judged.origins = list(judged.refit.every)
        if exchanged:
            judged.taken()
            judged.drop()

    def doubted(self) -> list[float]:
        """The doubt of each component, and what is left around the value that is missing most."""
        refit = self.judged.refit
        form = refit.whole()
        of_components = doubts(form, refit.channels).tolist() if len(self.values) else []
        return [*of_components, float(missing(form, self.lattice[1], refit.channels).max())]

    def rivals(self) -> Tensor:
        """Values (M, V) that were refused last and are another answer, which the answer is compared with."""
        # Leave out what is a component by now
        found = [value for value in self.judged.refused if not self._is_a_component(value)][-RIVALS:]
        return torch.stack(found) if found else self.values[:0]

    def compares(self) -> QuadraticForm:
        """The form over components, or values close to them, and `rivals` on the draws that judge.

        Costs a row for each rival and draw.
        """
        return self.judged.form.append(self.judged.own(self.rivals()))

    def words(self) -> ObjectWords | None:
        """What is known of the words of all components: of those that are new, nothing."""
        before = self.judged.refit.asked
        if before is None:
            return None
        # Nothing is known of those that are new: 0 draws. They take the row of zeros behind those of the others, which
        # may be none.
        old = torch.tensor([-1 if k is None else k for k in self.judged.origins], dtype=torch.long)
        errors = tuple(torch.cat([each, each.new_zeros(1, each.shape[1])])[old] for each in before.errors)
        drawn = torch.cat([before.drawn, before.drawn.new_zeros(1)])[old]
        return ObjectWords(self.values, errors, drawn)

    def worded(self) -> Worded | None:
        """The component whose word is least certain with the next best one. Costs what `with_another` costs."""
        known = self.words()
        return None if known is None else with_another(self.judged.refit, known)

    def _is_a_component(self, value: Tensor) -> bool:
        return any(self.judged.refit.about_the_same(value, own, 2 * NEAR) for own in self.values)

    def _still_tried(self, tried: Sequence[Tensor]) -> list[Tensor]:
        """Values that were tried, but for components beside the newest one: they may have made up for it."""
        refit = self.judged.refit
        beside = [self.values[k] for k in refit.every[:-1] if float(shown_with(refit, [k])) > BESIDE]
        return [value for value in tried if not among(value, beside)]
