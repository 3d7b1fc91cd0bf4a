"""Weights of concepts: thesis alg. 8, as non-negative least squares on the quadratic form."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from energycomp.inference import Solution
from energycomp.problem import Problem
from energycomp_solvers.configurations import dictionary
from energycomp_solvers.judge import errors_of, ranked_solution
from energycomp_solvers.subsets import subset_errors

__all__ = ["Weights", "nonnegative"]


@attrs.frozen
class Weights:
    """Fits a weight >= 0 for every value at once; an answer takes the values of greatest weight.

    The thesis follows gradients, one draw a step; the error is quadratic in the weights, so its minimum is a
    non-negative least-squares problem of M unknowns (Lawson and Hanson, 1974). Of a range of counts the one with the
    least error is taken. The runner-up has another count, or the last value exchanged for the next one.

    Args:
        draws: draws that the fit averages over; the problem's default.
        judge_draws: fresh draws that compare; as many.
    """

    needs: ClassVar[Literal["finite"]] = "finite"

    draws: int | None = None
    judge_draws: int | None = None

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        """Costs M + 1 rows for each draw of the fit, and at most 2 K + 1 for each that judges."""
        atoms, slots = dictionary(problem)
        draws = self.draws or problem.default_draws
        form = problem.quadratic(atoms, problem.draw(draws, generator))
        weights = nonnegative(form.b.mean(0), form.gram().mean(0))
        answers = [
            answer
            for count in range(problem.counts[0], problem.counts[1] + 1)
            if count or problem.has_empty
            for answer in _answers(problem, slots, weights, count)
        ]
        errors = [float(subset_errors(form, answer, problem.weighting).mean()) for answer in answers]
        ranked = sorted(zip(errors, answers, strict=True))[:2]
        judge = problem.draw(self.judge_draws or draws, generator)
        fresh = [errors_of(problem, atoms[answer], judge) for _, answer in ranked]
        return ranked_solution(problem, atoms, ranked, fresh, {"weights": weights.tolist()})


def nonnegative(b: Tensor, gram: Tensor) -> Tensor:
    """The weights w >= 0 that minimise w.G w - 2 b.w, (M,).

    >>> nonnegative(torch.tensor([1.0, -1.0]), torch.eye(2)).tolist()
    [1.0, 0.0]
    """
    from scipy.optimize import nnls

    if not len(b):
        return torch.zeros(0, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(gram.double().cpu())
    root = values.clamp(min=values.max() * 1e-12).sqrt()
    left = (vectors * root).T  # G = left.T left
    right = (vectors / root).T @ b.double().cpu()
    solved, _ = nnls(left.numpy(), right.numpy())
    return torch.from_numpy(solved)


def _answers(problem: Problem, slots: list[list[int]], weights: Tensor, count: int) -> list[list[int]]:
    """The atoms of greatest weight, and that answer with its least certain choice changed."""
    if problem.exchangeable:
        order = weights.argsort(descending=True, stable=True).tolist()
        best = order[:count]
        return [best, [*best[:-1], order[count]]] if 0 < count < len(order) else [best]
    ranked = [sorted(slot, key=lambda atom: -float(weights[atom])) for slot in slots[:count]]
    best = [slot[0] for slot in ranked]
    gaps = {k: float(weights[slot[0]] - weights[slot[1]]) for k, slot in enumerate(ranked) if len(slot) > 1}
    if not gaps:
        return [best]
    changed = min(gaps, key=gaps.__getitem__)
    return [best, [ranked[k][1] if k == changed else atom for k, atom in enumerate(best)]]
