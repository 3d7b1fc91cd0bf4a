"""The conformance check of solvers, on images whose exact answer is known."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from energycomp.denoisers import count_rows
from energycomp.inference import Needs, Problem, Solution, Solver, infer, make_problem
from energycomp.models import Model
from energycomp.testing import bumps_model, labels_model, planted
from energycomp_lab.checks.expect import expect, expect_refusal, expect_same_state
from energycomp_lab.evaluation.matching import FOUND_WITHIN, match


def check_solver(solver: Solver, *, tolerance: float = FOUND_WITHIN) -> None:
    """Checks a solver on images whose exact answer is known: bumps at real-valued places, and finite labels.

    On the problems that fit `needs`, the solver must find the planted values, with known and unknown count, also in the
    empty image. It must respect the range of counts, the candidates, the support and distinct values, give the same
    answer for the same generator seed, and leave the global random state unchanged. It must report the rows that ran,
    and its error, standard error, runner-up and p-value must agree. A problem that does not fit must be refused before
    any row runs.

    Args:
        tolerance: mean squared difference below which a real-valued answer counts as the planted one.
    """
    name = type(solver).__name__
    given: object = solver
    needs = given.needs if isinstance(given, Solver) else "missing"
    known = f"one of {', '.join(map(repr, get_args(Needs)))} or None"
    expect(needs in (*get_args(Needs), None), f"needs = {needs!r} of {name}", known, "say which slots the solver takes")
    bumps = bumps_model()
    places = torch.tensor([[0.27, 0.31], [0.72, 0.64]])
    labels = labels_model(8)
    chosen = torch.tensor([5, 2])
    other = torch.tensor([[0.2, 0.7], [0.27, 0.31], [0.5, 0.5], [0.72, 0.64], [0.8, 0.2]])
    if needs != "finite":
        _check_answers(solver, bumps, places, tolerance)
    else:
        _check_refused(solver, bumps, places)
    if needs in ("finite", None):
        _check_answers(solver, labels, chosen, tolerance)
        _check_answers(solver, bumps, places, tolerance, candidates=other)
    else:
        _check_refused(solver, labels, chosen)
        _check_refused(solver, bumps, places, candidates=other)


def _check_answers(
    solver: Solver, model: Model, true: Tensor, tolerance: float, *, candidates: Tensor | None = None
) -> None:
    cases: tuple[tuple[Tensor, int | tuple[int, int], Tensor | None], ...] = (
        (true, (0, 3), true),
        (true, 2, true),
        (true[:0], (0, 3), true[:0]),
        (true[:0], 0, true[:0]),
        (true, 1, None),  # one of two: either is correct
        (true[:1], (2, 3), None),
    )
    for values, count, answer in cases:
        problem = make_problem(planted(model, values), model, count=count, candidates=candidates)
        state = torch.get_rng_state()
        with count_rows() as spent:
            solution = solver.solve(problem, generator=torch.Generator().manual_seed(0))
        what = f"{type(solver).__name__} for a {model.name} image of {_numbers(values)}, count {count}"
        expect_same_state(state, f" by {what}")
        ran = f"the {spent.rows} that ran"
        expect(solution.rows == spent.rows, f"{solution.rows} rows reported by {what}", ran, "return problem.rows")
        _check_values(solution, problem, candidates, what)
        if answer is not None:
            found = solution.conditions
            hint = "the planted values leave no error"
            expect(_same(found, answer, tolerance), f"{_numbers(found)} from {what}", f"{_numbers(answer)}", hint)
        _check_confidence(solution, problem, what)
    _check_repeats(solver, model, true, candidates)


def _same(found: Tensor, true: Tensor, tolerance: float = FOUND_WITHIN) -> bool:
    if len(found) != len(true):
        return False
    if not found.is_floating_point() or not len(true):
        return torch.equal(found.sort(dim=0).values.cpu(), true.cpu().sort(dim=0).values)
    return bool((match(found.cpu(), true.cpu()) < tolerance).all())


def _check_values(solution: Solution, problem: Problem, candidates: Tensor | None, what: str) -> None:
    (low, high) = problem.counts
    values = solution.conditions
    shape = (solution.count, *problem.value_shape)
    got = f"values {tuple(values.shape)} and count {solution.count} from {what}"
    expect(tuple(values.shape) == shape, got, f"(count, *V) = {shape}", "count is the number of values")
    for answer in (values, solution.runner_up):
        if answer is None:
            continue
        size = f"{len(answer)} values"
        expect(low <= len(answer) <= high, f"{size} from {what}", f"{low} to {high}", "see problem.counts")
        if len(answer):
            legal = bool(problem.slots[0].support.check(answer).all())
            expect(legal, f"{_numbers(answer)} from {what}", "values in the support", "map with transform_to(support)")
        distinct = len(torch.unique(answer, dim=0)) == len(answer) or not problem.distinct
        expect(distinct, f"{_numbers(answer)} from {what}", "distinct values", "see problem.distinct")
        if candidates is not None:
            listed = all(bool((candidates == value).flatten(1).all(1).any()) for value in answer.cpu())
            expect(listed, f"{_numbers(answer)} from {what}", f"some of {_numbers(candidates)}", "see slot.candidates")


def _check_confidence(solution: Solution, problem: Problem, what: str) -> None:
    error = solution.error
    stderr = solution.stderr
    expect(error >= -1e-6 and stderr >= 0, f"error {error} and stderr {stderr} from {what}", "at least 0", "average")
    bank = problem.draw(64, torch.Generator().manual_seed(1))
    with torch.no_grad():
        fresh = problem.errors(solution.conditions[None], bank)[0].double()
    allowed = 6 * (stderr**2 + float(fresh.var()) / len(fresh)) ** 0.5 + 1e-4 + 0.05 * float(fresh.mean())
    expect(
        abs(error - float(fresh.mean())) <= allowed,
        f"error {error:.4g} +- {stderr:.2g} from {what}",
        f"{float(fresh.mean()):.4g}, the error of that answer on other draws",
        "estimate it on fresh draws",
    )
    compared = (solution.difference, solution.difference_stderr, solution.p_value)
    expect(
        all((part is None) == (solution.runner_up is None) for part in compared),
        f"{compared} from {what}",
        "numbers where there is a runner-up, None elsewhere",
        "compare with `paired`",
    )
    if solution.runner_up is None or solution.difference is None or solution.p_value is None:
        return
    other = not _same(solution.runner_up, solution.conditions) or solution.conditions.is_floating_point()
    expect(other, f"a runner-up of {what} that is the answer", "another answer", "leave it None if there is none")
    agree = (solution.difference > 0) == (solution.p_value < 0.5) or solution.difference == 0
    expect(
        0 <= solution.p_value <= 1 and agree,
        f"difference {solution.difference:.3g}, p {solution.p_value:.3g}",
        "p below 1/2 where the answer is better",
        "use `paired(answer, runner_up)`",
    )


def _check_repeats(solver: Solver, model: Model, true: Tensor, candidates: Tensor | None) -> None:
    with torch.random.fork_rng(devices=[]):
        runs = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            problem = make_problem(planted(model, true), model, count=(1, 2), candidates=candidates)
            runs.append(solver.solve(problem, generator=torch.Generator().manual_seed(3)))
    first, second = runs
    same = torch.equal(first.conditions, second.conditions) and first.error == second.error
    expect(
        same and first.p_value == second.p_value,
        f"two answers of {type(solver).__name__} for one generator seed",
        "the same answer twice",
        "pass `generator` to problem.draw and to every random function",
    )


def _check_refused(solver: Solver, model: Model, true: Tensor, *, candidates: Tensor | None = None) -> None:
    what = f"{type(solver).__name__} for {model.name}, which does not fit needs = {solver.needs!r}"
    with count_rows() as spent:
        expect_refusal(what, infer, planted(model, true), model, solver=solver, candidates=candidates)
    expect(spent.rows == 0, f"{spent.rows} rows of {what}", "none", "let `infer` check first")


def _numbers(values: Tensor) -> list[Any]:
    """Rounds values for messages, to three decimals."""
    return values.detach().cpu().double().round(decimals=3).tolist() if values.is_floating_point() else values.tolist()
