"""One component of an answer, read anew beside the others: all of its words at once, and then its numbers.

Words and numbers are sought together: a component with a wrong word stays at a wrong place, and one at a wrong place
keeps a wrong word. The search is a race in three parts, each with more draws and fewer candidates.

1. Words are compared on draws of high noise, at the place of the component as it is: the likeliest combinations first,
   by what each word explains alone, and `BLOCK` further ones as long as some of the last ones are close.
2. Those that are close take a Gauss-Newton step each on draws of low noise, so that none is judged at the place that
   suits another one.
3. Those that are close then are compared on all draws. The best one moves once more, and is compared with the component
   as it was.

Few candidates are close where a component is large, and so most draws are spent on small ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce

import attrs
import torch
from torch import Tensor

from energycomp.components import MixedSupport
from energycomp.inference import QuadraticForm
from energycomp_solvers.shared.combinations import combinations
from energycomp_solvers.shared.newton import newton_step
from energycomp_solvers.shared.refit import FINE, NEAR, PARTS, Candidate, Refit, in_parts

BLOCK = 8  # combinations of words that are compared at once
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

        Costs a row for each combination of words that is compared, and for each word where nothing is known of them, 2
        D + 5 for each of the `KEPT[0]` that are close to the best, five for each of the `KEPT[1]` that are close then,
        and 8 (D + 1) for the numbers of the best one, on all draws. It stops early where nothing is gained. What is
        known of `old` costs nothing.

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
        refit = self.refit
        known = [] if old is None else [old]
        if refit.words is None:
            return self._on_first(start[None], known)

        # What each word explains by itself
        energies = self._asked(origin)
        if energies is None:
            known, energies = self._alone(start, known, refit.words)

        # Words under high noise, the likeliest first, until none of the last ones is close
        found: list[Candidate] = []
        means = torch.zeros(0, dtype=torch.float64)
        for block in combinations(refit.words, start, energies, refit.problem.beta).split(BLOCK):
            more = self._on_first(block, known)
            found += more
            means = torch.cat([means, self.errors(more)])
            if not bool(self._is_close(means, CLOSE[0])[-len(more) :].any()):
                break

        # The close ones, moved under low noise, and of these the close ones
        found = self._closest(found, means, KEPT[0], CLOSE[0])
        found = [self._placed(each) for each in found]
        return self._closest(found, self.errors(found), KEPT[1], CLOSE[1])

    def _asked(self, origin: int | None) -> list[Tensor] | None:
        """The energies (n,) of each word of each attribute where they were asked for; None where nothing is known."""
        refit = self.refit
        if origin is None or refit.asked is None:
            return None
        return [refit.problem.energies(errors[origin]) for errors in refit.asked.errors]

    def _alone(
        self, start: Tensor, known: list[Candidate], words: MixedSupport
    ) -> tuple[list[Candidate], list[Tensor]]:
        """Values with another word of one attribute, added to those that are known, and the energies of these words.

        Costs a row for each of them on the first part of the draws.
        """
        whole = start if len(start) > words.length else words.opened(start)
        options = [words.worded(whole.expand(n, -1), k, torch.arange(n)) for k, n in enumerate(words.words)]
        found = self._on_first(torch.cat(options), known)
        energies = self.refit.problem.energies(self.errors(found))
        return [*known, *found], list(energies.split(words.words))

    def _on_first(self, values: Tensor, known: Sequence[Candidate]) -> list[Candidate]:
        """Values (M, V) as candidates on the first part of the draws; those that are known cost nothing."""
        same = [next((each for each in known if each.value.equal(value)), None) for value in values]
        new = [k for k, each in enumerate(same) if each is None]
        if not new:
            return [each for each in same if each is not None]
        # Evaluate those that are new, as one batch
        form = self.refit.problem.quadratic(values[new], self.refit.banks[0])
        return [each or Candidate(values[k], [form.take([new.index(k)])]) for k, each in enumerate(same)]

    def _closest(self, candidates: Sequence[Candidate], means: Tensor, most: int, nats: float) -> list[Candidate]:
        """The candidates of least error (N,) that are worse than the best one by some nats at most, the best first."""
        is_close = self._is_close(means, nats)
        return [candidates[k] for k in means.argsort()[:most].tolist() if is_close[k]]

    def _is_close(self, means: Tensor, nats: float) -> Tensor:
        """Which errors (N,) are worse than the least one by some nats at most; all without an inverse temperature."""
        problem = self.refit.problem
        if problem.beta is None:
            return torch.ones_like(means, dtype=torch.bool)
        found = problem.nats(means)
        return found - found.min() <= nats

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
        return problem.gap(now, before - now) < LEAST

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
        return Candidate(value, in_parts(form))

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
