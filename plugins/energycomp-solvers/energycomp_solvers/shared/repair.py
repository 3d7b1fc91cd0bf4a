"""A search that goes on while something is left to explain: components are read again, added and removed.

Notation: variable -> symbol
    doubt      of a component, or of a place without one, see `energycomp_solvers.shared.doubts`
    parts      draws on which candidates are compared: many candidates see the first part alone
    judging    draws that accept or refuse the best candidate: they selected nothing

What is doubted most is tried first. A component is read anew beside the others: all of its words at once, and then its
numbers with the best words, since a wrong word holds a wrong place, and the other way round. A place around which much
is left gets a component if the judging draws want one, and a component that they do not miss goes. It ends when tries
that cost `IDLE` network evaluations for each component changed nothing, or when the budget is spent.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce

import attrs
import torch
from torch import Tensor

from energycomp.components import MixedSupport, from_quantiles, to_quantiles
from energycomp.inference import NoiseBank, ObjectWords, Problem, QuadraticForm, moved_numbers, paired
from energycomp_solvers.shared.doubts import doubts, missing, overlap
from energycomp_solvers.shared.newton import is_apart
from energycomp_solvers.shared.subsets import subset_errors, with_each

PARTS = ((5,), (1, 3), (0, 2, 4, 6, 7))  # of eight draws in the order of their timesteps
KEPT = (16, 4, 2)  # candidates that stay after each part
JUDGES = 16  # draws
IDLE = 50  # network evaluations in a row that change nothing, for each component and one more
RIVALS = 3  # of the values that were refused
BESIDE = 0.2  # cosine of the places of a component and of what is left, from which on it may be the component's
NEAR, EDGE = 0.03, 1e-3  # of a support: how far a place is looked for, and how near its ends numbers come
SAME = 0.7  # cosine of the places of two values from which on they are about the same
HOPELESS = 20.0  # nats by which a word is behind another one, beside which it is not tried again
MOST = 256  # combinations of words that are tried at once


@attrs.frozen(eq=False)
class _Candidate:
    """A value of one component, and the forms over it alone on the parts."""

    value: Tensor
    forms: list[QuadraticForm]


@attrs.define(eq=False)
class Repair:
    """An answer that is being repaired. It needs the rule product.

    Args:
        problem: of the image.
        values: of the K components, (K, V), with words where the problem has some.
        banks: the parts of the draws that choose.
        judges: the draws that judge.
        forms: over the components, on each part.
        judging: the form over them on the draws that judge.
        lattice: values (M, D) where a component may be missing, and what each adds under one draw, (M, P).
        p_value: an additional component is taken, and one is kept, where the paired test is below this.
        origins: the places of the components in the answer that was given; None for new ones.
        asked: what is known of the words of the answer that was given.
        refused: values that were tried and not taken: the rivals of the answer.
    """

    problem: Problem
    values: Tensor
    banks: list[NoiseBank]
    judges: NoiseBank
    forms: list[QuadraticForm]
    judging: QuadraticForm
    lattice: tuple[Tensor, Tensor]
    p_value: float
    origins: list[int | None]
    asked: ObjectWords | None = None
    refused: list[Tensor] = attrs.field(factory=list)

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
        """Moves all numbers once. Costs K (2 D + 2) + 1 rows for each draw that chooses, K + 1 for each that judges."""
        choosing = problem.draw(sum(map(len, PARTS)), generator)
        banks = [choosing[torch.tensor(part)] for part in PARTS]
        judges = problem.draw(JUDGES, generator)
        forms = [problem.quadratic(values, bank) for bank in banks]
        if len(values):  # all numbers are moved once, on more draws than found them
            quadratic = partial(_on_all, problem, banks)
            every = range(len(values))
            moved = moved_numbers(problem, reduce(QuadraticForm.cat, forms), quadratic, values, every)
            after = [problem.quadratic(moved, bank) for bank in banks]
            errors = [torch.cat([subset_errors(form, every, problem.weighting) for form in each]).mean() for each in (forms, after)]  # fmt: skip
            if errors[1] < errors[0]:
                values, forms = moved, after
        judging, origins = problem.quadratic(values, judges), list(range(len(values)))
        return cls(problem, values, banks, judges, forms, judging, lattice, p_value, origins, asked)

    def run(self, budget: int) -> None:
        """Tries what is doubted most, until nothing changes any more. Spends about `budget` rows at most."""
        start = last = self.problem.rows
        tried: list[Tensor] = []
        self._drop()
        while self.problem.rows - last < IDLE * (1 + len(self.values)) and self.problem.rows - start < budget:
            doubted = self._most_doubted(tried)
            if doubted is None:
                break
            value, component = doubted
            tried.append(value)
            changed = self._add(value) if component is None else self._read_again(component)
            if changed and component is not None and self._about_the_same(value, self.values[-1]):
                tried.append(self.values[-1])  # a small move settles no doubt
            elif changed:
                last = self.problem.rows
                self._drop()

    def doubted(self) -> list[float]:
        """The doubt of each component, and what is left around the value that is missing most, by all draws."""
        form, channels = reduce(QuadraticForm.cat, [*self.forms, self.judging]), len(self.problem.observation[0])
        of_components = doubts(form, channels).tolist() if len(self.values) else []
        return [*of_components, float(missing(form, self.lattice[1], channels).max())]

    def rivals(self) -> Tensor:
        """Values (M, V) that were refused last, which the answer is compared with."""
        found = self.refused[-RIVALS:]
        return torch.stack(found) if found else self.values[:0]

    def compares(self) -> QuadraticForm:
        """The form over the components and the `rivals` on the draws that judge. Costs a row for each rival and draw."""
        return self.judging.append(self.problem.quadratic(self.rivals(), self.judges))

    def words(self) -> ObjectWords | None:
        """What is known of the words of all components: of those that are new, nothing."""
        before = self.asked
        if before is None:
            return None
        empty = [torch.zeros(each.shape[1], dtype=each.dtype) for each in before.errors]
        errors = [
            torch.stack([zeros if k is None else each[k] for k in self.origins]) if self.origins else each[:0]
            for each, zeros in zip(before.errors, empty, strict=True)
        ]
        drawn = torch.tensor([0.0 if k is None else float(before.drawn[k]) for k in self.origins], dtype=torch.float64)
        return ObjectWords(self.values, tuple(errors), drawn)

    def _most_doubted(self, tried: list[Tensor]) -> tuple[Tensor, int | None] | None:
        """What is doubted most and was not tried: a component's value and index, or a place without one and None."""
        chosen = reduce(QuadraticForm.cat, self.forms)
        channels = len(self.problem.observation[0])
        found: list[tuple[float, Tensor, int | None]] = []
        untried = [k for k, value in enumerate(self.values) if not _among(value, tried)]
        if untried:
            of_components = doubts(chosen, channels)
            found += [(float(of_components[k]), self.values[k], k) for k in untried]
        places, effects = self.lattice
        left = missing(chosen, effects, channels)
        order = [k for k in left.argsort(descending=True).tolist() if not _among(places[k], tried)]
        if order and float(left[order[0]]) > 0 and len(self.values) < self.problem.counts[1]:
            # The place is the mean of the values around the one with the most left, by what is left around them.
            near = overlap(effects[order[:1]], effects, channels)[0] > SAME
            share = near * left.square()
            found.append((float(left[order[0]]), (share @ places.to(share)).to(places) / float(share.sum()), None))
            untouched = places[order[0]]
        if not found:
            return None
        _, value, component = max(found, key=lambda each: each[0])
        if component is None and untried:  # what is left beside a component may be its own: it is read again first
            shown = chosen.atoms[:, untried].square().mean(0).sqrt()
            near = overlap(effects[order[:1]], shown, channels)[0]
            if float(near.max()) > BESIDE:
                component = untried[int(near.argmax())]
                value = self.values[component]
        if component is None:
            tried.append(untouched)
        return value, component

    def _read_again(self, component: int) -> bool:
        """Reads one component anew; whether another value of it is taken."""
        others = [k for k in range(len(self.values)) if k != component]
        old = _Candidate(self.values[component], [form.take([component]) for form in self.forms])
        origin = self.origins[component]
        best = self._best(others, old.value, old, origin)
        if best is None:  # the words are right here: perhaps the place is not
            start = self._nearby(others, old.value)
            best = None if start.equal(old.value) else self._best(others, start, old, origin)
        if best is None:
            return False
        own = self.problem.quadratic(best.value[None], self.judges)
        after = self._judged([*others, len(self.values)], own)
        if after.mean() >= self._judged(range(len(self.values))).mean():
            self.refused.append(best.value)
            return False
        self._take(others, best, own)
        return True

    def _add(self, place: Tensor) -> bool:
        """Looks for a component around a place; whether one is taken."""
        count = len(self.values)
        every = list(range(count))
        best = self._best(every, self._nearby(every, place))
        if best is None:
            return False
        own = self.problem.quadratic(best.value[None], self.judges)
        if paired(self._judged([*every, count], own), self._judged(every))[2] >= self.p_value:
            self.refused.append(best.value)
            return False
        self._take(every, best, own)
        return True

    def _drop(self) -> None:
        """Removes components that the judging draws do not miss."""
        while len(self.values) > self.problem.counts[0]:
            every = list(range(len(self.values)))
            rests = [[k for k in every if k != drop] for drop in every]
            errors = [self._judged(rest) for rest in rests]
            least = min(every, key=lambda k: float(errors[k].mean()))
            if paired(self._judged(every), errors[least])[2] < self.p_value:
                return
            self.refused.append(self.values[least])
            self._keep(rests[least])

    def _best(
        self, others: Sequence[int], start: Tensor, old: _Candidate | None = None, origin: int | None = None
    ) -> _Candidate | None:
        """The best value beside others, with any words and a place near `start`; None where nothing, or `old`, is better."""
        # Halve the candidates: each part of the draws sees fewer of them.
        values = self._options(start, origin)
        errors = torch.zeros(0, len(values), dtype=torch.float64)
        for number, (bank, form, kept) in enumerate(zip(self.banks, self.forms, KEPT, strict=True)):
            both = form.take(list(others)).append(self.problem.quadratic(values, bank))
            found = both.errors_with_each(range(len(others)), self._weight(others))[:, len(others) :]
            errors = torch.cat([errors, found.cpu()])
            best = self._mean(both, errors, len(others)).argsort()[:kept]
            values, errors = values[best], errors[:, best]
            if old is None and number and float(errors[:, 0].mean()) > self._without(others, number + 1):
                return None  # no value explains more than none
        if old is not None and values[0].equal(old.value) and len(values) > 1:
            return None
        # Move the best ones, each with its own words, and compare again.
        candidates = [self._candidate(value) for value in values]
        for _ in range(2):
            candidates = [self._moved(others, candidate) for candidate in candidates]
        known = candidates if old is None else [*candidates, old]
        least = known[int(self._errors(others, known).argmin())]
        if least is old or (old is None and float(self._errors(others, [least])[0]) > self._without(others)):
            return None
        return least

    def _without(self, others: Sequence[int], parts: int = len(PARTS)) -> float:
        """The mean error of some components alone, on the first parts of the draws that choose."""
        errors = [subset_errors(form, list(others), self.problem.weighting) for form in self.forms[:parts]]
        return float(torch.cat(errors).mean())

    def _nearby(self, others: Sequence[int], start: Tensor) -> Tensor:
        """The best of values whose numbers are a little lower, the same or higher, on the first parts of the draws."""
        support, length = self.problem.slots[0].support, self.lattice[0].shape[1]
        q = to_quantiles(support, start[None, :length], edge=EDGE)
        steps = torch.cartesian_prod(*[torch.tensor([0.0, -NEAR, NEAR])] * length).view(-1, length)
        places = from_quantiles(support, q + steps.to(q), edge=EDGE).to(start)
        places[0] = start[:length]
        values = torch.cat([places, start[length:].expand(len(places), -1)], dim=1)
        errors = []
        for bank, form in list(zip(self.banks, self.forms, strict=True))[:2]:
            both = form.take(list(others)).append(self.problem.quadratic(values, bank))
            errors.append(both.errors_with_each(range(len(others)), self._weight(others))[:, len(others) :])
        return values[int(self._mean(both, torch.cat(errors).cpu(), len(others)).argmin())]

    def _options(self, start: Tensor, origin: int | None) -> Tensor:
        """Values (M, V) of one component: all combinations of words that are not hopeless, or one other word each."""
        mixed = self._words
        if mixed is None:
            return start[None]
        numbers, known = mixed.split(start if start.shape[0] > mixed.length else mixed.opened(start))
        choices = [torch.arange(1, number + 1) for number in mixed.words]
        if origin is not None and self.asked is not None and self.problem.beta is not None:
            energies = [self.problem.energies(errors[origin]) * self.problem.beta for errors in self.asked.errors]
            choices = [c[e < e.min() + HOPELESS] for c, e in zip(choices, energies, strict=True)]
        if torch.tensor([len(choice) for choice in choices]).prod() <= MOST:
            codes = torch.cartesian_prod(*choices).view(-1, len(choices))
        else:
            codes = torch.cat([known.expand(len(c), -1).index_copy(1, torch.tensor([k]), c[:, None].to(known)) for k, c in enumerate(choices)])  # fmt: skip
        return mixed.joined(numbers.expand(len(codes), -1), codes)

    def _moved(self, others: Sequence[int], candidate: _Candidate) -> _Candidate:
        """A candidate with better numbers beside others, its words unchanged; itself where they are not better."""
        form = self._beside(others, [candidate])
        values = torch.cat([self.values[list(others)], candidate.value[None]])
        value = moved_numbers(self.problem, form, self._quadratic, values, [len(others)])[-1]
        made = self._candidate(value)
        before, after = self._errors(others, [candidate, made])
        return made if after < before else candidate

    def _errors(self, others: Sequence[int], candidates: Sequence[_Candidate]) -> Tensor:
        """The mean errors (N,), with the prior, of the others and each candidate on the draws that choose."""
        form = self._beside(others, candidates)
        found = form.errors_with_each(range(len(others)), self._weight(others))[:, len(others) :]
        return self._mean(form, found.cpu(), len(others))

    def _mean(self, form: QuadraticForm, errors: Tensor, others: int) -> Tensor:
        """The mean of errors (S, N), with the prior of each set."""
        sets = with_each(range(others), len(form))[others:]
        return form.with_prior(errors.mean(0), sets).cpu()

    def _beside(self, others: Sequence[int], candidates: Sequence[_Candidate]) -> QuadraticForm:
        """The form over the others and the candidates on all draws that choose."""
        parts = []
        for number, form in enumerate(self.forms):
            parts.append(reduce(QuadraticForm.append, (one.forms[number] for one in candidates), form.take(list(others))))
        return reduce(QuadraticForm.cat, parts)

    def _quadratic(self, values: Tensor) -> QuadraticForm:
        return _on_all(self.problem, self.banks, values)

    def _candidate(self, value: Tensor) -> _Candidate:
        return _Candidate(value, [self.problem.quadratic(value[None], bank) for bank in self.banks])

    def _judged(self, indices: Sequence[int], more: QuadraticForm | None = None) -> Tensor:
        """Errors (S,) of components, and of one that is the last, on the draws that judge."""
        form = self.judging if more is None else self.judging.append(more)
        return subset_errors(form, list(indices), self.problem.weighting)

    def _take(self, others: Sequence[int], candidate: _Candidate, own: QuadraticForm) -> None:
        """The others and a candidate are the answer."""
        self._keep(others)
        self.forms = [form.append(more) for form, more in zip(self.forms, candidate.forms, strict=True)]
        self.judging = self.judging.append(own)
        self.values = torch.cat([self.values, candidate.value[None]])
        self.origins.append(None)

    def _keep(self, kept: Sequence[int]) -> None:
        self.values = self.values[list(kept)]
        self.origins = [self.origins[k] for k in kept]
        self.forms = [form.take(list(kept)) for form in self.forms]
        self.judging = self.judging.take(list(kept))

    @property
    def _words(self) -> MixedSupport | None:
        """The words of a value; None where it has none, or they are not asked for."""
        return self.problem.mixed if self.problem.asks_words else None

    def _about_the_same(self, value: Tensor, other: Tensor) -> bool:
        """Whether two values have the same words, and numbers that are close to each other."""
        support, length = self.problem.slots[0].support, self.lattice[0].shape[1]
        words = value[length:].equal(other[length:])
        return words and not is_apart(support, value[None, :length], other[None, :length], NEAR)

    def _weight(self, others: Sequence[int]) -> float:
        return self.problem.weighting(len(others) + 1)


def _on_all(problem: Problem, banks: Sequence[NoiseBank], values: Tensor) -> QuadraticForm:
    """The form over values on the draws of all banks."""
    return reduce(QuadraticForm.cat, [problem.quadratic(values, bank) for bank in banks])


def _among(value: Tensor, values: Sequence[Tensor]) -> bool:
    return any(value.shape == other.shape and value.equal(other) for other in values)
