"""Exhaustive search over finite values: thesis alg. 4, exact through the quadratic form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor
from tqdm import tqdm

from energycomp.errors import InputError
from energycomp.inference import NoiseBank, Problem, Solution, paired
from energycomp_solvers.attributes import all_errors, marginals, unravel
from energycomp_solvers.configurations import configurations, dictionary, number_of_configurations
from energycomp_solvers.judge import errors_of, ranked_solution

__all__ = ["Enumerate", "memberships"]

AT_ONCE = 8  # draws whose predictions are in memory
LEAST = 20  # draws before an early answer, half of them to select and half to judge


@attrs.frozen
class Enumerate:
    """Every configuration of every count is scored; the least error wins.

    The thesis runs M^K K rows a draw; here each of the M distinct values is one row a draw (and one for u), and a
    configuration is K^2 multiplications, or less: for attributes 2^20 answers are one product of matrices.

    Args:
        draws: draws that select; the problem's default.
        judge_draws: fresh draws that compare the best with the second best; as many.
        p_value: when given, draws are added 10 at a time, from 20 on, until the best answer's advantage over the second
            best has this p-value; twice `draws` at most. Each half of the draws judges what the other half selects.
        limit: the greatest number of configurations.
        chunk: configurations scored at a time.
    """

    needs: ClassVar[Literal["finite"]] = "finite"

    draws: int | None = None
    judge_draws: int | None = None
    p_value: float | None = None
    limit: int = 2**21
    chunk: int = 2**16

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        """Costs M + 1 rows for each draw that selects, and at most 2 K + 1 for each that judges.

        With `p_value` every draw does both and costs M + 1.
        """
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
        terms = Terms.of(problem, atoms, problem.draw(most, generator))
        ranked, probability = self._two_best(problem, terms, slots)
        judge = problem.draw(self.judge_draws or most, generator)
        fresh = [errors_of(problem, atoms[chosen], judge) for _, chosen in ranked]
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
        size = min(LEAST // 2, most)
        halves = [Terms.none(len(atoms)) for _ in range(2)]
        while True:
            halves = [half.cat(Terms.of(problem, atoms, problem.draw(size, generator))) for half in halves]
            selected = [self._two_best(problem, half, slots)[0] for half in halves]
            fresh, found = judged_by_halves(halves, selected, problem.weighting)
            size = min(LEAST // 4, most - len(halves[0]))
            if len(fresh) < 2 or size == 0 or found < (self.p_value or 0.0):
                break
        ranked, probability = self._two_best(problem, halves[0].cat(halves[1]), slots)
        solution = ranked_solution(problem, atoms, ranked, fresh, {"configurations": [float(total)]})
        return attrs.evolve(solution, probability=probability, p_value=found if len(fresh) == 2 else None)

    def _two_best(
        self, problem: Problem, terms: Terms, slots: list[list[int]]
    ) -> tuple[list[tuple[float, list[int]]], Tensor | None]:
        """Mean error and atoms of the best and the second-best configuration; posteriors of the best one's values."""
        b, gram, c = terms.b.mean(0), terms.gram.mean(0), float(terms.c.mean())
        low, high = problem.counts
        if low == high and not problem.exchangeable and len(slots) and len(set(chain(*slots))) == sum(map(len, slots)):
            return _of_attributes(all_errors(b, gram, c, slots, problem.weighting(high)), slots, problem.beta)
        best: list[tuple[float, list[int]]] = []
        seen: list[tuple[Tensor, Tensor]] = []
        for count in range(low, high + 1):
            w = problem.weighting(count)
            for chosen in _chunks(configurations(problem, slots, count), self.chunk, count):
                errors = c - 2 * w * b[chosen].sum(1)
                for i in range(count):
                    for j in range(i, count):
                        errors += (1 if i == j else 2) * w**2 * gram[chosen[:, i], chosen[:, j]]
                least = errors.topk(min(2, len(errors)), largest=False)
                rows = chosen[least.indices].tolist()
                best += [(float(e), row) for e, row in zip(least.values, rows, strict=True)]
                best = sorted(best)[:2]
                if problem.beta is not None and problem.exchangeable:
                    seen.append((chosen, errors))
        if not seen or problem.beta is None:
            return best, None
        return best, memberships(seen, len(b), problem.beta)[best[0][1]]


@attrs.frozen(eq=False)
class Terms:
    """What is left of a quadratic form once its atoms are not needed: b (S, M), gram (S, M, M) and c (S,)."""

    b: Tensor
    gram: Tensor
    c: Tensor

    @classmethod
    def none(cls, size: int) -> Terms:
        """Of no draw."""
        zeros = torch.zeros(0, size, dtype=torch.float64)
        return cls(zeros, zeros[:, None].expand(0, size, size), zeros[:, 0] if size else torch.zeros(0))

    @classmethod
    def of(cls, problem: Problem, atoms: Tensor, bank: NoiseBank) -> Terms:
        """Of all atoms under a bank, a few draws at a time. Costs M + 1 rows a draw; a bar shows what takes seconds."""
        terms = cls.none(len(atoms))
        with tqdm(total=len(bank), desc="draws", unit="draw", delay=2, leave=False) as bar:
            for start in range(0, len(bank), AT_ONCE):
                form = problem.quadratic(atoms, bank[start : start + AT_ONCE])
                terms = terms.cat(cls(form.b.cpu(), form.gram().cpu(), form.c.cpu()))
                bar.update(form.draws)
        return terms

    def cat(self, other: Terms) -> Terms:
        """The draws of both."""
        pairs = (self.b, other.b), (self.gram, other.gram), (self.c, other.c)
        return Terms(*(torch.cat(pair) for pair in pairs))

    def __len__(self) -> int:
        return len(self.c)

    def errors(self, chosen: list[int], weight: float) -> Tensor:
        """The error of some atoms for each draw, (S,)."""
        square = self.gram[:, chosen][:, :, chosen].sum((1, 2))
        return self.c - 2 * weight * self.b[:, chosen].sum(1) + weight**2 * square


def judged_by_halves(
    halves: Sequence[Terms], selected: Sequence[Sequence[tuple[float, list[int]]]], weighting: Callable[[int], float]
) -> tuple[list[Tensor], float]:
    """Each half of the draws judges the best and the second-best answer of the other half.

    An answer that is best on both halves is best on all draws, so no draw is spent on judging alone.

    Args:
        halves: two.
        selected: of each half, error and atoms of its best answer and of its second best, where there is one.
        weighting: of a component by the number of components.

    Returns:
        The errors (S,) of the best and of the second best over all draws; and the p-value of their paired difference,
        doubled because the halves have to agree (two answers that are equally good may be either one's), and 1 where
        they do not.
    """
    pairs = list(zip(halves, reversed(selected), strict=True))
    fresh = [
        torch.cat([half.errors(ranked[place][1], weighting(len(ranked[place][1]))) for half, ranked in pairs])
        for place in range(min(2, *map(len, selected)))
    ]
    if len(fresh) < 2 or selected[0][0][1] != selected[1][0][1]:
        return fresh, 1.0
    return fresh, min(1.0, 2 * paired(fresh[0], fresh[1])[2])


def memberships(seen: Sequence[tuple[Tensor, Tensor]], atoms: int, beta: float) -> Tensor:
    """The posterior probability (M,) of each atom to be in the answer, p = softmax(-beta J) over all answers.

    Args:
        seen: atoms (N, K) of answers, and their errors (N,); K of one group of answers may differ from another's.

    >>> memberships([(torch.tensor([[0], [1]]), torch.zeros(2)), (torch.tensor([[0, 1]]), torch.zeros(1))], 2, 1.0)
    tensor([0.6667, 0.6667])
    """
    posterior = torch.softmax(-beta * torch.cat([errors for _, errors in seen]), 0)
    total = posterior.new_zeros(atoms)
    for (chosen, _), share in zip(seen, posterior.split([len(errors) for _, errors in seen]), strict=True):
        total.index_add_(0, chosen.flatten(), share.repeat_interleave(chosen.shape[1]))
    return total


def _of_attributes(
    errors: Tensor, slots: list[list[int]], beta: float | None
) -> tuple[list[tuple[float, list[int]]], Tensor | None]:
    least = errors.topk(min(2, len(errors)), largest=False)
    best = [(float(e), unravel(int(index), slots)) for e, index in zip(least.values, least.indices, strict=True)]
    if beta is None:
        return best, None
    posteriors = marginals(errors, list(map(len, slots)), beta)
    places = [slot.index(atom) for slot, atom in zip(slots, best[0][1], strict=True)]
    return best, torch.stack([p[place] for p, place in zip(posteriors, places, strict=True)])


def _chunks(rows: Iterator[tuple[int, ...]], size: int, count: int) -> Iterator[Tensor]:
    while chunk := list(islice(rows, size)):
        yield torch.tensor(chunk, dtype=torch.long).view(len(chunk), count)
