"""How an answer is compared with its runner-up: on draws that selected neither."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from energycomp.inference import NoiseBank, Problem, QuadraticForm, Solution, paired
from energycomp_solvers.shared.subsets import subset_errors

__all__ = ["compare_halves", "compared", "errors_of", "ranked_solution"]


def compared(
    problem: Problem, values: Tensor, spare: Tensor, bank: NoiseBank, trace: Mapping[str, Sequence[float]]
) -> Solution:
    """The solution of `values` (K, *V), with the best rival among: one fewer, one swapped or one more by a spare.

    Args:
        spare: other values (M, *V) that the search thought worth a look.
        bank: fresh draws; fewer than 4 compare nothing.

    Returns:
        The solution. Costs K + M rows per draw, and one for u under the product rule.
    """
    count, weighting = len(values), problem.weighting
    atoms = torch.cat([values, spare])
    form = problem.quadratic(atoms, bank)
    chosen = list(range(count))
    errors = subset_errors(form, chosen, weighting)
    rivals = [[c for c in chosen if c != drop] for drop in chosen] if count > problem.counts[0] else []
    for extra in range(count, len(form)):
        rivals += [[*chosen, extra]] if count < problem.counts[1] else []
        rivals += [[extra if c == drop else c for c in chosen] for drop in chosen]
    rivals = [rival for rival in rivals if rival or problem.has_empty]
    gain = torch.stack(
        [subset_errors(form, [c for c in chosen if c != k], weighting).mean() - errors.mean() for k in chosen]
    ) if count and (problem.has_empty or count > 1) else None  # fmt: skip
    best: Tensor | None = None
    gap: tuple[float | None, float | None, float | None] = (None, None, None)
    if rivals and len(bank) >= 4:
        scores = [subset_errors(form, rival, weighting) for rival in rivals]
        least = min(range(len(rivals)), key=lambda k: float(scores[k][::2].mean()))  # half of the draws choose it,
        best, gap = atoms[rivals[least]], paired(errors[1::2], scores[least][1::2])  # the others compare
    return Solution(
        conditions=values,
        count=count,
        error=float(errors.mean()),
        stderr=float(errors.std() / len(errors) ** 0.5) if len(errors) > 1 else float("inf"),
        rows=problem.rows,
        runner_up=best,
        difference=gap[0],
        difference_stderr=gap[1],
        p_value=gap[2],
        trace=trace,
        component_gain=gain,
    )


@torch.no_grad()
def errors_of(problem: Problem, values: Tensor, bank: NoiseBank) -> Tensor:
    """The error of values (K, *V) for each draw, (S,). Costs K rows per draw, and one for u under the product rule."""
    return problem.errors(values[None], bank)[0]


def ranked_solution(
    problem: Problem,
    atoms: Tensor,
    ranked: Sequence[tuple[float, Sequence[int]]],
    fresh: Sequence[Tensor],
    trace: Mapping[str, Sequence[float]],
) -> Solution:
    """The first of one or two ranked configurations, compared on fresh draws.

    Args:
        ranked: error on the draws that selected, and the atoms.
        fresh: errors (S,) of each on draws that did not.
    """
    values = atoms[list(ranked[0][1])]
    gap = paired(fresh[0], fresh[1]) if len(fresh) > 1 else (None, None, None)
    return Solution(
        conditions=values,
        count=len(values),
        error=float(fresh[0].mean()),
        stderr=float(fresh[0].std() / len(fresh[0]) ** 0.5) if len(fresh[0]) > 1 else float("inf"),
        rows=problem.rows,
        runner_up=atoms[list(ranked[1][1])] if len(ranked) > 1 else None,
        difference=gap[0],
        difference_stderr=gap[1],
        p_value=gap[2],
        trace={"error": [error for error, _ in ranked], **trace},
    )


def compare_halves(
    halves: Sequence[QuadraticForm],
    selected: Sequence[Sequence[tuple[float, list[int]]]],
    weighting: Callable[[int], float],
) -> tuple[list[Tensor], float]:
    """Each half of the draws compares the best and the second-best answer that the other half selected.

    An answer that is best on both halves is best on all draws, so no draw is spent on the comparison alone.

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
