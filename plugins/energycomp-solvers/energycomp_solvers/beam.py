"""Beam search over finite values: slot after slot, the best few partial answers are kept (thesis 5.6.1)."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from energycomp.inference import Problem, Solution
from energycomp_solvers.configurations import dictionary
from energycomp_solvers.judge import errors_of, ranked_solution

__all__ = ["Beam"]


@attrs.frozen
class Beam:
    """Extends the `width` best partial answers by every value of the next slot.

    A partial answer is a composition as well, so its error is known from the quadratic form: no rows but those of the
    form, and K width M scores in place of M^K.

    Args:
        width: partial answers that are kept.
        draws: draws that select; the problem's default.
        judge_draws: fresh draws that compare the best with the second best; as many.
    """

    needs: ClassVar[Literal["finite"]] = "finite"

    width: int = attrs.field(default=16, validator=attrs.validators.ge(1))
    draws: int | None = None
    judge_draws: int | None = None

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        """Costs M + 1 rows for each draw that selects, and at most 2 K + 1 for each that judges."""
        atoms, slots = dictionary(problem)
        draws = self.draws or problem.default_draws
        form = problem.quadratic(atoms, problem.draw(draws, generator))
        b, gram, c = form.b.mean(0).cpu(), form.gram().mean(0).cpu(), float(form.c.mean())
        beams, ranked = [_Beam((), 0.0, 0.0)], []
        for count in range(problem.counts[1] + 1):
            weight = problem.weighting(count)
            if count:
                beams = _extended(problem, beams, slots[count - 1], b, gram)
                beams = sorted(beams, key=lambda beam: beam.error(weight))[: max(self.width, 2)]
            if count >= problem.counts[0] and (count or problem.has_empty):
                ranked += [(c + beam.error(weight), beam.chosen) for beam in beams]
        ranked = sorted(ranked)[:2]
        judge = problem.draw(self.judge_draws or draws, generator)
        fresh = [errors_of(problem, atoms[list(chosen)], judge) for _, chosen in ranked]
        return ranked_solution(problem, atoms, ranked, fresh, {})


@attrs.frozen
class _Beam:
    """Some atoms with sum_i b_i and sum_ij G_ij over them."""

    chosen: tuple[int, ...]
    b: float
    square: float

    def error(self, weight: float) -> float:
        """J - c."""
        return weight**2 * self.square - 2 * weight * self.b


def _extended(problem: Problem, beams: list[_Beam], slot: list[int], b: Tensor, gram: Tensor) -> list[_Beam]:
    """Every beam with every atom of a slot; each set of atoms once where the order of slots has no meaning."""
    found: dict[tuple[int, ...], _Beam] = {}
    for beam in beams:
        for atom in slot:
            if problem.distinct and atom in beam.chosen:
                continue
            chosen = (*beam.chosen, atom)
            key = tuple(sorted(chosen)) if problem.exchangeable else chosen
            if key not in found:
                cross = float(gram[atom, list(beam.chosen)].sum())
                square = beam.square + float(gram[atom, atom]) + 2 * cross
                found[key] = _Beam(chosen, beam.b + float(b[atom]), square)
    return list(found.values())
