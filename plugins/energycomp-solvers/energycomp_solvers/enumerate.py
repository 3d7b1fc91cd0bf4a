"""Exhaustive search over finite values (Algorithm 4 of Wang, 2026), exact through the quadratic form.

Costs M + 1 network evaluations per draw for M distinct values; the M^K configurations are arithmetic. Draws are added
until the answer is sure, and values that cannot be in it are dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, chain, islice
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.fields import number, whole
from energycomp.inference import Problem, QuadraticForm, Solution, paired
from energycomp.seeds import as_generator
from energycomp_solvers.shared.compare import compare_halves, errors_of, ranked_solution
from energycomp_solvers.shared.configurations import configurations, dictionary, number_of_configurations
from energycomp_solvers.shared.product_space import all_errors, marginals, unravel, with_prior
from energycomp_solvers.shared.sequential import nominal_level, sequential_p_value
from energycomp_solvers.shared.subsets import subset_errors
from energycomp_solvers.shared.terms import memberships, terms_of

LEAST = 8  # draws before an early answer, half of them to select and half to compare
RULED_OUT = 0.002  # posterior of all values together that may be dropped


@attrs.frozen(eq=False)
class _Ranking:
    """Mean error and atoms of the best and the second-best answer, and of the best one with each atom (M).

    The posterior (M,) is that of each atom to be in the answer.
    """

    best: list[tuple[float, list[int]]]
    with_each: list[tuple[float, list[int]]]
    posterior: Tensor | None = None


@attrs.frozen
class Enumerate:
    """Every configuration of every count is scored; the least error, with the prior, wins.

    Run directly, M^K configurations cost M^K K rows per draw; here each of the M distinct values is one row per draw,
    and one for u. A configuration is K^2 multiplications, or less: for attributes 2^20 answers are one matrix product.

    The number of draws doubles, from 8 on, until the best answer is significantly better than the second best. Each
    half of the draws compares what the other half selects. In between, values are dropped: those with which even the
    best answer is significantly worse (Hoeffding races, Maron and Moore, 1994, by the paired test), as long as the
    posteriors of all that are dropped add up to less than 0.002. Certainties are therefore those of all answers but for
    less than 0.002, on the draws that were made; `trace["draws"]` has their number.

    Args:
        draws: draws that select; the problem's default.
        fresh_draws: fresh draws that compare the best with the second best, as many as `draws`, where nothing stops
            early: without `p_value`, and whenever they are given.
        p_value: of the advantage over the second best, below which the search stops, and over the best answer with a
            value, below which it is dropped; twice `draws` at most. It is two-sided, since either of two equal answers
            may be the best, and corrected for all tests that are made while draws are added (Pocock, 1977), so that two
            equal answers have a p-value of at most a with probability a, for each a, wherever the solver stops. For
            values it is corrected for their number, too (Bonferroni). None: the number of draws is fixed.
        limit: the greatest number of configurations.
        chunk: configurations scored at a time. Where there are more, other than those of attributes, the number of
            draws is fixed, since scoring them is what takes time.

    >>> import torch
    >>> from energycomp import infer
    >>> from energycomp.testing import labels_model, planted
    >>> image = planted(labels_model(4), torch.tensor([1, 3]))[0] / 2 + 0.5
    >>> solution = infer(image, labels_model(4), solver=Enumerate())
    >>> solution.conditions.tolist(), solution.trace["configurations"]  # subsets of 0 to 3 of 4 labels
    ([1, 3], [15.0])
    """

    needs: ClassVar[Literal["finite"]] = "finite"

    draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))
    fresh_draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))
    p_value: float | None = attrs.field(default=0.01, validator=number(most=1, or_none=True))
    limit: int = attrs.field(default=2**21, validator=whole(1, 2**30))
    chunk: int = attrs.field(default=2**16, validator=whole(1, 2**30))

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs M + 1 rows for each draw, with the M values that are left.

        With a fixed number of draws these are those that select, and at most 2 K + 1 rows for each that compares.
        """
        generator = as_generator(generator)
        # The values that components may take, and how many answers they make
        atoms, slots = dictionary(problem)
        total = number_of_configurations(problem, slots)
        if total > self.limit:
            raise InputError(
                f"got {total:,} configurations for Enumerate; expected at most {self.limit:,}; use pursuit or beam, "
                "narrow count= or candidates=, or raise the limit"
            )
        most = self.draws or problem.default_draws
        trace = {"configurations": [float(total)]}
        # Draw until the best answer is sure
        stops = self.p_value is not None and self.fresh_draws is None
        if stops and (total <= self.chunk or _of_one_each(problem, slots)):
            return self._until_sure(problem, atoms, slots, most, trace, generator)
        # Or rank by a fixed number of draws, and compare the best two on others
        ranking = self._ranking(problem, terms_of(problem, atoms, problem.draw(most, generator)), slots)
        bank = problem.draw(self.fresh_draws or most, generator)
        fresh = [errors_of(problem, atoms[chosen], bank) for _, chosen in ranking.best]
        return _solution(problem, atoms, ranking, fresh, {**trace, "draws": [float(most + len(bank))]})

    def _until_sure(
        self,
        problem: Problem,
        atoms: Tensor,
        slots: list[list[int]],
        most: int,
        trace: dict[str, list[float]],
        generator: torch.Generator | None,
    ) -> Solution:
        sizes = _banks(most)
        dropped = 0.0
        level = self.p_value or 0.0
        # The level of each look, so that all looks together have that of one test
        looks = tuple(2 * draws for draws in accumulate(sizes))
        nominal = nominal_level(looks, level)
        halves = [QuadraticForm.empty(len(atoms)) for _ in range(2)]
        for place, size in enumerate(sizes):
            # More draws for both halves, each of which ranks all answers
            halves = [half.cat(terms_of(problem, atoms, problem.draw(size, generator))) for half in halves]
            rankings = [self._ranking(problem, half, slots) for half in halves]
            banks = sizes[: place + 1]
            # Compare the best answer of each half on the draws of the other
            fresh, judged, found = compare_halves(halves, [each.best for each in rankings], problem.weighting, banks)
            if len(fresh) < 2 or found < nominal or place + 1 == len(sizes):
                break
            # Drop the values that are beaten, so that further draws cost less
            kept, dropped = _kept(halves, rankings, banks, problem.weighting, nominal, dropped)
            atoms = atoms[kept]
            halves = [half.take(kept) for half in halves]
            slots = [[kept.index(k) for k in slot if k in kept] for slot in slots]
        # The answer of all draws
        ranking = self._ranking(problem, halves[0].cat(halves[1]), slots)
        trace |= {"draws": [2.0 * sum(banks)]}
        solution = _solution(problem, atoms, ranking, fresh, trace, [*banks, *banks], judged)
        p_value = sequential_p_value(looks, level, found) if len(fresh) == 2 else None
        return attrs.evolve(solution, p_value=p_value)

    def _ranking(self, problem: Problem, terms: QuadraticForm, slots: list[list[int]]) -> _Ranking:
        form = terms.mean()
        low, high = problem.counts
        # One value of each attribute: all errors are one tensor
        if _of_one_each(problem, slots):
            errors = with_prior(form, all_errors(form, slots, problem.weighting(high)), slots)
            answer = unravel(int(errors.argmin()), slots)
            return _of_attributes(errors, slots, problem, _inverse_temperature(problem, form, answer))
        # Otherwise answers of each count, a chunk at a time
        best: list[tuple[float, list[int]]] = []
        with_each: list[tuple[float, list[int]]] = [(math.inf, [])] * len(form)
        seen: list[tuple[Tensor, Tensor]] = []
        for count in range(low, high + 1):
            for chosen in _chunks(configurations(problem, slots, count), self.chunk, count):
                errors = form.with_prior(form.errors_of_each(chosen, problem.weighting(count))[0], chosen)
                least = errors.topk(min(2, len(errors)), largest=False)
                rows = chosen[least.indices].tolist()
                # Keep the best two, and the best with each value
                best += [(float(e), row) for e, row in zip(least.values, rows, strict=True)]
                best = sorted(best)[:2]
                with_each = list(map(min, with_each, _best_with_each(errors, chosen, len(form))))
                # Keep all energies, for the posterior of each value
                if problem.beta is not None and problem.exchangeable:
                    seen.append((chosen, problem.energies(errors)))
        beta = _inverse_temperature(problem, form, best[0][1]) if seen else None
        if beta is None:
            return _Ranking(best, with_each)
        return _Ranking(best, with_each, memberships(seen, len(form), beta))


def _inverse_temperature(problem: Problem, form: QuadraticForm, answer: Sequence[int]) -> float | None:
    """The beta of an image, by how much its best answer explains: without what a prior adds to the error."""
    return problem.inverse_temperature(float(form.errors(answer, problem.weighting(len(answer)))), float(form.c))


def _of_one_each(problem: Problem, slots: list[list[int]]) -> bool:
    """Whether answers have one value of each of several attributes."""
    low, high = problem.counts
    apart = len(set(chain(*slots))) == sum(map(len, slots))
    return low == high and not problem.exchangeable and len(slots) > 0 and apart


def _best_with_each(errors: Tensor, chosen: Tensor, atoms: int) -> list[tuple[float, list[int]]]:
    """The least of some errors (N,) with each of M atoms, and its answer, of answers (N, K)."""
    owner = torch.arange(len(chosen)).repeat_interleave(chosen.shape[1])
    least = errors.new_full((atoms,), math.inf).scatter_reduce(0, chosen.flatten(), errors[owner], "amin")
    found = list[tuple[float, list[int]]]()
    for k, error in enumerate(least.tolist()):
        tied = chosen[errors == error].tolist()
        found.append((error, next((row for row in tied if k in row), [])))
    return found


def _of_attributes(errors: Tensor, slots: list[list[int]], problem: Problem, beta: float | None) -> _Ranking:
    least = errors.topk(min(2, len(errors)), largest=False)
    best = [(float(e), unravel(int(index), slots)) for e, index in zip(least.values, least.indices, strict=True)]
    # The best answer with each value: the least over the other attributes
    order = list(chain(*slots))
    with_each = dict[int, tuple[float, list[int]]]()
    after = len(errors)
    for slot in slots:
        before = len(errors) // after
        after //= len(slot)
        each = errors.view(before, len(slot), after).transpose(0, 1).flatten(1)
        for place, (error, index) in enumerate(zip(*map(Tensor.tolist, each.min(1)), strict=True)):
            # The place of that answer among all
            choice = (index // after * len(slot) + place) * after + index % after
            with_each[slot[place]] = (error, unravel(choice, slots))
    # The marginal posterior of each value
    posterior = None
    if beta is not None:
        found = torch.cat(marginals(problem.energies(errors), list(map(len, slots)), beta))
        posterior = found[torch.tensor(order).argsort()]
    return _Ranking(best, [with_each[k] for k in sorted(order)], posterior)


def _banks(most: int) -> list[int]:
    """How many draws are added to each half, one bank after another: as many as there are, `most` in all."""
    banks: list[int] = []
    while (left := most - sum(banks)) > 0:
        bank = max(LEAST // 2, sum(banks))
        banks.append(left if left <= bank + 1 else bank)  # a bank of one draw would have no standard error
    return banks


def _kept(
    halves: Sequence[QuadraticForm],
    rankings: Sequence[_Ranking],
    banks: Sequence[int],
    weighting: Callable[[int], float],
    p_value: float,
    dropped: float,
) -> tuple[list[int], float]:
    """The atoms that stay, and the posterior of all that do not, `dropped` before: the least likely go first.

    Atoms of the best and second-best answers stay, and those that are not beaten.
    """
    # The best answers stay
    kept = {k for ranking in rankings for _, chosen in ranking.best for k in chosen}
    atoms = len(halves[0])
    pairs = list(zip(halves, reversed(rankings), strict=True))
    known = [ranking.posterior for ranking in rankings if ranking.posterior is not None]
    posterior = torch.stack(known).amax(0) if known else torch.zeros(atoms)

    def judged(answer: Callable[[_Ranking], list[int]]) -> Tensor:
        return torch.cat([subset_errors(half, answer(ranking), weighting) for half, ranking in pairs])

    # Judge each half's choice by the other half
    best = judged(lambda ranking: ranking.best[0][1])
    for k in posterior.argsort().tolist():
        if k in kept:
            continue
        # Drop a value whose best answer is beaten, while the posterior of all that is dropped is small
        others = judged(lambda ranking, k=k: ranking.with_each[k][1])  # type: ignore[misc]
        unlikely = dropped + float(posterior[k]) < RULED_OUT
        if unlikely and atoms * paired(best, others, [*banks, *banks])[2] < p_value:
            dropped += float(posterior[k])
        else:
            kept.add(k)
    return sorted(kept), dropped


def _solution(
    problem: Problem,
    atoms: Tensor,
    ranking: _Ranking,
    fresh: list[Tensor],
    trace: dict[str, list[float]],
    banks: list[int] | None = None,
    judged: list[Tensor] | None = None,
) -> Solution:
    solution = ranked_solution(problem, atoms, ranking.best, fresh, trace, banks, judged)
    posterior = ranking.posterior
    return attrs.evolve(solution, probability=None if posterior is None else posterior[ranking.best[0][1]])


def _chunks(rows: Iterator[tuple[int, ...]], size: int, count: int) -> Iterator[Tensor]:
    while chunk := list(islice(rows, size)):
        yield torch.tensor(chunk, dtype=torch.long).view(len(chunk), count)
