"""How many components an answer has: paired tests on draws that selected none of them, as many as it takes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import attrs
import torch
from torch import Tensor

from energycomp.inference import NoiseBank, Problem, QuadraticForm, paired
from energycomp_solvers.search.subsets import swap


@attrs.define(eq=False)
class HeldOut:
    """The quadratic form over the atoms that were compared, on one bank or on all of them.

    Args:
        atoms: (M, *V), all that may be compared.
        banks: independent; the first one is used alone until a comparison is open on it.
        known: the atoms that were evaluated.
        early: share of a significance level that a test before the last bank may spend; more ends tests sooner, and
            leads to more errors.
        hopeless: p-value above which such a test ends, too.
    """

    problem: Problem
    atoms: Tensor
    banks: Sequence[NoiseBank]
    known: list[int] = attrs.field(factory=list)
    early: float = 0.05
    hopeless: float = 0.95
    _forms: list[QuadraticForm] = attrs.field(factory=list)

    @property
    def draws(self) -> int:
        """How many draws are in use."""
        return sum(form.draws for form in self._forms)

    def evaluate(self, indices: Sequence[int]) -> None:
        """Adds the atoms that are not known yet."""
        fresh = [k for k in indices if k not in self.known]
        # On the first bank, or on all that are in use
        if not self._forms:
            self._forms = [self.problem.quadratic(self.atoms[fresh], self.banks[0])]
        elif fresh:
            parts = zip(self._forms, self.banks, strict=False)
            self._forms = [form.append(self.problem.quadratic(self.atoms[fresh], bank)) for form, bank in parts]
        self.known += fresh

    def errors(self, indices: Sequence[int]) -> Tensor:
        """The errors (S,) of a set of atoms under every draw that is in use."""
        self.evaluate(indices)
        places = [self.known.index(k) for k in indices]
        return torch.cat([form.objective(places) for form in self._forms])

    def is_better(self, indices: Sequence[int], other: Sequence[int], level: float) -> bool:
        """Whether atoms leave significantly less error than others.

        A bank decides where its p-value is below a twentieth of the level or above 0.95. Anything else is tested again
        with one bank more, so errors of the first kind are a tenth above the level for three banks.
        """
        p_value = self._p_value(indices, other)
        while len(self._forms) < len(self.banks) and self.early * level <= p_value < self.hopeless:
            bank = self.banks[len(self._forms)]
            self._forms.append(self.problem.quadratic(self.atoms[self.known], bank))
            p_value = self._p_value(indices, other)
        return p_value < (self.early * level if len(self._forms) < len(self.banks) else level)

    def choose_count(self, form: QuadraticForm, chosen: list[int], extra: Sequence[int], p_value: float) -> list[int]:
        """The atoms that stay, by paired tests; `form` is over the atoms on the draws that selected.

        First components are dropped while that does no significant harm; the others may move to make up for the one
        that goes, so two that share one object are told from two objects. Then any of the known and the `extra` ones is
        added while that helps significantly; the p-value is divided by the number of those (Bonferroni).
        """
        low, high = self.problem.counts
        # Drop the component that is missed least, while that does no significant harm.
        self.evaluate(chosen)
        while len(chosen) > low:
            fewer = [swap(form, [c for c in chosen if c != drop], rounds=2) for drop in chosen]
            least = min(fewer, key=form.mean_objective)
            if self.is_better(chosen, least, p_value):
                break
            chosen = least
        # Add the one that helps most, while it helps significantly.
        if len(chosen) < high:
            self.evaluate(extra)
        while len(chosen) < min(high, len(self.known)):
            more = [[*chosen, k] for k in self.known if k not in chosen]
            best = min(more, key=lambda indices: float(self.errors(indices).mean()))
            if not self.is_better(best, chosen, p_value / len(more)):
                break
            chosen = best
        return chosen

    def form(self, indices: Sequence[int]) -> QuadraticForm:
        """The form over known atoms on all draws in use, in the order of the indices."""
        self.evaluate(indices)
        places = [self.known.index(k) for k in indices]
        return reduce(QuadraticForm.cat, [form.take(places) for form in self._forms])

    def _p_value(self, indices: Sequence[int], other: Sequence[int]) -> float:
        errors = self.errors(indices), self.errors(other)
        return paired(*errors, [form.draws for form in self._forms])[2]
