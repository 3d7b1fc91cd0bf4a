"""The update of one component beside the others: all of its attributes at once, and then its numbers.

Attributes and numbers are sought together: a component with a wrong attribute stays at a wrong place, and one at a
wrong place keeps a wrong attribute. The search is a race in three parts, each with more draws and fewer candidates.

1. Attributes are compared under high noise, at the place of the component as it is: the likeliest combinations first,
   and further blocks of them as long as some of the last ones are close.
2. Those that are close take a Gauss-Newton step each under low noise, so that none is compared at the place that suits
   another one.
3. Those that are close then are compared on all draws. The best one moves once more, and is compared with the component
   as it was.

Few candidates are close where a component is large, and so most draws are spent on small ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import attrs
import torch
from torch import Tensor

from energycomp.components import MixedSupport
from energycomp.inference import QuadraticForm
from energycomp_solvers.search.combinations import combinations
from energycomp_solvers.search.hypothesis import LOW_NOISE, Candidate, Hypothesis, SearchSpace, split_parts
from energycomp_solvers.search.subsets import errors_of_last, mean_with_prior


@attrs.frozen(eq=False)
class Update:
    """A component that is sought beside the `others`, which stay as they are."""

    hypothesis: Hypothesis
    others: list[int]

    @property
    def space(self) -> SearchSpace:
        return self.hypothesis.space

    def best(self, start: Tensor, component: int | None = None) -> Candidate | None:
        """The best value beside the others, with any attributes and numbers near those of `start`, (V,) or (D,).

        Costs a row for each combination of attributes that is compared, and for each attribute where nothing is known
        of them, 2 D + 5 for each of the `kept[0]` that are close to the best, five for each of the `kept[1]` that are
        close then, and 8 (D + 1) for the numbers of the best one. None where the `component` as it is, or none, is
        better.
        """
        hypothesis = self.hypothesis
        old = None if component is None else hypothesis.component(component)
        # Parts one and two: attributes that are close to the best ones, each at a place of its own
        found = self._close_ones(start, old, component)

        # A new component that is worse than none does not see the last part
        found = [self.space.evaluate(each, 2) for each in found]
        if old is None and float(self.errors(found).min()) > hypothesis.error(self.others, 2):
            return None

        # Part three: the best one on all draws. Nothing changes where the old one is as good
        found = [self.space.evaluate(each) for each in found]
        first = found[int(self.errors(found).argmin())]
        if old is not None and self.space.attributes is not None and self._is_as_good(old, first):
            return None

        # Move it, and take the best of the place before, the one after, and the old component or none
        candidates = [first, self._move(first)]
        if old is not None and first is not old:
            candidates = [old, *candidates]
        means = self.errors(candidates)
        least = candidates[int(means.argmin())]
        if least is old or (old is None and float(means.min()) > hypothesis.error(self.others)):
            return None
        return least

    def errors(self, candidates: Sequence[Candidate]) -> Tensor:
        """The mean errors (N,), with the prior, of the others and each candidate, on the draws that all know."""
        form = self._beside(candidates)
        count = len(self.others)
        return mean_with_prior(form, errors_of_last(form, count), count)

    def _close_ones(self, start: Tensor, old: Candidate | None, component: int | None) -> list[Candidate]:
        """The candidates with attributes that are close to the best ones, each moved; without attributes the start."""
        options = self.space.options
        support = self.space.attributes
        known = [] if old is None else [old]
        if support is None:
            return self._on_first(start[None], known)

        # What each attribute explains by itself
        energies = self._known_energies(component)
        if energies is None:
            known, energies = self._energies_alone(start, known, support)

        # Combinations under high noise, the likeliest first, until none of the last ones is close
        found: list[Candidate] = []
        means = torch.zeros(0, dtype=torch.float64)
        beta = self.space.problem.posterior.beta
        for block in combinations(support, start, energies, beta, options).split(options.block):
            more = self._on_first(block, known)
            found += more
            means = torch.cat([means, self.errors(more)])
            if not bool(self._is_close(means, options.kept_nats[0])[-len(more) :].any()):
                break

        # The close ones, moved under low noise, and of these the close ones
        found = [self._place(each) for each in self._closest(found, means, 0)]
        return self._closest(found, self.errors(found), 1)

    def _known_energies(self, component: int | None) -> list[Tensor] | None:
        known = self.hypothesis.known
        if component is None or known is None or not bool(known.draws[component]):
            return None
        return [self.space.problem.posterior.energies(errors[component]) for errors in known.errors]

    def _energies_alone(
        self, start: Tensor, known: list[Candidate], support: MixedSupport
    ) -> tuple[list[Candidate], list[Tensor]]:
        """Values with another word of one attribute, added to those that are known, and the energies of these words."""
        whole = start if len(start) > support.length else support.opened(start)
        changed = [support.worded(whole.expand(n, -1), k, torch.arange(n)) for k, n in enumerate(support.words)]
        found = self._on_first(torch.cat(changed), known)
        energies = self.space.problem.posterior.energies(self.errors(found))
        return [*known, *found], list(energies.split(support.words))

    def _on_first(self, values: Tensor, known: Sequence[Candidate]) -> list[Candidate]:
        """Values (M, V) as candidates on the first part of the draws; those that are known cost nothing."""
        same = [next((each for each in known if each.value.equal(value)), None) for value in values]
        new = [k for k, each in enumerate(same) if each is None]
        if not new:
            return [each for each in same if each is not None]
        # Evaluate those that are new, as one batch
        form = self.space.problem.quadratic(values[new], self.space.parts[0])
        return [each or Candidate(values[k], (form.take([new.index(k)]),)) for k, each in enumerate(same)]

    def _closest(self, candidates: Sequence[Candidate], means: Tensor, turn: int) -> list[Candidate]:
        """The candidates of least error (N,) that are close to the best one, the best first."""
        options = self.space.options
        is_close = self._is_close(means, options.kept_nats[turn])
        return [candidates[k] for k in means.argsort()[: options.kept[turn]].tolist() if is_close[k]]

    def _is_close(self, means: Tensor, nats: float) -> Tensor:
        """Which errors (N,) are worse than the least one by some nats at most; all without an inverse temperature."""
        problem = self.space.problem
        if problem.posterior.beta is None:
            return torch.ones_like(means, dtype=torch.bool)
        found = problem.posterior.nats(means)
        return found - found.min() <= nats

    def _is_as_good(self, old: Candidate, new: Candidate) -> bool:
        """Whether the old component is not worse, or has the same attributes at hardly another place."""
        problem = self.space.problem
        if new is old:
            return True
        now, before = self.errors([new, old]).tolist()
        if now >= before:
            return True

        # Another attribute is worth taking, another place if it gains something
        length = self.space.length
        if problem.posterior.beta is None or not new.value[length:].equal(old.value[length:]):
            return False
        return problem.posterior.gap(now, before - now) < self.space.options.gain

    def _place(self, candidate: Candidate) -> Candidate:
        """A candidate on the first two parts, with numbers that are better under low noise."""
        candidate = self.space.evaluate(candidate, 2)
        form = self.hypothesis.forms[LOW_NOISE].take(self.others).append(candidate.forms[LOW_NOISE])
        better = self._step(candidate, form, LOW_NOISE)
        if better is None:
            return candidate
        # A new place is not known under high noise
        value, low = better
        return Candidate(value, (self.space.problem.quadratic(value[None], self.space.parts[0]), low))

    def _move(self, candidate: Candidate) -> Candidate:
        """A candidate with numbers that are better on all draws, if there are some. Costs D + 1 rows for each draw."""
        better = self._step(candidate, self._beside([candidate]), None)
        return candidate if better is None else Candidate(better[0], split_parts(better[1]))

    def _step(self, candidate: Candidate, form: QuadraticForm, part: int | None) -> tuple[Tensor, QuadraticForm] | None:
        """A candidate's value (V,) after a step of its numbers, and the form over it; None where it is no better."""
        last = len(self.others)
        values = torch.cat([self.hypothesis.values[self.others], candidate.value[None]])
        atoms, form, chosen = self.space.newton_step(values, form, range(last + 1), [last], part)
        if chosen[last] == last:
            return None
        return atoms[chosen[last]], form.take([chosen[last]])

    def _beside(self, candidates: Sequence[Candidate]) -> QuadraticForm:
        """The form over the others and the candidates, on the draws that all of these know."""
        parts = []
        for number in range(min(len(candidate.forms) for candidate in candidates)):
            own = [candidate.forms[number] for candidate in candidates]
            parts.append(reduce(QuadraticForm.append, own, self.hypothesis.forms[number].take(self.others)))
        return reduce(QuadraticForm.cat, parts)
