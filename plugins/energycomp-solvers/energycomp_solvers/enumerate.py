"""Exhaustive search over finite values: thesis alg. 4, exact through the quadratic form."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference import Solution, paired
from energycomp.noise import NoiseBank
from energycomp.objective import QuadraticForm
from energycomp.problem import Problem
from energycomp_solvers.configurations import configurations, number_of_configurations

__all__ = ["Enumerate"]


@attrs.frozen
class Enumerate:
    """Every configuration of every count is scored; the least error wins.

    The thesis runs M^K K rows a draw; here each of the M distinct values is one row a draw (and one for u), and a
    configuration is K^2 multiplications.

    Args:
        draws: draws that select; the problem's default.
        judge_draws: fresh draws that compare the best with the second best; as many.
        limit: the greatest number of configurations.
        chunk: configurations scored at a time.
    """

    needs: ClassVar[Literal["finite"]] = "finite"

    draws: int | None = None
    judge_draws: int | None = None
    limit: int = 2**21
    chunk: int = 2**16

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        """Costs M + 1 rows for each draw, selecting, and at most 2 K + 1 judging."""
        atoms, slots = _dictionary(problem)
        total = number_of_configurations(problem, slots)
        if total > self.limit:
            raise InputError(
                f"got {total:,} configurations for Enumerate; expected at most {self.limit:,}; use pursuit or beam, "
                "narrow count= or candidates=, or raise the limit"
            )
        bank = problem.draw(self.draws or problem.default_draws, generator)
        form = problem.quadratic(atoms, bank)
        ranked = self._two_best(problem, form, slots)
        judge = problem.draw(self.judge_draws or len(bank), generator)
        fresh = [_error(problem, atoms[list(chosen)], judge) for _, chosen in ranked]
        gap = paired(fresh[0], fresh[1]) if len(fresh) > 1 else (None, None, None)
        values = atoms[list(ranked[0][1])]
        return Solution(
            conditions=values,
            count=len(values),
            error=float(fresh[0].mean()),
            stderr=float(fresh[0].std() / len(judge) ** 0.5) if len(judge) > 1 else float("inf"),
            rows=problem.rows,
            runner_up=atoms[list(ranked[1][1])] if len(ranked) > 1 else None,
            difference=gap[0],
            difference_stderr=gap[1],
            p_value=gap[2],
            trace={"error": [error for error, _ in ranked], "configurations": [float(total)]},
        )

    def _two_best(
        self, problem: Problem, form: QuadraticForm, slots: list[list[int]]
    ) -> list[tuple[float, tuple[int, ...]]]:
        """Mean selection error and atoms of the best and the second-best configuration."""
        b, gram, c = form.b.mean(0), form.gram().mean(0), float(form.c.mean())
        best: list[tuple[float, tuple[int, ...]]] = []
        for count in range(problem.counts[0], problem.counts[1] + 1):
            w = problem.weighting(count)
            for chosen in _chunks(configurations(problem, slots, count), self.chunk, count):
                errors = c - 2 * w * b[chosen].sum(1)
                for i in range(count):
                    for j in range(i, count):
                        errors += (1 if i == j else 2) * w**2 * gram[chosen[:, i], chosen[:, j]]
                least = errors.topk(min(2, len(errors)), largest=False)
                rows = chosen[least.indices].tolist()
                best += [(float(e), tuple(row)) for e, row in zip(least.values, rows, strict=True)]
                best = sorted(best)[:2]
        return best


def _dictionary(problem: Problem) -> tuple[Tensor, list[list[int]]]:
    """Distinct values (M, *V) over all slots, and the indices that each slot may take."""
    listed = [slot.candidates for slot in problem.slots if slot.candidates is not None]
    if not listed:
        return torch.empty(0, *problem.value_shape, device=problem.device), []
    atoms, index = torch.unique(torch.cat(listed), dim=0, return_inverse=True)
    parts = index.split([len(values) for values in listed])
    return atoms, [part.tolist() for part in parts]


def _chunks(rows: Iterator[tuple[int, ...]], size: int, count: int) -> Iterator[Tensor]:
    while chunk := list(islice(rows, size)):
        yield torch.tensor(chunk, dtype=torch.long).view(len(chunk), count)


def _error(problem: Problem, values: Tensor, bank: NoiseBank) -> Tensor:
    with torch.no_grad():
        return problem.errors(values[None], bank)[0]
