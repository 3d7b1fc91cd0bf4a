"""Exhaustive search over finite values (Algorithm 4 of Wang, 2026), exact through the quadratic form.

Costs M + 1 network evaluations per draw for M distinct values; the M^K configurations are arithmetic. Draws are added
until the answer is sure, and values that cannot be in it are dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.fields import number, whole
from energycomp.inference import Problem, QuadraticForm, Solution, paired
from energycomp.seeds import as_generator
from energycomp_solvers.search.ranked import compare_halves, compare_ranked, ranked_solution
from energycomp_solvers.shared.answers import Answers, Ranking, terms_of
from energycomp_solvers.shared.sequential import nominal_level, sequential_p_value

LEAST = 8  # draws before an early answer, half of them to select and half to compare
RULED_OUT = 0.002  # posterior of all values together that may be dropped


@attrs.frozen
class Enumerate:
    """Every configuration of every count is scored; the least error, with the prior, wins.

    The number of draws doubles, from 8 on, until the best answer is significantly better than the second best. Each
    half of the draws compares what the other half selects. In between, values are dropped with which even the best
    answer is significantly worse (Hoeffding races, Maron and Moore, 1994, by the paired test), as long as the
    posteriors of all that are dropped add up to less than 0.002. `trace["draws"]` has the number of draws that were
    made.

    Args:
        draws: draws that select; the problem's default.
        fresh_draws: fresh draws that compare the best with the second best, as many as `draws`, where nothing stops
            early: without `p_value`, and whenever they are given.
        p_value: of the advantage over the second best, below which the search stops, and over the best answer with a
            value, below which it is dropped; twice `draws` at most. It is two-sided and corrected for all tests that
            are made while draws are added (Pocock, 1977), for values also for their number (Bonferroni): two equal
            answers have a p-value of at most a with probability a, for each a. None: the number of draws is fixed.
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
        answers = Answers.of(problem, self.chunk)
        total = answers.number
        if total > self.limit:
            raise InputError(
                f"got {total:,} configurations for Enumerate; expected at most {self.limit:,}; use pursuit or beam, "
                "narrow count= or candidates=, or raise the limit"
            )
        most = self.draws or problem.default_draws
        trace = {"configurations": [float(total)]}
        # Draw until the best answer is sure
        stops = self.p_value is not None and self.fresh_draws is None
        if stops and (total <= self.chunk or answers.is_product):
            return self._draw_until_sure(answers, most, trace, generator)
        # Or rank by a fixed number of draws, and compare the best two on others
        ranking = answers.rank(terms_of(problem, answers.atoms, problem.draw(most, generator)))
        bank = problem.draw(self.fresh_draws or most, generator)
        trace["draws"] = [float(most + len(bank))]
        return ranking.describe(compare_ranked(problem, answers.atoms, ranking.best, bank, trace))

    def _draw_until_sure(
        self, answers: Answers, most: int, trace: dict[str, list[float]], generator: torch.Generator | None
    ) -> Solution:
        problem = answers.problem
        sizes = _split_draws(most)
        dropped = 0.0
        level = self.p_value or 0.0
        # The level of each look, so that all looks together have that of one test
        looks = tuple(2 * draws for draws in accumulate(sizes))
        nominal = nominal_level(looks, level)
        halves = [QuadraticForm.empty(len(answers.atoms)) for _ in range(2)]
        for place, size in enumerate(sizes):
            # More draws for both halves, each of which ranks all answers
            halves = [half.cat(terms_of(problem, answers.atoms, problem.draw(size, generator))) for half in halves]
            rankings = [answers.rank(half) for half in halves]
            banks = sizes[: place + 1]
            # Compare the best answer of each half on the draws of the other
            fresh, with_prior, p_value = compare_halves(halves, [r.best for r in rankings], banks)
            if len(fresh) < 2 or p_value < nominal or place + 1 == len(sizes):
                break
            # Drop the values that are beaten, so that further draws cost less
            kept, dropped = _keep(halves, rankings, banks, nominal, dropped)
            answers = answers.take(kept)
            halves = [half.take(kept) for half in halves]
        # The answer of all draws
        ranking = answers.rank(halves[0].cat(halves[1]))
        trace |= {"draws": [2.0 * sum(banks)]}
        both = [*banks, *banks]
        solution = ranking.describe(
            ranked_solution(problem, answers.atoms, ranking.best, fresh, trace, both, with_prior)
        )
        return attrs.evolve(solution, p_value=sequential_p_value(looks, level, p_value) if len(fresh) == 2 else None)


def _split_draws(most: int) -> list[int]:
    """How many draws are added to each half, one bank after another: as many as there are, `most` in all."""
    banks: list[int] = []
    while (left := most - sum(banks)) > 0:
        bank = max(LEAST // 2, sum(banks))
        banks.append(left if left <= bank + 1 else bank)  # a bank of one draw would have no standard error
    return banks


def _keep(
    halves: Sequence[QuadraticForm],
    rankings: Sequence[Ranking],
    banks: Sequence[int],
    p_value: float,
    dropped: float,
) -> tuple[list[int], float]:
    """The atoms that stay, and the posterior of all that do not, `dropped` before: the least likely go first."""
    kept = {k for ranking in rankings for _, chosen in ranking.best[:2] for k in chosen}
    atoms = len(halves[0])
    pairs = list(zip(halves, reversed(rankings), strict=True))
    known = [ranking.posterior for ranking in rankings if ranking.posterior is not None]
    posterior = torch.stack(known).amax(0) if known else torch.zeros(atoms)

    # Each half compares what the other one chose
    def errors(answer: Callable[[Ranking], Sequence[int]]) -> Tensor:
        return torch.cat([half.objective(answer(ranking)) for half, ranking in pairs])

    best = errors(lambda ranking: ranking.best[0][1])
    for k in posterior.argsort().tolist():
        if k in kept:
            continue
        # Drop a value whose best answer is beaten, while the posterior of all that is dropped is small
        others = errors(lambda ranking, k=k: ranking.with_each[k][1])  # type: ignore[misc]
        is_unlikely = dropped + float(posterior[k]) < RULED_OUT
        if is_unlikely and atoms * paired(best, others, [*banks, *banks])[2] < p_value:
            dropped += float(posterior[k])
        else:
            kept.add(k)
    return sorted(kept), dropped
