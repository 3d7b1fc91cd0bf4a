"""Where components are looked for: the lattice that pursuit searches again, and where initialisations of sgd start."""

import torch

from energycomp.inference import make_problem
from energycomp.seeds import seeded
from energycomp.testing import bumps_model, planted
from energycomp_solvers.sgd import SGD
from energycomp_solvers.shared.lattice import Screen
from energycomp_solvers.shared.starts import residual_starts

TRUE = torch.tensor([[0.2, 0.3], [0.5, 0.7], [0.75, 0.25]])


def test_a_lattice_is_searched_for_what_an_answer_leaves() -> None:
    model = bumps_model()
    problem = make_problem(planted(model, TRUE), model)
    bank = problem.draw(9, seeded(0))[:3]
    screen = Screen.of(problem, bank, 10)
    assert problem.rows == 10**2 + 1
    atoms, form = screen.admit([0], screen.atoms[:0], None)
    assert problem.rows == 10**2 + 1 + 2 * 2
    atoms, form = torch.cat([atoms, TRUE[:2]]), form.append(problem.quadratic(TRUE[:2], bank))
    nearest = int(torch.cdist(screen.atoms, TRUE[2:]).argmin())
    assert screen.best(form, [1, 2], 1) == [nearest]
    spent = problem.rows
    atoms, form = screen.admit([nearest], atoms, form)
    assert problem.rows - spent == 2
    assert len(atoms) == len(form) == 4
    assert nearest not in screen.best(form, [1, 2], 100)
    assert screen.admit([], atoms, form) == (atoms, form)


def test_starts_are_where_something_is_unexplained() -> None:
    model = bumps_model()
    problem = make_problem(planted(model, TRUE), model)
    screen = Screen.of(problem, problem.draw(3, seeded(0))[:1], 12)
    starts = residual_starts(screen.form, screen.atoms, 6, 3, problem.weighting, seeded(0))
    assert starts.shape == (6, 3, 2)
    assert torch.cdist(TRUE, starts[0]).amin(1).max() < 0.08
    assert len({tuple(sorted(map(tuple, one.tolist()))) for one in starts}) > 1
    again = residual_starts(screen.form, screen.atoms, 6, 3, problem.weighting, seeded(0))
    assert torch.equal(starts, again)


def test_sgd_finds_more_from_them_and_pays_for_the_lattice_once() -> None:
    model, rows, distances = bumps_model(), {}, {}
    for start in ("random", "residual"):
        problem = make_problem(planted(model, TRUE), model, count=3)
        solver = SGD(inits=2, steps=12, draws=1, start=start, side=8, fresh_draws=8)
        solution = solver.solve(problem, generator=seeded(3))
        rows[start], distances[start] = solution.rows, torch.cdist(TRUE, solution.conditions).amin(1).max()
    assert distances["residual"] < 0.06 < distances["random"]
    assert abs(rows["residual"] - rows["random"] - 8**2 - 1) <= 2 * 8 * 4  # the runner-up may be of another size
