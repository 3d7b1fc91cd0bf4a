"""Answers among listed values, ranked by a quadratic form over all of them, and compared on draws of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from energycomp.inference import (
    Alternative,
    NoiseBank,
    Problem,
    QuadraticForm,
    Solution,
    as_normal,
    paired,
    standard_error,
)

ALTERNATIVES = 16  # that a solution keeps
Ranked = Sequence[tuple[float, Sequence[int]]]
"""The error of answers on the draws that selected, with the prior, and their atoms, the best first."""


def compare_ranked(
    problem: Problem,
    atoms: Tensor,
    ranked: Ranked,
    bank: NoiseBank,
    trace: Mapping[str, Sequence[float]],
) -> Solution:
    """The first of some ranked answers, compared with the second one on fresh draws."""
    with torch.no_grad():
        fresh = [problem.errors(atoms[list(chosen)][None], bank)[0] for _, chosen in ranked[:2]]
    return ranked_solution(problem, atoms, ranked, fresh, trace)


def ranked_solution(
    problem: Problem,
    atoms: Tensor,
    ranked: Ranked,
    fresh: Sequence[Tensor],
    trace: Mapping[str, Sequence[float]],
    banks: Sequence[int] | None = None,
    compared: Sequence[Tensor] | None = None,
) -> Solution:
    """The solution of ranked answers, of which the first two were compared.

    Args:
        fresh: errors (S,) of the first two, or of the only one, on draws that did not select them.
        banks: the number of draws of each bank of these, one bank if left out.
        compared: the errors `fresh` with the prior, where they are not those of the ranked answers on all draws.
    """
    values = [atoms[list(chosen)] for _, chosen in ranked]
    if compared is None:
        pairs = zip(fresh, values, strict=False)
        compared = [problem.with_prior(errors[None], own[None])[0] for errors, own in pairs]
    # A paired test of the best two
    difference = stderr = p_value = None
    if len(compared) > 1:
        difference, stderr, p_value = paired(compared[0], compared[1], banks)
    least = ranked[0][0]
    behind = [problem.posterior.gap(least, error - least) for error, _ in ranked]
    return Solution(
        conditions=values[0],
        count=len(values[0]),
        error=float(fresh[0].mean()),
        stderr=as_normal(*standard_error(fresh[0], banks)),
        rows=problem.rows,
        runner_up=values[1] if len(values) > 1 else None,
        difference=difference,
        difference_stderr=stderr,
        p_value=p_value,
        trace={"error": [error for error, _ in ranked[:2]], **trace},
        alternatives=tuple(Alternative(own, nats) for own, nats in zip(values[1:], behind[1:], strict=True)),
    )


def compare_halves(
    halves: Sequence[QuadraticForm],
    ranked: Sequence[Ranked],
    banks: Sequence[int],
) -> tuple[list[Tensor], list[Tensor], float]:
    """Each half of the draws compares the best and the second-best answer that the other half selected.

    An answer that is best on both halves is best on all draws, so no draw is spent on the comparison alone.

    Returns:
        The errors (S,) of the best and of the second best over all draws, without and with the prior; and the p-value
        of their paired difference, doubled because the halves have to agree, and 1 where they do not.
    """
    # Cross-fitting: each half compares what the other half selected
    pairs = list(zip(halves, reversed(ranked), strict=True))
    fresh: list[Tensor] = []
    with_prior: list[Tensor] = []
    for place in range(min(2, *map(len, ranked))):
        chosen = [(half, answers[place][1]) for half, answers in pairs]
        fresh.append(torch.cat([half.errors(atoms) for half, atoms in chosen]))
        with_prior.append(torch.cat([half.objective(atoms) for half, atoms in chosen]))
    # Halves that do not agree decide nothing
    if len(fresh) < 2 or list(ranked[0][0][1]) != list(ranked[1][0][1]):
        return fresh, with_prior, 1.0
    # The paired test of both halves together, doubled since the halves had to agree
    return fresh, with_prior, min(1.0, 2 * paired(with_prior[0], with_prior[1], [*banks, *banks])[2])
