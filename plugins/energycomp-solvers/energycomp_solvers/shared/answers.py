"""All answers among listed values, and their ranking by a quadratic form."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import attrs
import torch
from torch import Tensor

from energycomp.inference import Problem, QuadraticForm, Solution
from energycomp_solvers.search.ranked import ALTERNATIVES
from energycomp_solvers.shared.listed import configurations, dictionary, memberships, number_of_configurations
from energycomp_solvers.shared.product_space import all_errors, marginals, unravel, with_prior

Scored = tuple[float, list[int]]
"""The mean error of an answer, with the prior, and its atoms."""


@attrs.frozen(eq=False)
class Ranking:
    """The best answers, and the best one with each of M atoms.

    Args:
        best: the best ones first.
        with_each: (M,).
        posterior: (M,) of each atom to be in the answer; None for a model without an inverse temperature.
    """

    best: list[Scored]
    with_each: list[Scored]
    posterior: Tensor | None = None

    def describe(self, solution: Solution) -> Solution:
        """A solution of the best answer, with the posterior of its values."""
        if self.posterior is None:
            return solution
        return attrs.evolve(solution, probability=self.posterior[self.best[0][1]])


@attrs.frozen(eq=False)
class Answers:
    """The configurations of a problem whose values are listed.

    Args:
        problem: of the image.
        atoms: (M, *V), the distinct values.
        slots: the atoms that each slot may take.
        chunk: answers that are scored at a time.
    """

    problem: Problem
    atoms: Tensor
    slots: list[list[int]]
    chunk: int

    @classmethod
    def of(cls, problem: Problem, chunk: int) -> Answers:
        """All of them."""
        atoms, slots = dictionary(problem)
        return cls(problem, atoms, slots, chunk)

    @property
    def number(self) -> int:
        """How many there are."""
        return number_of_configurations(self.problem, self.slots)

    @property
    def is_product(self) -> bool:
        """Whether answers have one value of each of several attributes."""
        low, high = self.problem.counts
        apart = len(set(chain(*self.slots))) == sum(map(len, self.slots))
        return low == high and not self.problem.exchangeable and len(self.slots) > 0 and apart

    def take(self, kept: Sequence[int]) -> Answers:
        """The answers among some of the atoms."""
        slots = [[kept.index(k) for k in slot if k in kept] for slot in self.slots]
        return attrs.evolve(self, atoms=self.atoms[list(kept)], slots=slots)

    def rank(self, form: QuadraticForm) -> Ranking:
        """Ranks all answers by the mean error of a form over the atoms. Costs no network evaluation."""
        mean = form.mean()
        if not self.is_product:
            return self._rank_by_count(mean)
        # One value of each attribute: all errors are one tensor
        problem = self.problem
        errors = with_prior(mean, all_errors(mean, self.slots, problem.weighting(problem.counts[1])), self.slots)
        least = errors.topk(min(1 + ALTERNATIVES, len(errors)), largest=False)
        best = list(zip(least.values.tolist(), [unravel(k, self.slots) for k in least.indices.tolist()], strict=True))
        return Ranking(best, self._best_with_each(errors), self._marginals(mean, errors, best[0][1]))

    def _rank_by_count(self, mean: QuadraticForm) -> Ranking:
        """Answers of each count, a chunk at a time."""
        problem = self.problem
        low, high = problem.counts
        best: list[Scored] = []
        with_each: list[Scored] = [(math.inf, [])] * len(mean)
        seen: list[tuple[Tensor, Tensor]] = []
        for count in range(low, high + 1):
            for chosen in _chunks(configurations(problem, self.slots, count), self.chunk, count):
                errors = mean.with_prior(mean.errors_of_each(chosen, problem.weighting(count))[0], chosen)
                # Keep the best, and the best with each value
                least = errors.topk(min(1 + ALTERNATIVES, len(errors)), largest=False)
                best += zip(least.values.tolist(), chosen[least.indices].tolist(), strict=True)
                best = sorted(best)[: 1 + ALTERNATIVES]
                with_each = list(map(min, with_each, _best_of_chunk(errors, chosen, len(mean))))
                # Keep all energies, for the posterior of each value
                if problem.beta is not None and problem.exchangeable:
                    seen.append((chosen, problem.energies(errors)))
        beta = self._inverse_temperature(mean, best[0][1]) if seen else None
        return Ranking(best, with_each, None if beta is None else memberships(seen, len(mean), beta))

    def _best_with_each(self, errors: Tensor) -> list[Scored]:
        """The best answer with each value: the least over the other attributes."""
        best: dict[int, Scored] = {}
        after = len(errors)
        for slot in self.slots:
            before = len(errors) // after
            after //= len(slot)
            each = errors.view(before, len(slot), after).transpose(0, 1).flatten(1)
            for place, (error, index) in enumerate(zip(*map(Tensor.tolist, each.min(1)), strict=True)):
                # The place of that answer among all
                choice = (index // after * len(slot) + place) * after + index % after
                best[slot[place]] = (error, unravel(choice, self.slots))
        return [best[k] for k in sorted(best)]

    def _marginals(self, mean: QuadraticForm, errors: Tensor, answer: Sequence[int]) -> Tensor | None:
        """The marginal posterior (M,) of each value."""
        beta = self._inverse_temperature(mean, answer)
        if beta is None:
            return None
        each = torch.cat(marginals(self.problem.energies(errors), list(map(len, self.slots)), beta))
        return each[torch.tensor(list(chain(*self.slots))).argsort()]

    def _inverse_temperature(self, mean: QuadraticForm, answer: Sequence[int]) -> float | None:
        """The beta of an image, by how much its best answer explains: without what a prior adds to the error."""
        error = float(mean.errors(answer, self.problem.weighting(len(answer))))
        return self.problem.inverse_temperature(error, float(mean.c))


def _best_of_chunk(errors: Tensor, chosen: Tensor, atoms: int) -> list[Scored]:
    """The least of some errors (N,) with each of M atoms, and its answer, of answers (N, K)."""
    owner = torch.arange(len(chosen)).repeat_interleave(chosen.shape[1])
    least = errors.new_full((atoms,), math.inf).scatter_reduce(0, chosen.flatten(), errors[owner], "amin")
    best: list[Scored] = []
    for k, error in enumerate(least.tolist()):
        tied = chosen[errors == error].tolist()
        best.append((error, next((row for row in tied if k in row), [])))
    return best


def _chunks(rows: Iterator[tuple[int, ...]], size: int, count: int) -> Iterator[Tensor]:
    while chunk := list(islice(rows, size)):
        yield torch.tensor(chunk, dtype=torch.long).view(len(chunk), count)
