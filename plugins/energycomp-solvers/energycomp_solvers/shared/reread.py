"""One component of an answer, read anew beside the others: all of its words at once, and then its numbers.

Words and numbers are sought together: a component with a wrong word stays at a wrong place, and one at a wrong place
keeps a wrong word. The search is a race in three parts, each with more draws and fewer candidates.

1. All words are compared on draws of high noise, at the place of the component as it is.
2. Those that are close take a Gauss-Newton step each on draws of low noise, so that none is judged at the place that
   suits another one.
3. Those that are close then are compared on all draws. The best one moves once more, and is compared with the component
   as it was.

Few candidates are close where a component is large, and so most draws are spent on small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import accumulate

import attrs
import torch
from torch import Tensor

from energycomp.inference import QuadraticForm
from energycomp_solvers.shared.combinations import combinations
from energycomp_solvers.shared.newton import newton_step
from energycomp_solvers.shared.refit import FINE, NEAR, PARTS, Candidate, Refit

KEPT = (6, 3)  # most candidates that stay after a part
CLOSE = (10.0, 6.0)  # nats by which these are worse than the best one
LEAST = 1.0  # nats that a component has to gain by another place alone


@attrs.frozen(eq=False)
class Rereading:
    """A component that is read beside others.

    Args:
        refit: the answer.
        others: the components that stay as they are.
    """

    refit: Refit
    others: list[int]

    def best(self, start: Tensor, old: Candidate | None = None, origin: int | None = None) -> Candidate | None:
        """The best value beside the others, with any words and numbers near those of a value.

        Costs a row for each combination of words, 2 D + 5 for each of the `KEPT[0]` that are close to the best, five
        for each of the `KEPT[1]` that are close then, and 8 (D + 1) for the numbers of the best one, on all draws. It
        stops early where nothing is gained. What is known of `old` costs nothing.

        Args:
            start: (V,), or its numbers (D,).
            old: the component that is read again; None for one that is new.
            origin: the place of that component in `Refit.asked`.

        Returns:
            None where `old` is better, or without it, no component.
        """
        refit = self.refit
        # Parts one and two: words that are close to the best ones, each at a place of its own
        found = self._worded(start, old, origin)

        # A new component that is worse than none does not see the last part
        found = [self._on_parts(each, 2) for each in found]
        if old is None and float(self.errors(found).min()) > refit.without(self.others, 2):
            return None

        # Part three: the best one on all draws. Nothing changes where the old one is as good
        found = [self._on_parts(each, len(PARTS)) for each in found]
        first = found[int(self.errors(found).argmin())]
        if old is not None and refit.words is not None and self._is_as_good(old, first):
            return None

        # Move it, and take the best of the place before, the one after, and the old component or none
        known = [first, self._moved(first)]
        if old is not None and first is not old:
            known = [old, *known]
        means = self.errors(known)
        least = known[int(means.argmin())]
        if least is old or (old is None and float(means.min()) > refit.without(self.others)):
            return None
        return least

    def errors(self, candidates: Sequence[Candidate]) -> Tensor:
        """The mean errors (N,), with the prior, of the others and each candidate, on the draws that all know."""
        form = self._beside(candidates)
        return self.refit.mean_of(form, self.refit.with_each(form, len(self.others)), len(self.others))

    def _worded(self, start: Tensor, old: Candidate | None, origin: int | None) -> list[Candidate]:
        """The candidates with words that are close to the best ones, each moved by itself; without words the start."""
        # All words, under high noise
        values = self._options(start, origin)
        form = self.refit.on_part(0, values, old)
        found = [Candidate(value, [form.take([k])]) for k, value in enumerate(values)]
        if old is not None:
            found = [old if each.value.equal(old.value) else each for each in found]
        if self.refit.words is None:
            return found

        # The close ones, moved under low noise, and of these the close ones
        found = self._closest(found, KEPT[0], CLOSE[0])
        found = [self._placed(each) for each in found]
        return self._closest(found, KEPT[1], CLOSE[1])

    def _options(self, start: Tensor, origin: int | None) -> Tensor:
        """Values (M, V) with the words that are tried."""
        refit = self.refit
        if refit.words is None:
            return start[None]
        asked = None
        if origin is not None and refit.asked is not None:
            asked = [refit.problem.energies(errors[origin]) for errors in refit.asked.errors]
        return combinations(refit.words, start, asked, refit.problem.beta)

    def _closest(self, candidates: Sequence[Candidate], most: int, nats: float) -> list[Candidate]:
        """The candidates of least error that are worse than the best one by some nats at most, the best one first."""
        # The best ones
        means = self.errors(candidates)
        order = means.argsort()[:most].tolist()
        # Of these the close ones
        beta = self.refit.problem.beta
        if beta is not None:
            least = float(means[order[0]])
            order = [k for k in order if beta * self.refit.problem.gap(least, float(means[k]) - least) <= nats]
        return [candidates[k] for k in order]

    def _is_as_good(self, old: Candidate, new: Candidate) -> bool:
        """Whether the old component is not worse than the new one, or has the same words and hardly another place."""
        problem = self.refit.problem
        if new is old:
            return True
        now, before = self.errors([new, old]).tolist()
        if now >= before:
            return True

        # Another word is worth taking, another place if it gains something
        length = problem.value_shape[0]
        if problem.beta is None or not new.value[length:].equal(old.value[length:]):
            return False
        return problem.beta * problem.gap(now, before - now) < LEAST

    def _on_parts(self, candidate: Candidate, parts: int) -> Candidate:
        """A candidate on the first parts of the draws at least. Costs a row for each draw that is new."""
        banks = self.refit.banks[len(candidate.forms) : parts]
        if not banks:
            return candidate
        more = [self.refit.problem.quadratic(candidate.value[None], bank) for bank in banks]
        return Candidate(candidate.value, [*candidate.forms, *more])

    def _placed(self, candidate: Candidate) -> Candidate:
        """A candidate on the first two parts, with numbers that are better on the second one.

        Costs D + 2 rows for each draw of the second part, and one for each of the first.
        """
        refit = self.refit
        high, low = refit.banks[:2]
        candidate = self._on_parts(candidate, 2)
        form = refit.forms[1].take(self.others).append(candidate.forms[1])
        better = self._stepped(candidate, form, partial(refit.problem.quadratic, bank=low))
        if better is None:
            return candidate
        # A new place is not known on the first part
        value, at_place = better
        return Candidate(value, [refit.problem.quadratic(value[None], high), at_place])

    def _moved(self, candidate: Candidate) -> Candidate:
        """A candidate with numbers that are better on all draws; itself where they are not better.

        Costs D + 1 rows for each draw.
        """
        better = self._stepped(candidate, self._beside([candidate]), self.refit.quadratic)
        if better is None:
            return candidate
        value, form = better
        return Candidate(value, _in_parts(form))

    def _stepped(
        self, candidate: Candidate, form: QuadraticForm, quadratic: Callable[[Tensor], QuadraticForm]
    ) -> tuple[Tensor, QuadraticForm] | None:
        """The value (V,) of a candidate after a step of its numbers, and the form over it; None where it is not better.

        Args:
            form: over the others and the candidate, on some draws.
            quadratic: the form over any values, on the same draws.
        """
        last = len(self.others)
        values = torch.cat([self.refit.values[self.others], candidate.value[None]])
        atoms, form, chosen = newton_step(
            self.refit.problem, quadratic, values, form, range(last + 1), [last], reach=NEAR, step=FINE
        )
        if chosen[last] == last:
            return None
        return atoms[chosen[last]], form.take([chosen[last]])

    def _beside(self, candidates: Sequence[Candidate]) -> QuadraticForm:
        """The form over the others and the candidates, on the draws that all of these know."""
        # Part after part, as far as all are known
        known = min(len(candidate.forms) for candidate in candidates)
        parts = []
        for number, form in enumerate(self.refit.forms[:known]):
            own = [candidate.forms[number] for candidate in candidates]
            parts.append(reduce(QuadraticForm.append, own, form.take(self.others)))
        return reduce(QuadraticForm.cat, parts)


def _in_parts(form: QuadraticForm) -> list[QuadraticForm]:
    """A form on all draws, part after part, as one form for each part."""
    ends = list(accumulate(map(len, PARTS)))
    return [form.on(slice(end - len(part), end)) for end, part in zip(ends, PARTS, strict=True)]
