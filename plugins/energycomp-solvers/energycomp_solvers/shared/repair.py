"""A search that goes on while something is left to explain: components are read again, added and removed.

Notation: variable -> symbol
    doubt      of a component, or of a place without one, see `energycomp_solvers.shared.doubts`
    judges     draws that accept or refuse the best candidate: they selected nothing

What is doubted most is tried first. A component is read anew beside the others (`energycomp_solvers.shared.refit`). A
place around which much is left gets a component if the draws that judge want one, and a component that they do not
miss goes. It ends when each component was read again, and the last `PLACES` places got none, or when the budget is
spent. A component without words is read again only if its doubt is `STRONG` times the usual one: there is nothing but
its numbers to correct, which the search has moved already.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.inference import NoiseBank, ObjectWords, Problem, QuadraticForm, paired
from energycomp_solvers.shared.doubts import BESIDE, among, doubts, missing, most_doubted, overlap, undoubted
from energycomp_solvers.shared.nearby import halves, nearby
from energycomp_solvers.shared.newton import is_apart
from energycomp_solvers.shared.refit import NEAR, Candidate, Refit
from energycomp_solvers.shared.subsets import subset_errors

JUDGES = 16  # draws
PLACES = 3  # without a component that are tried in a row, and get none
RIVALS = 3  # of the values that were refused
WORTH = 8.0  # nats that a component has to be worth: about what it takes to say its place to a fiftieth, log(50^2)
ONWARD, ONWARD_SHARE = 2.0, 0.05  # nats, or without an inverse temperature the share of the error, after which a small
# move of a component is followed by another one
ARRIVED = 0.005  # of a support: a component with another word that moved by less is at its place


@attrs.define(eq=False)
class Repair:
    """An answer that is being repaired. It needs the rule product.

    Args:
        problem: of the image.
        refit: the components, on the draws that choose.
        judges: the draws that judge.
        lattice: values (M, D) where a component may be missing, and what each adds under one draw, (M, P).
        p_value: an additional component is taken, and one is kept, where the paired test is below this.
        origins: the places of the components in the answer that was given; None for new ones.
        refused: values that were tried and not taken: the rivals of the answer.
        asked: how many additional components were judged.
        judging: the form over the components on the draws that judge; None until these are asked.
    """

    problem: Problem
    refit: Refit
    judges: NoiseBank
    lattice: tuple[Tensor, Tensor]
    p_value: float
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
        return cls(problem, refit, judges, lattice, p_value, list(range(len(values))))

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
            doubted = most_doubted(self.refit, self.lattice, tried, looks_for_places=refused < PLACES)
            if doubted is None:
                break
            value = doubted.value
            component = doubted.component
            tried.append(value)

            # Add a component at a place, or read one again
            before = None
            if component is None:
                changed = self._add(value, doubted.strong)
                refused = 0 if changed else refused + 1
            else:
                before = self._read_again(component)
                changed = before is not None
            if not changed:
                continue

            # What moved goes on moving, with those beside it, while that is worth something.
            moved = before is not None and self._about_the_same(value, self.values[-1])
            is_on_its_way = moved or (before is not None and self._is_elsewhere(value, self.values[-1], ARRIVED))
            onward = before is not None and is_on_its_way and self._goes_on(before)
            if onward or not moved:
                self._drop()
                tried = [value for value in tried if not self._is_beside_the_new(value)]
            if component is not None and not onward:
                tried.append(self.values[-1])

    def doubted(self) -> list[float]:
        """The doubt of each component, and what is left around the value that is missing most."""
        form = self.refit.whole()
        channels = len(self.problem.observation[0])
        of_components = doubts(form, channels).tolist() if len(self.values) else []
        return [*of_components, float(missing(form, self.lattice[1], channels).max())]

    def rivals(self) -> Tensor:
        """Values (M, V) that were refused last and are another answer, which the answer is compared with."""
        # Leave out what is a component by now
        unlike = [v for v in self.refused if not any(self._about_the_same(v, own, 2 * NEAR) for own in self.values)]
        found = unlike[-RIVALS:]
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
        others = [k for k in range(len(self.values)) if k != component]
        old = self.refit.own(component)
        origin = self.origins[component]
        best = self.refit.best(others, old.value, old, origin)
        if best is None and self.refit.words is None:  # perhaps it is further away
            start, _ = nearby(self.refit, others, old.value, old)
            best = None if start.equal(old.value) else self.refit.best(others, start, old, origin)
        if best is None:
            return None

        # Ask the draws that judge
        own = self.problem.quadratic(best.value[None], self.judges)
        before = float(self._judged(range(len(self.values))).mean())
        if float(self._judged([*others, len(self.values)], own).mean()) >= before:
            self.refused.append(best.value)
            return None

        # Take it
        self._keep(others, [best], own)
        if self._about_the_same(best.value, old.value):  # what is known of its words holds
            self.origins[-1] = origin
        return before

    def _add(self, place: Tensor, strong: bool) -> bool:
        """Looks for a component around a place; whether one is taken."""
        # Look for the best value near the place
        every = list(range(len(self.values)))
        start, gain = nearby(self.refit, every, place)
        best = self.refit.best(every, start) if gain > 0 else None
        if best is None:
            return False

        # The value of a component, once more: the image may have two there
        for component in every:
            if not self._is_elsewhere(best.value, self.values[component]):
                return self._halve(component)

        # Ask the draws that judge whether they miss it
        own = self.problem.quadratic(best.value[None], self.judges)
        without = self._judged(every)
        with_it = self._judged([*every, len(every)], own)
        self.asked += 1  # the same draws judge all of these (Bonferroni)
        if self._is_missed(with_it, without, self.p_value / self.asked):
            self._keep(every, [best], own)
            return True

        # Refuse it, or read again what is beside it. What is not worth its place is no rival either
        if not self._is_small(with_it, without):
            self.refused.append(best.value)
        return strong and bool(every) and self._split(best, own, without)

    def _halve(self, component: int) -> bool:
        """Puts two components to both sides of one that the image has twice; whether they are taken."""
        others = [k for k in range(len(self.values)) if k != component]
        # The best two places, judged together
        pair = [self.refit.candidate(value) for value in halves(self.refit, others, self.values[component])]
        own = self.problem.quadratic(torch.stack([each.value for each in pair]), self.judges)
        errors = self._judged([*others, len(self.values), len(self.values) + 1], own)
        if not self._is_missed(errors, self._judged(range(len(self.values))), self.p_value):
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
        before = attrs.evolve(self, refit=attrs.evolve(self.refit), refused=list(self.refused))
        self._keep(range(len(self.values)), [new], own)
        shown = self.refit.whole().atoms.square().mean(0).sqrt()
        beside = int(overlap(shown[-1:], shown[:-1], len(self.problem.observation[0])).argmax())
        read = self._read_again(beside) is not None

        # Keep both if they are missed, else go back
        if read and self._is_missed(self._judged(range(len(self.values))), without, self.p_value):
            return True
        self.refit = before.refit
        self._judging = before.judging
        self.origins = before.origins
        return False

    def _drop(self) -> None:
        """Removes components that the draws that judge do not miss."""
        while len(self.values) > self.problem.counts[0]:
            # The component without which the error is least
            every = list(range(len(self.values)))
            rests = [[k for k in every if k != drop] for drop in every]
            errors = [self._judged(rest) for rest in rests]
            least = min(every, key=lambda k: float(errors[k].mean()))
            if self._is_missed(self._judged(every), errors[least], self.p_value):
                return
            # It is a rival of the answer, unless it is not worth its place
            if not self._is_small(self._judged(every), errors[least]):
                self.refused.append(self.values[least])
            self._keep(rests[least])

    def _each_is_missed(self) -> bool:
        """Whether the draws that choose miss each component. Without words they have chosen nothing until then, and
        those that judge need not be asked. Costs no network evaluation.
        """
        every = list(range(len(self.values)))
        errors = self.refit.errors(every)
        rests = [self.refit.errors([k for k in every if k != drop]) for drop in every]
        return all(self._is_missed(errors, rest, self.p_value) for rest in rests)

    def _is_missed(self, errors: Tensor, without: Tensor, p_value: float) -> bool:
        """Whether an answer is better than that without one of its components, significantly and by enough."""
        return paired(errors, without)[2] < p_value and not self._is_small(errors, without)

    def _is_small(self, errors: Tensor, without: Tensor) -> bool:
        """Whether one component more makes an answer better, but by less than `WORTH`."""
        difference, _, p = paired(errors, without)
        if self.problem.beta is None or p >= self.p_value:
            return False
        return self.problem.beta * self.problem.gap(float(errors.mean()), difference) < WORTH

    def _goes_on(self, before: float) -> bool:
        """Whether the answer is better than an error by enough to go on in the same direction."""
        now = float(self._judged(range(len(self.values))).mean())
        if self.problem.beta is None:
            return now < (1 - ONWARD_SHARE) * before
        return self.problem.beta * self.problem.gap(now, before - now) >= ONWARD

    def _judged(self, indices: Sequence[int], more: QuadraticForm | None = None) -> Tensor:
        """Errors (S,) of components, and of one that is the last, on the draws that judge."""
        form = self.judging if more is None else self.judging.append(more)
        return subset_errors(form, list(indices), self.problem.weighting)

    def _keep(self, kept: Sequence[int], more: Sequence[Candidate] = (), own: QuadraticForm | None = None) -> None:
        """Some components, and candidates with their form on the draws that judge, are the answer."""
        judging = self.judging.take(list(kept))
        self._judging = judging if own is None else judging.append(own)
        self.refit.keep(kept, more)
        self.origins = [self.origins[k] for k in kept] + [None] * len(more)

    def _is_beside_the_new(self, value: Tensor) -> bool:
        """Whether a value is a component that shows where the newest one does: it may have made up for that."""
        own = [k for k, other in enumerate(self.values[:-1]) if among(value, [other])]
        if not own:
            return False
        shown = self.refit.whole().atoms.square().mean(0).sqrt()
        return float(overlap(shown[own], shown[-1:], len(self.problem.observation[0]))) > BESIDE

    def _about_the_same(self, value: Tensor, other: Tensor, reach: float = NEAR) -> bool:
        """Whether two values have the same words, and numbers that are close to each other."""
        length = self.problem.value_shape[0]
        return value[length:].equal(other[length:]) and not self._is_elsewhere(value, other, reach)

    def _is_elsewhere(self, value: Tensor, other: Tensor, reach: float = NEAR) -> bool:
        """Whether the numbers of two values differ by more than a reach."""
        length = self.problem.value_shape[0]
        return bool(is_apart(self.problem.slots[0].support, value[None, :length], other[None, :length], reach=reach))
