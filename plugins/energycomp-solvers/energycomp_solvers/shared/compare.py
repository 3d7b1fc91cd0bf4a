"""How an answer is compared with its runner-up: on draws that selected neither."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from energycomp.inference import (
    WORTH,
    NoiseBank,
    ObjectWords,
    Problem,
    QuadraticForm,
    Solution,
    as_normal,
    paired,
    standard_error,
)
from energycomp_solvers.shared.subsets import subset_errors

Gap: TypeAlias = tuple[float | None, float | None, float | None]

NO_GAP: Gap = (None, None, None)


@attrs.frozen(eq=False)
class Worded:
    """A component of an answer with another word.

    Args:
        component: which one.
        value: (V,), with another word.
        behind: by how many nats it is worse, or by which error without an inverse temperature.
    """

    component: int
    value: Tensor
    behind: float


def compared(
    problem: Problem,
    values: Tensor,
    spare: Tensor,
    draws: int,
    trace: Mapping[str, Sequence[float]],
    generator: torch.Generator | None,
    chooses: QuadraticForm | None = None,
    worded: Worded | None = None,
) -> Solution:
    """The solution of `values` (K, *V), with the best rival among: one fewer, one swapped or one more by a spare, or
    one with another word.

    With a prior the rival is chosen and compared by the posterior; error and gains are those of the image alone.
    Independent draws choose the rival and compare it. Costs K + M rows per draw that chooses and at most K + 1 per draw
    that compares, and one for u under the product rule.

    Args:
        spare: other values (M, *V) that the search thought worth a look.
        draws: fresh draws; fewer than 4 compare nothing.
        chooses: the form over `values`, or values close to them, and `spare` on draws that chooses the rival. Without
            it, half of the draws choose.
        worded: one of `values` with another word.
    """
    # Draws: half choose the rival, unless others did, and half compare
    atoms = torch.cat([values, spare])
    count = len(values)
    weighting = problem.weighting
    forms: list[QuadraticForm] = []
    sizes = [draws] if chooses is not None or draws < 4 else [draws // 2, draws - draws // 2]
    if len(sizes) == 2:
        forms = [problem.quadratic(atoms, problem.draw(sizes[0], generator))]
    # Choose the rival: the best answer that differs by one component, or by a word of one
    chosen = list(range(count))
    rival: list[int] | None = None
    if forms or chooses is not None:
        atoms, rival = _rival(problem, atoms, count, forms[0] if chooses is None else chooses, worded)
    # Compare: a paired test on draws of their own
    used = [*chosen, *(k for k in rival or () if k >= count)]
    compares = problem.quadratic(atoms[used], problem.draw(sizes[-1], generator))
    forms.append(compares)
    gap = NO_GAP
    if rival is not None:
        answer = subset_errors(compares, chosen, weighting)
        gap = paired(answer, subset_errors(compares, [used.index(k) for k in rival], weighting))

    # Error and gains of the image alone, over all draws
    def errors(indices: list[int]) -> Tensor:
        return torch.cat([form.errors(indices, weighting(len(indices))) for form in forms])

    total = errors(chosen)
    # Gain of a component: how much the error rises without it
    gain = None
    if count and (problem.has_empty or count > 1):
        gain = torch.stack([errors([c for c in chosen if c != k]).mean() - total.mean() for k in chosen])
    return Solution(
        conditions=values,
        count=count,
        error=float(total.mean()),
        stderr=as_normal(*standard_error(total, sizes)),
        rows=problem.rows,
        runner_up=None if rival is None else atoms[rival],
        difference=gap[0],
        difference_stderr=gap[1],
        p_value=gap[2],
        trace=trace,
        component_gain=gain,
        form=compares.take(range(count)),
    )


def _rival(
    problem: Problem, atoms: Tensor, count: int, form: QuadraticForm, worded: Worded | None
) -> tuple[Tensor, list[int] | None]:
    """The best other answer as indices of atoms, and these, to which a component with another word may be added.

    Args:
        atoms: the answer, and other values.
        count: of the components of the answer.
        form: over atoms, on the draws that choose the rival.
        worded: a component with another word.
    """
    # One component fewer, one more, or another one
    chosen = list(range(count))
    rivals = _rivals(problem, chosen, range(count, len(atoms)))
    errors = [float(subset_errors(form, indices, problem.weighting).mean()) for indices in [chosen, *rivals]]
    rival = None
    lead = math.inf
    if rivals:
        least = min(range(len(rivals)), key=errors[1:].__getitem__)
        rival = rivals[least]
        lead = problem.gap(errors[0], errors[1 + least] - errors[0])
        if problem.beta is not None:
            lead += WORTH * (len(rival) - count)  # each component more says its place, which costs this

    # The same ones, but for a word
    if worded is None or worded.behind >= lead:
        return atoms, rival
    return torch.cat([atoms, worded.value[None]]), [len(atoms) if k == worded.component else k for k in chosen]


def next_word(problem: Problem, words: ObjectWords) -> Worded | None:
    """The component whose word is least certain, with the next best one. None where nothing is known of words."""
    if problem.mixed is None:
        return None
    found: list[tuple[float, int, int, int]] = []
    for attribute, errors in enumerate(words.errors):
        for component in (words.drawn > 0).nonzero()[:, 0].tolist():
            best, *others = errors[component].argsort().tolist()
            if others:
                error, other = errors[component, [best, others[0]]].tolist()
                found.append((problem.gap(error, other - error), component, attribute, others[0]))
    if not found:
        return None
    behind, component, attribute, word = min(found)
    return Worded(component, problem.mixed.worded(words.values[component], attribute, word), behind)


def _rivals(problem: Problem, chosen: list[int], spare: Sequence[int]) -> list[list[int]]:
    """Every answer with one atom fewer, one exchanged for a spare, or a spare more, within the range of counts."""
    # One component fewer
    low, high = problem.counts
    rivals = [[c for c in chosen if c != drop] for drop in chosen] if len(chosen) > low else []
    # One more, or one exchanged
    for extra in spare:
        rivals += [[*chosen, extra]] if len(chosen) < high else []
        rivals += [[extra if c == drop else c for c in chosen] for drop in chosen]
    return [rival for rival in rivals if rival or problem.has_empty]


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
    banks: Sequence[int] | None = None,
    judged: Sequence[Tensor] | None = None,
) -> Solution:
    """The first of one or two ranked configurations, compared on fresh draws.

    Args:
        ranked: error on the draws that selected, with the prior, and the atoms.
        fresh: errors (S,) of each on draws that did not.
        banks: the number of draws of each bank of these, one bank if left out.
        judged: the errors `fresh` with the prior, where they are not those of the ranked configurations on all draws.
    """
    # Judge: the errors of the fresh draws, with the prior
    values = atoms[list(ranked[0][1])]
    if judged is None:
        judged = [
            problem.with_prior(one[None], atoms[list(c)][None])[0] for one, (_, c) in zip(fresh, ranked, strict=False)
        ]
    # A paired test of the best two
    gap: Gap = paired(judged[0], judged[1], banks) if len(fresh) > 1 else NO_GAP
    return Solution(
        conditions=values,
        count=len(values),
        error=float(fresh[0].mean()),
        stderr=as_normal(*standard_error(fresh[0], banks)),
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
    banks: Sequence[int],
) -> tuple[list[Tensor], list[Tensor], float]:
    """Each half of the draws compares the best and the second-best answer that the other half selected.

    An answer that is best on both halves is best on all draws, so no draw is spent on the comparison alone.

    Args:
        halves: two.
        selected: of each half, error and atoms of its best answer and of its second best, where there is one.
        weighting: of a component by the number of components.
        banks: the number of draws of each bank of a half, the same for both.

    Returns:
        The errors (S,) of the best and of the second best over all draws, without and with the prior, each that of the
        answers which the halves selected; and the p-value of their paired difference, doubled because the halves have
        to agree (two answers that are equally good may be either one's), and 1 where they do not.
    """
    # Cross-fitting: each half judges what the other half selected
    pairs = list(zip(halves, reversed(selected), strict=True))
    fresh: list[Tensor] = []
    judged: list[Tensor] = []
    for place in range(min(2, *map(len, selected))):
        chosen = [(half, ranked[place][1]) for half, ranked in pairs]
        fresh.append(torch.cat([half.errors(atoms, weighting(len(atoms))) for half, atoms in chosen]))
        judged.append(torch.cat([subset_errors(half, atoms, weighting) for half, atoms in chosen]))
    # Halves that do not agree decide nothing
    if len(fresh) < 2 or selected[0][0][1] != selected[1][0][1]:
        return fresh, judged, 1.0
    # The paired test of both halves together, doubled since the halves had to agree
    first, second = judged
    return fresh, judged, min(1.0, 2 * paired(first, second, [*banks, *banks])[2])
