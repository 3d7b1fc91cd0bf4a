"""Relaxed labels and weights by gradient steps, against enumeration, closed forms and scipy."""

from typing import Any

import attrs
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

from energycomp.components import Condition
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.inference import infer, make_problem
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp.testing import attributes_model, labels_model, planted, tiny_model
from energycomp_solvers.enumerate import Enumerate
from energycomp_solvers.relaxed import Relaxed, descend_shares, nearest_shares, round_shares
from energycomp_solvers.weights import Weights

TRUE = torch.tensor([0, 3, 5, 6])
WAYS = [Relaxed(), Relaxed(mix="predictions")]


def noisy(model: Model, values: Tensor, scale: float, seed: int = 0) -> Tensor:
    return planted(model, values) + scale * torch.randn(1, 3, 16, 16, generator=seeded(seed))


@pytest.mark.parametrize(
    ("rule", "kind"), [("product", "sample"), ("product", "flow"), ("mean", "v_prediction"), ("sum", "epsilon")]
)
def test_whole_shares_are_values(rule: Any, kind: Any) -> None:
    model = labels_model(5, rule=rule, prediction_type=kind)
    problem = make_problem(noisy(model, torch.tensor([1, 4]), 0.5), model)
    bank, atoms = problem.draw(6, seeded(0)), torch.tensor([0, 1, 2, 4])
    chosen = torch.tensor([[1, 3], [0, 2], [3, 3]])
    shares = torch.nn.functional.one_hot(chosen, 4).float()
    before = problem.rows
    mixed = problem.mixed_errors(shares, atoms, bank)
    assert problem.rows - before == 6 * (3 * 2 + (rule == "product"))
    assert torch.allclose(mixed, problem.errors(atoms[chosen], bank))


def test_mixed_tokens_reach_the_network() -> None:
    """A mixture of places is a place between them: the error is that of the mixed row, not a mixture of errors."""
    model, places = tiny_model(), torch.tensor([[0.2, 0.4], [0.8, 0.6]])
    problem = make_problem(torch.zeros(1, 3, 16, 16), model)
    bank, shares = problem.draw(4, seeded(0)), torch.tensor([[[0.25, 0.75]]])
    expected = problem.errors((shares[0] @ places)[None], bank)
    assert torch.allclose(problem.mixed_errors(shares, places, bank), expected)


def test_gradients_of_mixed_errors_are_those_of_finite_differences() -> None:
    model = attributes_model(2)
    problem = make_problem(noisy(model, torch.tensor([1, 2]), 0.5), model)
    bank, atoms = problem.draw(3, seeded(0)), torch.arange(4)
    shares = torch.rand(1, 2, 4, generator=seeded(0)).requires_grad_()
    (slope,) = torch.autograd.grad(problem.mixed_errors(shares, atoms, bank).mean(), shares)
    for place in [(0, 0, 1), (0, 1, 3)]:
        step = torch.zeros_like(shares)
        step[place] = 0.05  # the error is quadratic here: no remainder
        up, down = (problem.mixed_errors(shares + s, atoms, bank).mean() for s in (step, -step))
        assert float(slope[place]) == pytest.approx(float((up - down).detach()) / 0.1, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_nearest_shares_are_those_of_scipy(seed: int) -> None:
    values = torch.randn(5, dtype=torch.float64, generator=seeded(seed))
    legal = torch.tensor([True, True, False, True, True])
    found = nearest_shares(values, legal)
    target = values[legal].numpy()
    total = {"type": "eq", "fun": lambda w: w.sum() - 1}
    bounds = [(0, None)] * 4
    best = minimize(lambda w: ((w - target) ** 2).sum(), [0.25] * 4, bounds=bounds, constraints=total, tol=1e-12)
    assert found[2] == 0
    assert found[legal].tolist() == pytest.approx(best.x.tolist(), abs=1e-5)


def test_descent_ends_at_the_least_error_of_legal_shares() -> None:
    target, legal = torch.tensor([[0.7, -0.4, 0.3, 5.0]]), torch.tensor([[True, True, True, False]])
    start = torch.full((2, 1, 4), 1 / 3) * legal
    error = lambda shares: (shares - target).square().sum((1, 2))  # noqa: E731
    found = descend_shares(error, start, legal, steps=300, learning_rate=0.5)
    assert torch.allclose(found, torch.tensor([0.7, 0.0, 0.3, 0.0]).expand(2, 1, 4), atol=0.02)


@pytest.mark.parametrize("solver", WAYS, ids=str)
@pytest.mark.parametrize("rule", ["product", "mean"])
@pytest.mark.parametrize("seed", range(2))
def test_relaxed_labels_are_those_of_enumeration(solver: Relaxed, rule: Any, seed: int) -> None:
    model = attributes_model(4, seed=seed, rule=rule)
    picture = noisy(model, TRUE, 0.5, seed)
    found, exact = (s.solve(make_problem(picture, model), generator=seeded(0)) for s in (solver, Enumerate()))
    assert found.conditions.tolist() == exact.conditions.tolist()
    assert found.runner_up is not None
    assert int((found.runner_up != found.conditions).sum()) == 1


@pytest.mark.parametrize("inits", [1, 3])
def test_rows_of_tokens(inits: int) -> None:
    model = attributes_model(4)
    problem = make_problem(planted(model, TRUE), model)
    with count_rows() as spent:
        solution = Relaxed(inits=inits, steps=20, draws=2, fresh_draws=6).solve(problem, generator=seeded(0))
    assert solution.conditions.tolist() == TRUE.tolist()
    (answers,) = solution.trace["answers"]
    assert 2 <= answers <= 1 + inits
    values = 4 + answers - 1  # the inits agree; each other answer has one value exchanged
    stepping, scoring, judging = 20 * 2 * (inits * 4 + 1), 6 * (values + 1), 6 * (2 * 4 + 1)
    assert spent.rows == solution.rows == stepping + scoring + judging
    assert spent.trunks == 20 * 2 + 6 + 6


def test_rows_of_predictions() -> None:
    model = attributes_model(4)
    with count_rows() as spent:
        Relaxed(mix="predictions", fresh_draws=6).solve(make_problem(planted(model, TRUE), model), generator=seeded(0))
    assert spent.rows == 6 * (8 + 1) + 6 * (2 * 4 + 1)


@pytest.mark.parametrize("distinct", [True, False])
def test_rounding(distinct: bool) -> None:
    problem = make_problem(torch.zeros(1, 3, 16, 16), labels_model(3, distinct=distinct), count=2)
    shares = torch.tensor([[0.5, 0.4, 0.1], [0.9, 0.1, 0.0]])
    best, changed = round_shares(problem, shares, [[0, 1, 2]] * 2)
    if distinct:
        assert (best, changed) == ((0, 1), (0, 2))  # 0.4 + 0.9; 0.1 is 0.3 less than 0.4
    else:
        assert (best, changed) == ((0, 0), (0, 1))


@pytest.mark.parametrize(("rule", "scale"), [("product", 0.1), ("mean", 1.0)])
def test_weights_by_steps_are_those_of_least_squares(rule: Any, scale: float) -> None:
    model = attributes_model(4, rule=rule)
    picture = noisy(model, TRUE, scale)
    solved, stepped = (
        Weights(method=method).solve(make_problem(picture, model), generator=seeded(0)) for method in ("nnls", "sgd")
    )
    assert stepped.trace["weights"] == pytest.approx(solved.trace["weights"], abs=0.02)
    assert stepped.conditions.tolist() == solved.conditions.tolist()


def test_rows_of_weights() -> None:
    model = attributes_model(4)
    ways = Weights(draws=6), Weights(method="sgd", steps=30, fresh_draws=6)
    for solver, draws in zip(ways, (6, 30), strict=True):
        with count_rows() as spent:
            solution = solver.solve(make_problem(planted(model, TRUE), model), generator=seeded(0))
        assert spent.rows == solution.rows == draws * (8 + 1) + 6 * (2 * 4 + 1)


def test_a_network_without_gradients_to_its_condition_is_refused_in_words() -> None:
    class Hard(nn.Module):
        def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
            return sample + condition.rows[:, 0].argmax(1).to(sample)[:, None, None, None]

    model = labels_model(3)
    model = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=Hard()))
    with pytest.raises(InputError, match="without a gradient to the shares"):
        infer(torch.zeros(3, 16, 16), model, solver=Relaxed(), count=1)
