"""Values that are listed: all answers among them, the form over them, and the ranking of answers by it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, combinations, combinations_with_replacement, islice, product
from math import comb, prod

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference import NoiseBank, Problem, QuadraticForm, Solution
from energycomp.progress import progress
from energycomp_solvers.search.ranked import ALTERNATIVES
from energycomp_solvers.shared.product_space import all_errors, marginals, unravel, with_prior

AT_ONCE = 8  # draws whose predictions are in memory

Scored = tuple[float, list[int]]
"""The mean error of an answer, with the prior, and its atoms."""


@attrs.frozen(eq=False)
class Ranking:
    """The best answers, the best one with each of M atoms, and the posterior (M,) of each atom to be in the answer."""

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
        atoms, slots = dictionary(problem)
        return cls(problem, atoms, slots, chunk)

    @property
    def number(self) -> int:
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
        errors = with_prior(mean, all_errors(mean, self.slots), self.slots)
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
                errors = mean.with_prior(mean.errors_of_each(chosen)[0], chosen)
                # Keep the best, and the best with each value
                least = errors.topk(min(1 + ALTERNATIVES, len(errors)), largest=False)
                best += zip(least.values.tolist(), chosen[least.indices].tolist(), strict=True)
                best = sorted(best)[: 1 + ALTERNATIVES]
                with_each = list(map(min, with_each, _best_of_chunk(errors, chosen, len(mean))))
                # Keep all energies, for the posterior of each value
                if problem.posterior.beta is not None and problem.exchangeable:
                    seen.append((chosen, problem.posterior.energies(errors)))
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
        beta = self._inverse_temperature(mean, answer)
        if beta is None:
            return None
        each = torch.cat(marginals(self.problem.posterior.energies(errors), list(map(len, self.slots)), beta))
        return each[torch.tensor(list(chain(*self.slots))).argsort()]

    def _inverse_temperature(self, mean: QuadraticForm, answer: Sequence[int]) -> float | None:
        """The beta of an image, by how much its best answer explains: without what a prior adds to the error."""
        error = float(mean.errors(answer))
        return self.problem.posterior.temper(error, float(mean.c))


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


def dictionary(problem: Problem) -> tuple[Tensor, list[list[int]]]:
    """Distinct values (M, *V) over all slots, and the indices that each slot may take."""
    listed = [slot.candidates for slot in problem.slots if slot.candidates is not None]
    if not listed:
        return torch.empty(0, *problem.value_shape, device=problem.device), []
    # Each distinct value once, since it costs an evaluation
    atoms, index = torch.unique(torch.cat(listed), dim=0, return_inverse=True)
    parts = index.split([len(values) for values in listed])
    return atoms, [part.tolist() for part in parts]


def counts_without_repeats(problem: Problem, values: int) -> tuple[int, int]:
    """The range of counts where each exchangeable value occurs at most once; raises `InputError` for too few."""
    low, high = problem.counts
    if low > values:
        raise InputError(
            f"got at least {low} components and {values} values; expected as many values, since this solver repeats "
            "none; use enumerate or beam, or change count="
        )
    return low, min(high, values)


def configurations(problem: Problem, slots: Sequence[Sequence[int]], count: int) -> Iterator[tuple[int, ...]]:
    """Every choice of `count` atoms: unordered for exchangeable slots, without repeats for distinct ones."""
    if count == 0:
        return iter([()])
    # Sets or multisets, where slots have no order
    if problem.exchangeable:
        pick = combinations if problem.distinct else combinations_with_replacement
        return iter(pick(slots[0], count))
    # One of each slot otherwise
    every = product(*slots[:count])
    return (row for row in every if len(set(row)) == count) if problem.distinct else every


def number_of_configurations(problem: Problem, slots: Sequence[Sequence[int]]) -> int:
    """How many there are over all counts of the problem (an upper bound for distinct slots that differ)."""
    total = 0
    for count in range(problem.counts[0], problem.counts[1] + 1):
        if count == 0:
            total += 1
        elif problem.exchangeable:
            size = len(slots[0])
            total += comb(size, count) if problem.distinct else comb(size + count - 1, count)
        else:
            total += prod(len(slot) for slot in slots[:count])
    return total


def terms_of(problem: Problem, atoms: Tensor, bank: NoiseBank) -> QuadraticForm:
    """The form of all atoms under a bank, without atoms and on the CPU."""
    form = QuadraticForm.empty(len(atoms))
    for start in progress(range(0, len(bank), AT_ONCE), f"{AT_ONCE} draws at a time"):
        form = form.cat(problem.quadratic(atoms, bank[start : start + AT_ONCE]).without_atoms())
    return form


def memberships(seen: Sequence[tuple[Tensor, Tensor]], atoms: int, beta: float) -> Tensor:
    """The posterior (M,) of each atom to be in the answer, of groups of answers: atoms (N, K) and energies (N,).

    >>> memberships([(torch.tensor([[0], [1]]), torch.zeros(2)), (torch.tensor([[0, 1]]), torch.zeros(1))], 2, 1.0)
    tensor([0.6667, 0.6667])
    """
    # The posterior of all answers
    posterior = torch.softmax(-beta * torch.cat([energies for _, energies in seen]), 0)
    total = posterior.new_zeros(atoms)
    # Marginal: sum it over the answers that hold an atom
    for (chosen, _), share in zip(seen, posterior.split([len(energies) for _, energies in seen]), strict=True):
        repeats = (chosen[:, :, None] == chosen[:, None]).tril(-1).any(2)  # an answer counts once
        total.index_add_(0, chosen.flatten(), (share[:, None] * ~repeats).flatten())
    return total
