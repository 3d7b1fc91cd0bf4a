"""The answer of a search beside the best other ones, on draws that selected none of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import attrs
import torch
from torch import Tensor

from energycomp.inference import (
    COMPONENT_PENALTY,
    Alternative,
    AttributeErrors,
    Problem,
    QuadraticForm,
    Solution,
    as_normal,
    paired,
    standard_error,
)
from energycomp_solvers.search.ranked import ALTERNATIVES


@attrs.frozen(eq=False)
class Rival:
    """A component with another word (V,), by how many nats, or by which error, it is behind."""

    component: int
    value: Tensor
    behind: float


@attrs.frozen(eq=False)
class Answer:
    """An answer, and what it is compared with.

    Args:
        values: of the components, (K, *V).
        rivals: other values (M, *V) that the search thought worth a look.
        form: over `values`, or values close to them, and `rivals` on held-out draws, which choose the runner-up. None
            spends half of the draws of the comparison on this.
        swapped: one of the components with another word.
    """

    values: Tensor
    rivals: Tensor
    form: QuadraticForm | None = None
    known: AttributeErrors | None = None
    swapped: Rival | None = None


def finish(
    problem: Problem,
    answer: Answer,
    draws: int,
    generator: torch.Generator | None,
    trace: Mapping[str, Sequence[float]],
    spent: Sequence[int] = (),
) -> Solution:
    """The solution of an answer, compared with the best one that differs by a component or a word.

    With a prior the runner-up is chosen and compared by the posterior; error and gains are those of the image alone.
    Costs at most K + 1 rows for each draw that compares (fewer than 4 compare nothing), and K + M for each one that
    chooses without a form. `spent` has the evaluations before each stage of the search.
    """
    before = problem.rows
    count = len(answer.values)
    chosen = list(range(count))
    atoms = torch.cat([answer.values, answer.rivals])
    # Half of the draws choose the runner-up, unless others did
    chooses = answer.form
    forms: list[QuadraticForm] = []
    sizes = [draws]
    if chooses is None and draws >= 4:
        sizes = [draws // 2, draws - draws // 2]
        chooses = problem.quadratic(atoms, problem.draw(sizes[0], generator))
        forms.append(chooses)
    # Rank the others, and compare the best one: a paired test on draws of their own
    if answer.swapped is not None:
        atoms = torch.cat([atoms, answer.swapped.value[None]])
    ranked = [] if chooses is None else rank_others(problem, chooses, count, answer.swapped)
    runner_up = ranked[0][1] if ranked else None
    used = [*chosen, *(k for k in runner_up or () if k >= count)]
    compares = problem.quadratic(atoms[used], problem.draw(sizes[-1], generator))
    forms.append(compares)
    difference = stderr = p_value = None
    if runner_up is not None:
        errors = compares.objective(chosen)
        others = compares.objective([used.index(k) for k in runner_up])
        difference, stderr, p_value = paired(errors, others)
    # Error and gains of the image alone, over all draws
    total = _errors_over(forms, chosen)
    gain = None
    if count and (problem.has_empty or count > 1):
        without = [_errors_over(forms, [c for c in chosen if c != k]).mean() for k in chosen]
        gain = torch.stack(without) - total.mean()
    solution = Solution(
        conditions=answer.values,
        count=count,
        error=float(total.mean()),
        stderr=as_normal(*standard_error(total, sizes)),
        rows=problem.rows,
        runner_up=None if runner_up is None else atoms[runner_up],
        difference=difference,
        difference_stderr=stderr,
        p_value=p_value,
        trace=dict(trace),
        component_gain=gain,
        form=compares.take(chosen),
        alternatives=tuple(Alternative(atoms[other], behind) for behind, other in ranked[:ALTERNATIVES]),
    )
    if answer.known is not None:
        posteriors = answer.known.probabilities(problem.posterior)
        solution = attrs.evolve(solution, posteriors=posteriors)
    if not spent:
        return solution
    # What each stage cost: the differences of the evaluations before and after it
    rows = [float(after - earlier) for earlier, after in pairwise([*spent, before, solution.rows])]
    return attrs.evolve(solution, trace={**trace, "rows": rows})


def rank_others(
    problem: Problem, form: QuadraticForm, count: int, swapped: Rival | None = None
) -> list[tuple[float, list[int]]]:
    """Other answers than the first atoms of a form: by how many nats each is behind, and its atoms; the best first.

    They have one component fewer, one more, another one, or another word of one. That word comes first where it is
    behind by less than the best of the others: there, a component more says its place, which costs the penalty.
    """
    chosen = list(range(count))
    error = form.mean_objective(chosen)
    others = _others(problem, chosen, range(count, len(form)))
    errors = [form.mean_objective(other) for other in others]
    order = sorted(range(len(others)), key=errors.__getitem__)
    ranked = [(problem.posterior.gap(error, errors[k] - error), others[k]) for k in order]
    if swapped is None:
        return ranked
    lead = float("inf")
    if ranked:
        penalty = 0.0 if problem.posterior.beta is None else COMPONENT_PENALTY
        lead = ranked[0][0] + penalty * (len(ranked[0][1]) - count)
    word = (swapped.behind, [len(form) if k == swapped.component else k for k in chosen])
    return [word, *ranked] if swapped.behind < lead else sorted([*ranked, word], key=lambda one: one[0])


def least_certain(problem: Problem, known: AttributeErrors) -> Rival | None:
    """The component whose attribute is least certain, with the next best word. None where nothing is known."""
    if problem.mixed is None:
        return None
    candidates: list[tuple[float, int, int, int]] = []
    for attribute, errors in enumerate(known.errors):
        for component in (known.draws > 0).nonzero()[:, 0].tolist():
            best, *others = errors[component].argsort().tolist()
            if others:
                error, other = errors[component, [best, others[0]]].tolist()
                candidates.append((problem.posterior.gap(error, other - error), component, attribute, others[0]))
    if not candidates:
        return None
    behind, component, attribute, word = min(candidates)
    return Rival(component, problem.mixed.worded(known.values[component], attribute, word), behind)


def _others(problem: Problem, chosen: list[int], spare: Sequence[int]) -> list[list[int]]:
    """Every answer with one atom fewer, one exchanged for a spare, or a spare more, within the range of counts."""
    low, high = problem.counts
    others: list[list[int]] = []
    if len(chosen) > low:
        others += [[c for c in chosen if c != k] for k in chosen]
    for extra in spare:
        if len(chosen) < high:
            others.append([*chosen, extra])
        others += [[extra if c == k else c for c in chosen] for k in chosen]
    return [other for other in others if other or problem.has_empty]


def _errors_over(forms: Sequence[QuadraticForm], chosen: Sequence[int]) -> Tensor:
    return torch.cat([form.errors(chosen) for form in forms])
