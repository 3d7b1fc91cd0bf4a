"""One component of an answer, read anew beside the others: all of its words at once, and then its numbers.

Notation: variable -> symbol
    parts       draws on which candidates are compared: many candidates see the first part alone
    others      the components that stay as they are
    errors      J of the others and a candidate

Words and numbers are sought together, since a wrong word holds a wrong place, and the other way round. The first part
is of high noise, under which the right words are seen from a place that is a little off. The second one is of low
noise, which says places best: each candidate moves there by itself, so that none is judged at the place that suits
another one. Few candidates are close where a component is large, and so most draws are spent on small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from itertools import accumulate

import attrs
import torch
from torch import Tensor

from energycomp.components import MixedSupport
from energycomp.inference import NoiseBank, ObjectWords, Problem, QuadraticForm, moved_numbers
from energycomp_solvers.shared.combinations import combinations
from energycomp_solvers.shared.newton import newton_step
from energycomp_solvers.shared.subsets import subset_errors, with_each

PARTS = ((6,), (1, 3), (0, 2, 4, 5, 7))  # of eight draws in the order of their timesteps
KEPT = (6, 3)  # most candidates that stay after a part
CLOSE = (10.0, 6.0)  # nats by which these are worse than the best one
LEAST = 1.0  # nats that a component has to gain by another place alone
NEAR, EDGE = 0.03, 1e-3  # of a support: how far a place is looked for, and how near its ends numbers come
FINE = 0.004  # of a support: differences of values with words, whose edges are sharper than those of open ones


@attrs.frozen(eq=False)
class Candidate:
    """A value of one component, and the forms over it alone on the first parts of the draws, or on all."""

    value: Tensor
    forms: list[QuadraticForm]


@attrs.define(eq=False)
class Refit:
    """The components of an answer on the draws that choose. It needs the rule product.

    Args:
        problem: of the image.
        values: of the K components, (K, V), with words where the problem asks for some.
        banks: the parts of the draws.
        forms: over the components, on each part.
        asked: what is known of the words of the components that the answer began with.
    """

    problem: Problem
    values: Tensor
    banks: list[NoiseBank]
    forms: list[QuadraticForm]
    asked: ObjectWords | None = None

    @classmethod
    def of(
        cls, problem: Problem, values: Tensor, generator: torch.Generator | None, asked: ObjectWords | None
    ) -> Refit:
        """Moves the numbers of values with words once, each by itself, if all fit better then.

        Costs K + 1 rows for each draw, and with words K (2 D + 1) more.
        """
        # The parts of the draws, each with its own trunk
        drawn = problem.draw(sum(map(len, PARTS)), generator)
        banks = [drawn[torch.tensor(part)] for part in PARTS]
        made = cls(problem, values, banks, [problem.quadratic(values, bank) for bank in banks], asked)

        # Places were found with all words open, and words say more of them
        if len(values) and made.words is not None:
            every = range(len(values))
            moved = moved_numbers(problem, made.whole(), made.quadratic, values, every)
            other = cls(problem, moved, banks, [problem.quadratic(moved, bank) for bank in banks], asked)
            if other.without() < made.without():
                return other
        return made

    def settled(self, values: Tensor) -> Tensor:
        """The components with other words (K, V), and numbers that suit these.

        Costs D + 2 rows for each component whose words are others, and draw.
        """
        changed = [k for k, value in enumerate(values) if not value.equal(self.values[k])]
        if not changed:
            return values
        # The form over the components with their new words
        every = list(range(len(values)))
        form = self.whole().append(self.quadratic(values[changed]))
        order = [len(values) + changed.index(k) if k in changed else k for k in every]
        # Move these together, the others stay
        atoms, _, chosen = self._stepped(values, form.take(order), every, changed)
        return atoms[chosen]

    def whole(self) -> QuadraticForm:
        """The form over all components, on all draws."""
        return reduce(QuadraticForm.cat, self.forms)

    def best(
        self, others: Sequence[int], start: Tensor, old: Candidate | None = None, origin: int | None = None
    ) -> Candidate | None:
        """The best value beside others, with any words and numbers near those of a value.

        Costs a row for each combination of words, 2 D + 5 for each of the `KEPT[0]` that are close to the best, five
        for each of the `KEPT[1]` that are close then, and 8 (D + 1) for the numbers of the best one, on all draws. It
        stops early where nothing is gained. What is known of `old` costs nothing.

        Args:
            others: the components beside it.
            start: (V,), or its numbers (D,).
            old: the component that is read again; None for one that is new.
            origin: the place of that component in `asked`.

        Returns:
            None where `old` is better, or without it, no component.
        """
        # Look at all words under high noise.
        values = self._options(start, origin)
        form = self.on_part(0, values, old)
        found = [Candidate(value, [form.take([k])]) for k, value in enumerate(values)]
        if old is not None:
            found = [old if each.value.equal(old.value) else each for each in found]

        # Keep those that are close to the best ones, move each under low noise, and keep what is close now.
        if self.words is not None:
            found = self._closest(others, found, KEPT[0], CLOSE[0])
            found = [self._placed(others, each) for each in found]
            found = self._closest(others, found, KEPT[1], CLOSE[1])

        # Compare these on all draws: what is not better than no component, or than the old one, is not taken.
        found = [self._on_parts(each, 2) for each in found]
        if old is None and float(self._errors(others, found).min()) > self.without(others, 2):
            return None
        found = [self._on_parts(each, len(PARTS)) for each in found]
        first = found[int(self._errors(others, found).argmin())]
        if old is not None and self.words is not None and self._is_as_good(others, old, first):
            return None

        # Move the best one on all draws, and compare it with the old one, or with none.
        known = [first, self._moved(others, first)]
        if old is not None and first is not old:
            known = [old, *known]
        means = self._errors(others, known)
        least = known[int(means.argmin())]
        if least is old or (old is None and float(means.min()) > self.without(others)):
            return None
        return least

    def without(self, others: Sequence[int] | None = None, parts: int = len(PARTS)) -> float:
        """The mean error of some components, all if left out, on the first parts of the draws."""
        chosen = list(range(len(self.values)) if others is None else others)
        errors = [subset_errors(form, chosen, self.problem.weighting) for form in self.forms[:parts]]
        return float(torch.cat(errors).mean())

    def errors(self, chosen: Sequence[int]) -> Tensor:
        """The errors (S,) of some components, in the order of the timesteps, as paired tests take them."""
        errors = torch.cat([subset_errors(form, chosen, self.problem.weighting) for form in self.forms])
        return errors[torch.tensor([draw for part in PARTS for draw in part]).argsort()]

    def own(self, component: int) -> Candidate:
        """A component of the answer as a candidate."""
        return Candidate(self.values[component], [form.take([component]) for form in self.forms])

    def candidate(self, value: Tensor) -> Candidate:
        """A value as a candidate. Costs a row for each draw."""
        return Candidate(value, [self.problem.quadratic(value[None], bank) for bank in self.banks])

    def keep(self, kept: Sequence[int], more: Sequence[Candidate] = ()) -> None:
        """Some components, and candidates, are the answer."""
        self.values = self.values[list(kept)]
        self.forms = [form.take(list(kept)) for form in self.forms]
        for candidate in more:
            self.values = torch.cat([self.values, candidate.value[None]])
            self.forms = [form.append(own) for form, own in zip(self.forms, candidate.forms, strict=True)]

    def quadratic(self, values: Tensor) -> QuadraticForm:
        """The form over other values on all draws."""
        return reduce(QuadraticForm.cat, [self.problem.quadratic(values, bank) for bank in self.banks])

    @property
    def words(self) -> MixedSupport | None:
        """The words of a value; None where it has none, or they are not asked for."""
        return self.problem.mixed if self.problem.asks_words else None

    def _options(self, start: Tensor, origin: int | None) -> Tensor:
        """Values (M, V) with the words that are tried."""
        if self.words is None:
            return start[None]
        asked = None
        if origin is not None and self.asked is not None:
            asked = [self.problem.energies(errors[origin]) for errors in self.asked.errors]
        return combinations(self.words, start, asked, self.problem.beta)

    def on_part(self, number: int, values: Tensor, known: Candidate | None = None) -> QuadraticForm:
        """The form over values (M, V) on one part of the draws. Costs a row for each that is not known, and draw."""
        bank = self.banks[number]
        same = [] if known is None else [k for k, value in enumerate(values) if value.equal(known.value)]
        if known is None or not same:
            return self.problem.quadratic(values, bank)
        if len(values) == 1:
            return known.forms[number]
        # Evaluate the others, and put the known one in its place
        place = same[0]
        rest = [k for k in range(len(values)) if k != place]
        form = self.problem.quadratic(values[rest], bank).append(known.forms[number])
        return form.take([*range(place), len(rest), *range(place, len(rest))])

    def with_each(self, form: QuadraticForm, others: int) -> Tensor:
        """Errors (S, M) of the first atoms of a form, and each further one."""
        errors = form.errors_with_each(range(others), self.problem.weighting(others + 1))
        return errors[:, others:].cpu()

    def mean_of(self, form: QuadraticForm, errors: Tensor, others: int) -> Tensor:
        """The mean (M,) of errors (S, M), with the prior of each set."""
        sets = with_each(range(others), len(form))[others:][: errors.shape[1]]
        return form.with_prior(errors.mean(0), sets).cpu()

    def _closest(
        self, others: Sequence[int], candidates: Sequence[Candidate], most: int, nats: float
    ) -> list[Candidate]:
        """The candidates of least error that are worse than the best one by some nats at most, the best one first."""
        # The best ones
        means = self._errors(others, candidates)
        order = means.argsort()[:most].tolist()
        # Of these the close ones
        beta = self.problem.beta
        if beta is not None:
            least = float(means[order[0]])
            order = [k for k in order if beta * self.problem.gap(least, float(means[k]) - least) <= nats]
        return [candidates[k] for k in order]

    def _is_as_good(self, others: Sequence[int], old: Candidate, new: Candidate) -> bool:
        """Whether the old component is not worse than the new one, or has the same words and hardly another place."""
        if new is old:
            return True
        now, before = self._errors(others, [new, old]).tolist()
        if now >= before:
            return True

        # Another word is worth taking, another place if it gains something
        length = self.problem.value_shape[0]
        beta = self.problem.beta
        if beta is None or not new.value[length:].equal(old.value[length:]):
            return False
        return beta * self.problem.gap(now, before - now) < LEAST

    def _on_parts(self, candidate: Candidate, parts: int) -> Candidate:
        """A candidate on the first parts of the draws at least. Costs a row for each draw that is new."""
        banks = self.banks[len(candidate.forms) : parts]
        if not banks:
            return candidate
        more = [self.problem.quadratic(candidate.value[None], bank) for bank in banks]
        return Candidate(candidate.value, [*candidate.forms, *more])

    def _placed(self, others: Sequence[int], candidate: Candidate) -> Candidate:
        """A candidate on the first two parts, with numbers that are better on the second one.

        Costs D + 2 rows for each draw of the second part, and one for each of the first.
        """
        # One step on the second part, beside the others
        candidate = self._on_parts(candidate, 2)
        quadratic = partial(self.problem.quadratic, bank=self.banks[1])
        values = torch.cat([self.values[list(others)], candidate.value[None]])
        form = self.forms[1].take(list(others)).append(candidate.forms[1])
        last = len(others)
        atoms, form, chosen = newton_step(
            self.problem, quadratic, values, form, range(last + 1), [last], reach=NEAR, step=FINE
        )
        if chosen[last] == last:
            return candidate
        # A new place is not known on the first part
        value = atoms[chosen[last]]
        return Candidate(value, [self.problem.quadratic(value[None], self.banks[0]), form.take([chosen[last]])])

    def _moved(self, others: Sequence[int], candidate: Candidate) -> Candidate:
        """A candidate with better numbers beside others, its words unchanged; itself where they are not better.

        Costs D + 1 rows for each draw.
        """
        values = torch.cat([self.values[list(others)], candidate.value[None]])
        last = len(others)
        atoms, form, chosen = self._stepped(values, self._beside(others, [candidate]), range(last + 1), [last])
        if chosen[last] == last:
            return candidate
        return Candidate(atoms[chosen[last]], _in_parts(form.take([chosen[last]])))

    def _stepped(
        self, values: Tensor, form: QuadraticForm, chosen: Sequence[int], places: Sequence[int]
    ) -> tuple[Tensor, QuadraticForm, list[int]]:
        """A step of the numbers of some values, on all draws."""
        return newton_step(self.problem, self.quadratic, values, form, chosen, places, reach=NEAR, step=FINE)

    def _errors(self, others: Sequence[int], candidates: Sequence[Candidate]) -> Tensor:
        """The mean errors (N,), with the prior, of the others and each candidate, on the draws that all know."""
        form = self._beside(others, candidates)
        return self.mean_of(form, self.with_each(form, len(others)), len(others))

    def _beside(self, others: Sequence[int], candidates: Sequence[Candidate]) -> QuadraticForm:
        """The form over the others and the candidates, on the draws that all of these know."""
        # Part after part, as far as all are known
        known = min(len(candidate.forms) for candidate in candidates)
        parts = []
        for number, form in enumerate(self.forms[:known]):
            own = [candidate.forms[number] for candidate in candidates]
            parts.append(reduce(QuadraticForm.append, own, form.take(list(others))))
        return reduce(QuadraticForm.cat, parts)


def _in_parts(form: QuadraticForm) -> list[QuadraticForm]:
    """A form on all draws, part after part, as one form for each part."""
    ends = list(accumulate(map(len, PARTS)))
    return [form.on(slice(end - len(part), end)) for end, part in zip(ends, PARTS, strict=True)]
