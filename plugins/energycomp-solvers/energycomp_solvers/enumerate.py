"""Exhaustive search over finite values (Algorithm 4 of Wang, 2026), exact through the quadratic form.

Costs M + 1 network evaluations per draw for M distinct values; the M^K configurations are arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.fields import number, whole
from energycomp.inference import Problem, QuadraticForm, Solution
from energycomp.seeds import as_generator
from energycomp_solvers.shared.compare import compare_halves, errors_of, ranked_solution
from energycomp_solvers.shared.configurations import configurations, dictionary, number_of_configurations
from energycomp_solvers.shared.product_space import all_errors, marginals, unravel, with_prior
from energycomp_solvers.shared.terms import memberships, terms_of

LEAST = 16  # draws before an early answer, half of them to select and half to compare


@attrs.frozen
class Enumerate:
    """Every configuration of every count is scored; the least error, with the prior, wins.

    Run directly, M^K configurations cost M^K K rows per draw; here each of the M distinct values is one row per draw,
    and one for u. A configuration is K^2 multiplications, or less: for attributes 2^20 answers are one matrix product.

    Args:
        draws: draws that select; the problem's default.
        fresh_draws: fresh draws that compare the best with the second best; as many.
        p_value: when given, the number of draws doubles, from 16 on, until the p-value of the best answer's advantage
            over the second best is below this; twice `draws` at most. Each half of the draws compares what the other
            half selects. The p-value of the k-th test is multiplied by 2^k, so that it is valid at whichever test the
            solver stops (alpha spending, Lan and DeMets, 1983).
        limit: the greatest number of configurations.
        chunk: configurations scored at a time.
    """

    needs: ClassVar[Literal["finite"]] = "finite"

    draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))
    fresh_draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))
    p_value: float | None = attrs.field(default=None, validator=attrs.validators.optional(number(most=1)))
    limit: int = attrs.field(default=2**21, validator=whole(1, 2**30))
    chunk: int = attrs.field(default=2**16, validator=whole(1, 2**30))

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs M + 1 rows for each draw that selects, and at most 2 K + 1 for each that compares.

        With `p_value` every draw does both and costs M + 1.
        """
        generator = as_generator(generator)
        atoms, slots = dictionary(problem)
        total = number_of_configurations(problem, slots)
        if total > self.limit:
            raise InputError(
                f"got {total:,} configurations for Enumerate; expected at most {self.limit:,}; use pursuit or beam, "
                "narrow count= or candidates=, or raise the limit"
            )
        most = self.draws or problem.default_draws
        if self.p_value is not None:
            return self._until_sure(problem, atoms, slots, total, generator)
        terms = terms_of(problem, atoms, problem.draw(most, generator))
        ranked, probability = self._two_best(problem, terms, slots)
        bank = problem.draw(self.fresh_draws or most, generator)
        fresh = [errors_of(problem, atoms[chosen], bank) for _, chosen in ranked]
        solution = ranked_solution(problem, atoms, ranked, fresh, {"configurations": [float(total)]})
        return attrs.evolve(solution, probability=probability)

    def _until_sure(
        self,
        problem: Problem,
        atoms: Tensor,
        slots: list[list[int]],
        total: int,
        generator: torch.Generator | None,
    ) -> Solution:
        most = self.draws or problem.default_draws
        halves = [QuadraticForm.empty(len(atoms)) for _ in range(2)]
        banks: list[int] = []
        while True:
            left, bank = most - sum(banks), max(LEAST // 2, sum(banks))
            banks.append(left if left <= bank + 1 else bank)  # a bank of one draw would have no standard error
            halves = [half.cat(terms_of(problem, atoms, problem.draw(banks[-1], generator))) for half in halves]
            selected = [self._two_best(problem, half, slots)[0] for half in halves]
            fresh, found = compare_halves(halves, selected, problem.weighting, banks)
            found = min(1.0, 2.0 ** len(banks) * found)
            if len(fresh) < 2 or sum(banks) >= most or found < (self.p_value or 0.0):
                break
        ranked, probability = self._two_best(problem, halves[0].cat(halves[1]), slots)
        solution = ranked_solution(problem, atoms, ranked, fresh, {"configurations": [float(total)]}, [*banks, *banks])
        return attrs.evolve(solution, probability=probability, p_value=found if len(fresh) == 2 else None)

    def _two_best(
        self, problem: Problem, terms: QuadraticForm, slots: list[list[int]]
    ) -> tuple[list[tuple[float, list[int]]], Tensor | None]:
        """Mean error and atoms of the best and the second-best configuration; posteriors of the best one's values."""
        form = terms.mean()
        low, high = problem.counts
        if low == high and not problem.exchangeable and len(slots) and len(set(chain(*slots))) == sum(map(len, slots)):
            errors = with_prior(form, all_errors(form, slots, problem.weighting(high)), slots)
            return _of_attributes(errors, slots, problem)
        best: list[tuple[float, list[int]]] = []
        seen: list[tuple[Tensor, Tensor]] = []
        for count in range(low, high + 1):
            for chosen in _chunks(configurations(problem, slots, count), self.chunk, count):
                errors = form.with_prior(form.errors_of_each(chosen, problem.weighting(count))[0], chosen)
                least = errors.topk(min(2, len(errors)), largest=False)
                rows = chosen[least.indices].tolist()
                best += [(float(e), row) for e, row in zip(least.values, rows, strict=True)]
                best = sorted(best)[:2]
                if problem.beta is not None and problem.exchangeable:
                    seen.append((chosen, problem.energies(errors)))
        if not seen or problem.beta is None:
            return best, None
        return best, memberships(seen, len(form), problem.beta)[best[0][1]]


def _of_attributes(
    errors: Tensor, slots: list[list[int]], problem: Problem
) -> tuple[list[tuple[float, list[int]]], Tensor | None]:
    least = errors.topk(min(2, len(errors)), largest=False)
    best = [(float(e), unravel(int(index), slots)) for e, index in zip(least.values, least.indices, strict=True)]
    if problem.beta is None:
        return best, None
    posteriors = marginals(problem.energies(errors), list(map(len, slots)), problem.beta)
    places = [slot.index(atom) for slot, atom in zip(slots, best[0][1], strict=True)]
    return best, torch.stack([p[place] for p, place in zip(posteriors, places, strict=True)])


def _chunks(rows: Iterator[tuple[int, ...]], size: int, count: int) -> Iterator[Tensor]:
    while chunk := list(islice(rows, size)):
        yield torch.tensor(chunk, dtype=torch.long).view(len(chunk), count)
