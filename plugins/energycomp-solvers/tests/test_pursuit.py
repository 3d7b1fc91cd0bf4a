"""The parts of pursuit: Gauss-Newton steps, promising values, held-out draws, account of rows, and where it looks."""

from functools import partial

import pytest
import torch

from energycomp.images import to_unit
from energycomp.inference import QuadraticForm, infer, make_problem
from energycomp.seeds import seeded
from energycomp.testing import bumps_model, labels_model, planted
from energycomp_solvers.pursuit import STAGES, Pursuit
from energycomp_solvers.search.held_out import HeldOut
from energycomp_solvers.search.lattice import Screen
from energycomp_solvers.search.newton import newton_step
from energycomp_solvers.search.subsets import find_promising
from energycomp_solvers.sgd import SGD
from energycomp_solvers.shared.descent import residual_starts

TRUE = torch.tensor([[0.3, 0.35], [0.42, 0.4], [0.7, 0.6]])  # the first two overlap


@pytest.mark.parametrize("places", [[0, 1, 2], [1]])
def test_newton_steps_reach_the_planted_places(places: list[int]) -> None:
    model = bumps_model()
    problem = make_problem(planted(model, TRUE), model, count=3)
    atoms = TRUE.clone()
    atoms[places] += torch.tensor([0.02, -0.015])
    bank, chosen = problem.draw(4, seeded(0)), [0, 1, 2]
    form = problem.quadratic(atoms, bank)
    spent = problem.rows
    for _ in range(4):
        atoms, form, chosen = newton_step(
            problem, partial(problem.quadratic, bank=bank), atoms, form, chosen, places, reach=0.03
        )
    assert problem.rows - spent == 4 * 4 * 3 * len(places)  # two moved values and the new one, of each and draw
    assert (atoms[chosen] - TRUE).abs().max() < 0.002


def test_a_newton_step_never_raises_the_error() -> None:
    model = bumps_model()
    problem = make_problem(planted(model, TRUE), model, count=3)
    bank = problem.draw(4, seeded(0))
    form = problem.quadratic(TRUE, bank)
    atoms, same, chosen = newton_step(
        problem, partial(problem.quadratic, bank=bank), TRUE, form, [0, 1, 2], [0, 1, 2], reach=0.03
    )
    assert same.errors(chosen).mean() <= form.errors([0, 1, 2]).mean()
    assert newton_step(problem, partial(problem.quadratic, bank=bank), TRUE, form, [0, 1], [], reach=0.03)[2] == [0, 1]
    assert (atoms[chosen] - TRUE).abs().max() < 1e-3


def test_a_weak_component_has_promising_atoms_of_its_own() -> None:
    strong, weak = torch.tensor([10.0, 0.0]), torch.tensor([0.0, 1.0])
    atoms = torch.stack([strong * scale for scale in (0.9, 0.95, 1.0, 1.05)] + [weak])
    form = QuadraticForm.of(atoms[None], (strong + weak)[None])
    assert {2, 4} <= set(find_promising(form, (0, 3), 2))
    assert len(find_promising(form, (4, 4), 1)) >= 4


def test_held_out_draws_are_added_while_a_comparison_is_open() -> None:
    model = labels_model(6)
    problem = make_problem(planted(model, torch.tensor([1, 4])), model)
    held_out = HeldOut(problem, torch.arange(6), [problem.draw(8, seeded(seed)) for seed in range(3)])
    assert held_out.is_better([1, 4], [1], 0.01)
    assert held_out.draws == 8
    assert not held_out.is_better([1, 4, 2], [1, 4], 0.01)
    assert held_out.draws == 8
    assert problem.rows == 8 * (3 + 1)
    with torch.no_grad():
        expected = problem.errors(torch.tensor([[4, 1]]), held_out.banks[0])[0]
    torch.testing.assert_close(held_out.errors([4, 1]).float(), expected, rtol=1e-4, atol=1e-4)
    assert not held_out.is_better([1, 4], [4, 1], 0.01)  # the same answer: open to the end
    assert held_out.draws == 24
    torch.testing.assert_close(held_out.form([4, 1]).errors([0, 1]), held_out.errors([4, 1]))


def test_rows_of_the_stages_and_components_that_overlap() -> None:
    model = bumps_model()
    problem = make_problem(planted(model, TRUE), model)
    solution = Pursuit(side=12).solve(problem, generator=seeded(0))
    assert len(solution.trace["rows"]) == len(STAGES)
    assert sum(solution.trace["rows"]) == solution.rows == problem.rows
    assert solution.trace["rows"][0] < 12**2 + 1 + 6 * 3 * 10
    model = bumps_model()
    solution = infer(to_unit(planted(model, TRUE)), model, solver=Pursuit())
    assert solution.count == 3
    assert (torch.cdist(solution.conditions, TRUE).amin(1) < 0.02).all()


APART = torch.tensor([[0.2, 0.3], [0.5, 0.7], [0.75, 0.25]])


def test_one_draw_is_enough_for_an_answer() -> None:
    """Half of the draws was none."""
    for model, values in ((bumps_model(draws=1), TRUE[2:]), (labels_model(4, draws=1), torch.tensor([2]))):
        image = to_unit(planted(model, values))
        for budget in (0, 100):
            found = infer(image, model, solver=Pursuit(side=8, budget=budget), count=1)
            assert (found.conditions - values).abs().max() < 0.01


def test_a_lattice_is_searched_for_what_an_answer_leaves() -> None:
    model = bumps_model()
    problem = make_problem(planted(model, APART), model)
    bank = problem.draw(9, seeded(0))[:3]
    screen = Screen.of(problem, bank, 10)
    assert problem.rows == 10**2 + 1
    atoms, form = screen.admit([0], screen.atoms[:0], None)
    assert problem.rows == 10**2 + 1 + 2 * 2
    atoms, form = torch.cat([atoms, APART[:2]]), form.append(problem.quadratic(APART[:2], bank))
    nearest = int(torch.cdist(screen.atoms, APART[2:]).argmin())
    assert screen.best(form, [1, 2], 1) == [nearest]
    spent = problem.rows
    atoms, form = screen.admit([nearest], atoms, form)
    assert problem.rows - spent == 2
    assert len(atoms) == len(form) == 4
    assert nearest not in screen.best(form, [1, 2], 100)
    assert screen.admit([], atoms, form) == (atoms, form)


def test_starts_are_where_something_is_unexplained() -> None:
    model = bumps_model()
    problem = make_problem(planted(model, APART), model)
    screen = Screen.of(problem, problem.draw(3, seeded(0))[:1], 12)
    starts = residual_starts(screen.form, screen.atoms, 6, 3, seeded(0))
    assert starts.shape == (6, 3, 2)
    assert torch.cdist(APART, starts[0]).amin(1).max() < 0.08
    assert len({tuple(sorted(map(tuple, one.tolist()))) for one in starts}) > 1
    again = residual_starts(screen.form, screen.atoms, 6, 3, seeded(0))
    assert torch.equal(starts, again)


def test_sgd_finds_more_from_them_and_pays_for_the_lattice_once() -> None:
    model, rows, distances = bumps_model(), {}, {}
    for start in ("random", "residual"):
        problem = make_problem(planted(model, APART), model, count=3)
        solver = SGD(inits=2, steps=12, draws=1, start=start, side=8, fresh_draws=8)
        solution = solver.solve(problem, generator=seeded(3))
        rows[start], distances[start] = solution.rows, torch.cdist(APART, solution.conditions).amin(1).max()
    assert distances["residual"] < 0.06 < distances["random"]
    assert abs(rows["residual"] - rows["random"] - 8**2 - 1) <= 2 * 8 * 4  # the runner-up may be of another size
