"""Priors of values, by every solver: against brute force, against posteriors in closed form, and at no cost."""

from functools import partial
from itertools import combinations
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from energycomp.components import Latents
from energycomp.errors import InputError
from energycomp.images import to_unit
from energycomp.inference import Prior, each, infer, infer_many, make_problem, pairwise
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp.testing import attributes_model, bumps_model, labels_model, planted, tinted_model
from energycomp.testing.models import ClosedForm, built
from energycomp_solvers.beam import Beam
from energycomp_solvers.enumerate import Enumerate
from energycomp_solvers.pursuit import Pursuit
from energycomp_solvers.relaxed import Relaxed
from energycomp_solvers.search.newton import newton_step
from energycomp_solvers.sgd import SGD
from energycomp_solvers.weights import Weights

BETA = 0.02


def noisy(model: Model, values: Tensor, spread: float = 0.3) -> Tensor:
    return planted(model, values) + spread * torch.randn(1, 3, 16, 16, generator=seeded(7))


def of_label(values: Tensor) -> Tensor:
    return 0.7 * (values.double() - 2).square()


def of_pair(first: Tensor, second: Tensor) -> Tensor:
    return 0.4 * first + 1.5 * ((first - second).abs() == 1)  # of no symmetry of its own


class Whole:
    """A prior of the largest value of an answer."""

    def energy(self, values: Tensor) -> Tensor:
        return torch.cat([values, values.new_zeros(len(values), 1)], 1).amax(1) * 1.0


def seen(model: Model, values: Tensor, spread: float = 0.3) -> Tensor:
    """The image of `noisy`, as `infer` takes it."""
    return to_unit(noisy(model, values, spread)).clamp(0, 1)


@attrs.frozen
class Constant:
    """A prior that says nothing."""

    value: float

    def energy(self, values: Tensor) -> Tensor:
        return torch.full((len(values),), self.value)


PRIORS: dict[str, Any] = {
    "none": None,
    "values": each(of_label),
    "pairs": pairwise(of_pair),
    "counts": {1: 0.2, 2: 0.5, 3: 0.3},
    "answers": Whole(),
    "sum": each(of_label) + pairwise(of_pair) + {1: 0.2, 3: 0.8} + Whole(),
}


def by_hand(name: str, chosen: tuple[int, ...]) -> float:
    """The energies of PRIORS, without tensors of answers."""
    of_values = sum(0.7 * (k - 2) ** 2 for k in chosen)
    of_pairs = sum(0.2 * (a + b) + 1.5 * (abs(a - b) == 1) for a, b in combinations(chosen, 2))
    of_counts = {"counts": {1: 0.2, 2: 0.5, 3: 0.3}, "sum": {1: 0.2, 3: 0.8}}.get(name, {}).get(len(chosen), 0.0)
    of_count = -float(torch.tensor(of_counts, dtype=torch.float64).log())
    parts = {
        "none": 0.0,
        "values": of_values,
        "pairs": of_pairs,
        "counts": of_count,
        "answers": float(max(chosen, default=0)),
    }
    return sum(parts.values()) if name == "sum" else parts[name]


@pytest.mark.parametrize("rule", ["product", "mean"])
@pytest.mark.parametrize("log_errors", [False, True])
@pytest.mark.parametrize("name", PRIORS)
def test_enumerate_has_the_posterior_of_brute_force(name: str, log_errors: bool, rule: Any) -> None:
    """Of each value of the best set, over all sets."""
    beta = 4.0 if log_errors else BETA
    model = labels_model(5, rule=rule, beta=beta, counts=(1, 3), log_errors=log_errors)
    picture = noisy(model, torch.tensor([1, 3]))
    problem = make_problem(picture, model, count=(1, 3), prior=PRIORS[name])
    solution = Enumerate(draws=6, fresh_draws=4).solve(problem, generator=seeded(0))
    plain = make_problem(picture, model, count=(1, 3))
    bank = plain.draw(6, seeded(0))
    answers = [chosen for count in (1, 2, 3) for chosen in combinations(range(5), count)]
    errors = torch.stack([plain.errors(torch.tensor(c)[None], bank).double().mean() for c in answers])
    energies = torch.tensor([by_hand(name, chosen) for chosen in answers], dtype=torch.float64)
    posterior = torch.softmax(-beta * plain.posterior.energies(errors) - energies, 0)
    best = answers[int(posterior.argmax())]
    assert tuple(solution.conditions.tolist()) == best
    expected = [sum(p for p, chosen in zip(posterior, answers, strict=True) if k in chosen) for k in best]
    assert torch.allclose(solution.probability, torch.stack(expected), atol=1e-4)
    assert 0.05 < float(solution.probability.min()) < 0.9999  # neither certain nor impossible


@pytest.mark.parametrize(
    "solver", [Beam(width=40), Enumerate(p_value=1e-3), Relaxed(mix="predictions", inits=40)], ids=repr
)
def test_solvers_of_listed_values_find_the_most_probable_answer(solver: Any) -> None:
    model, prior = labels_model(5, beta=BETA, counts=(1, 3)), PRIORS["values"] + PRIORS["pairs"]
    problem = make_problem(noisy(model, torch.tensor([1, 3])), model, prior=prior)
    exact = Enumerate(draws=64).solve(problem, generator=seeded(0))
    assert solver.solve(problem, generator=seeded(0)).conditions.sort().values.equal(exact.conditions)


def test_attributes_have_the_posterior_of_brute_force() -> None:
    model = attributes_model(3, beta=BETA)
    picture = noisy(model, torch.tensor([0, 3, 4]))
    odd = each(lambda values: 2.0 * (values % 2)) + pairwise(lambda a, b: 1.0 * ((a + b) % 3 == 0))
    solution = Enumerate(draws=6, p_value=None).solve(make_problem(picture, model, prior=odd), generator=seeded(0))
    problem = make_problem(picture, model)
    bank = problem.draw(6, seeded(0))
    answers = torch.cartesian_prod(torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([4, 5]))
    with torch.no_grad():
        errors = problem.errors(answers, bank).double().mean(1)
    prior = torch.stack(
        [2.0 * (a % 2).sum() + sum(1.0 * ((p + q) % 3 == 0) for p, q in combinations(a, 2)) for a in answers]
    )
    posterior = torch.softmax(-BETA * errors - prior, 0)
    assert solution.conditions.equal(answers[posterior.argmax()])
    expected = [posterior[answers[:, k] == value].sum() for k, value in enumerate(solution.conditions)]
    assert solution.probability is not None
    assert torch.allclose(solution.probability, torch.stack(expected), atol=1e-4)


def linear_model(**defaults: Any) -> tuple[Model, Tensor]:
    """Images z_1 p_1 + z_2 p_2 of one component with a latent z, whose error is |z - true| in the metric A (2, 2)."""
    patterns = 0.1 * torch.randn(2, 3, 16, 16, generator=seeded(1))
    network = ClosedForm(lambda token: torch.einsum("rd,dchw->rchw", token, patterns.to(token)), "sample")
    options = {"timesteps": (100, 400), "gamma": 1.0, "draws": 8, "counts": (1, 1), "beta": BETA, **defaults}
    model = built(network, Latents(2), "product", "sample", options, name="linear")
    flat = patterns.flatten(1)
    return model, flat @ flat.T  # where SNR is above 1, lambda_s |eps_s|^2 is |x0|^2


@pytest.mark.parametrize(
    "solver", [SGD(steps=300, start="random", inits=4, learning_rate=0.1), Pursuit(side=24, steps=3)], ids=repr
)
def test_a_gaussian_prior_has_its_closed_form_posterior(solver: Any) -> None:
    model, metric = linear_model(beta=0.5)
    true, mean, precision = torch.tensor([0.9, -0.6]), torch.tensor([-0.5, 0.3]), torch.tensor([[9.0, 2.0], [2.0, 5.0]])
    prior = MultivariateNormal(mean, precision_matrix=precision)
    problem = make_problem(planted(model, true[None]), model, prior=prior)
    solution = solver.solve(problem, generator=seeded(0))
    likelihood = 2 * model.defaults.beta * metric
    expected = torch.linalg.solve(likelihood + precision, likelihood @ true + precision @ mean)
    assert (expected - true).norm() > 0.2  # the prior moves it
    assert torch.allclose(solution.conditions[0], expected, atol=0.01)


def test_a_gaussian_prior_on_a_grid_has_its_closed_form_probability() -> None:
    model, metric = linear_model()
    grid = torch.stack([torch.linspace(-2, 2, 81), torch.zeros(81)], dim=1)
    true, prior = grid[60], each(Normal(torch.tensor([-0.5, 0.0]), torch.tensor([0.4, 1.0])))
    problem = make_problem(planted(model, true[None]), model, candidates=grid, prior=prior)
    solution = Enumerate(draws=8).solve(problem, generator=seeded(0))
    likelihood = float(2 * BETA * metric[0, 0])
    total = likelihood + 1 / 0.4**2
    density = Normal((likelihood * true[0] - 0.5 / 0.4**2) / total, total**-0.5).log_prob(grid[:, 0].double())
    expected = torch.softmax(density, 0)
    assert solution.conditions[0].equal(grid[expected.argmax()])
    assert float(solution.probability[0]) == pytest.approx(float(expected.max()), rel=1e-3)


@pytest.mark.parametrize("solver", [SGD(inits=8, steps=90), Pursuit()], ids=repr)
def test_places_are_as_far_apart_as_error_and_prior_ask(solver: Any) -> None:
    model, true = bumps_model(beta=0.5), torch.tensor([[0.35, 0.5], [0.45, 0.5]])
    apart = pairwise(lambda a, b: 20.0 * (0.3 - (a - b).norm(dim=1)).clamp(min=0).square())
    found = [infer(to_unit(planted(model, true)), model, solver=solver, count=2, prior=p) for p in (None, apart)]
    without, with_prior = (float((s.conditions[0] - s.conditions[1]).norm()) for s in found)
    assert without == pytest.approx(0.1, abs=0.03)
    assert with_prior == pytest.approx(0.17, abs=0.02)

    problem = make_problem(planted(model, true), model, count=2, prior=apart)
    bank = problem.draw(64, seeded(3))
    apart_by = torch.linspace(0.05, 0.2, 61)[:, None] * torch.tensor([0.5, 0.0])
    grid = torch.tensor([0.4, 0.5]) + torch.stack([-apart_by, apart_by], dim=1)  # (N, 2, 2), as symmetry has it
    with torch.no_grad():
        best = problem.with_prior(problem.errors(grid, bank).mean(1), grid).min()
        reached = problem.with_prior(problem.errors(found[1].conditions[None], bank).mean(1), found[1].conditions[None])
    assert float(reached) < 1.02 * float(best)


@pytest.mark.parametrize(("log_errors", "beta"), [(True, 20.0), (False, 0.5)])
@pytest.mark.parametrize("constant", [0.0, 40.0])
def test_newton_steps_reach_the_optimum_of_brute_force(log_errors: bool, beta: float, constant: float) -> None:
    model = bumps_model(beta=beta, log_errors=log_errors)
    middle = each(lambda values: 100 * ((values - 0.5) ** 2).sum(1) + constant)
    problem = make_problem(noisy(model, torch.tensor([[0.3, 0.35]]), 0.1), model, count=1, prior=middle)
    bank, grid = problem.draw(4, seeded(0)), torch.cartesian_prod(*[torch.linspace(0.29, 0.45, 33)] * 2)
    with torch.no_grad():
        best = grid[problem.with_prior(problem.errors(grid[:, None], bank).mean(1), grid[:, None]).argmin()]
    atoms, chosen = torch.tensor([[0.3, 0.35]]), [0]
    form = problem.quadratic(atoms, bank)
    for _ in range(4):
        atoms, form, chosen = newton_step(
            problem, partial(problem.quadratic, bank=bank), atoms, form, chosen, [0], reach=0.05
        )
    assert (best - torch.tensor([0.3, 0.35])).abs().min() > 0.01  # the prior moves it
    torch.testing.assert_close(atoms[chosen[0]], best, atol=0.0051, rtol=0)  # the grid has steps of 0.005


ZERO = (
    each(lambda values: torch.zeros(len(values)))
    + pairwise(lambda a, b: torch.zeros(len(a)))
    + {}.fromkeys(range(9), 1.0)
)
EVERY = {
    "enumerate": (Enumerate(), labels_model),
    "enumerate until sure": (Enumerate(p_value=1e-3), labels_model),
    "attributes": (Enumerate(), attributes_model),
    "beam": (Beam(), labels_model),
    "weights": (Weights(), labels_model),
    "weights sgd": (Weights(method="sgd", steps=5), labels_model),
    "relaxed": (Relaxed(steps=5), labels_model),
    "predictions": (Relaxed(mix="predictions", steps=5), labels_model),
    "pursuit of labels": (Pursuit(), labels_model),
    "pursuit": (Pursuit(side=8), bumps_model),
    "sgd": (SGD(inits=4, steps=6), bumps_model),
    "objects": (Pursuit(side=8), tinted_model),
}


@pytest.mark.parametrize("log_errors", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_a_prior_of_zero_changes_no_bit_and_no_cost(name: str, log_errors: bool) -> None:
    solver, make = EVERY[name]
    model = make(beta=BETA, log_errors=log_errors)
    values = torch.tensor([[0.3, 0.4], [0.7, 0.6]]) if make is bumps_model else torch.tensor([0, 3])
    if make is tinted_model:
        values = torch.tensor([[0.3, 0.4, 1, 2], [0.7, 0.6, 2, 1]])
    image = seen(model, values, 0.1)
    one, two = (
        infer(
            image, model, solver=solver, count=model.defaults.counts if make is not attributes_model else None, prior=p
        )
        for p in (None, ZERO)
    )
    for field in attrs.fields(type(one)):
        if field.name not in ("view", "trace"):
            assert_same(getattr(one, field.name), getattr(two, field.name))
    assert dict(one.trace) == dict(two.trace)


@pytest.mark.parametrize("constant", [-4000.0, 4000.0])
def test_a_constant_of_the_prior_moves_no_place_and_costs_nothing(constant: float) -> None:
    """Steps end where they gain a share of the error: it was one of the error with the constant."""
    model = bumps_model(beta=20.0)
    true = torch.tensor([[0.3, 0.35], [0.42, 0.4], [0.7, 0.6]])  # two overlap
    one, two = (
        infer(seen(model, true, 0.02), model, solver=Pursuit(side=8, budget=0), count=3, prior=Constant(energy))
        for energy in (0.0, constant)
    )
    torch.testing.assert_close(one.conditions, two.conditions, atol=1e-4, rtol=0)
    assert one.rows == two.rows


def test_halves_that_do_not_agree_are_compared_by_the_prior_of_what_each_selected() -> None:
    """The difference had the prior of one answer with the error of the other."""
    model = labels_model(4, counts=(1, 1), beta=1.0)
    of_one = each(lambda labels: torch.where(labels == 1, 5.0, 0.0))
    both = sum(planted(model, torch.tensor([label])) for label in (1, 2)) / 2
    image = to_unit(both + 0.3 * torch.randn(1, 3, 16, 16, generator=seeded(23))).clamp(0, 1)
    found = infer(image, model, solver=Enumerate(draws=16), prior=of_one, generator=23)
    assert found.p_value == 1.0  # the halves do not agree
    problem = make_problem(model.encode(model.given(image)), model, prior=of_one)
    answers = torch.stack([found.conditions, found.runner_up])
    with torch.no_grad():
        errors = problem.with_prior(problem.errors(answers, problem.draw(1000, seeded(5))).mean(1), answers)
    assert found.difference == pytest.approx(float(errors[1] - errors[0]), abs=2 * found.difference_stderr)
    assert found.difference_stderr < 0.5


def assert_same(one: Any, two: Any) -> None:
    assert torch.equal(one, two) if isinstance(one, Tensor) and not one.isnan().any() else str(one) == str(two)


@pytest.mark.parametrize("name", ["enumerate", "attributes", "beam", "weights", "sgd"])
def test_a_prior_costs_no_network_evaluation(name: str) -> None:
    solver, make = EVERY[name]
    model = make(beta=BETA)
    values = torch.tensor([[0.3, 0.4], [0.7, 0.6]]) if make is bumps_model else torch.tensor([0, 3])
    count = None if make is attributes_model else 2
    prior = each(lambda v: 0.01 * v.double().view(len(v), -1).sum(1))
    found = [infer(seen(model, values), model, solver=solver, count=count, prior=p) for p in (None, prior)]
    assert found[0].rows == found[1].rows


def test_words_are_read_with_the_prior_of_whole_objects() -> None:
    model = tinted_model(beta=0.05)
    true = model.conditioner.parse(0.3, 0.4, tint="red", width="wide")
    seen: list[Tensor] = []

    def blue(values: Tensor) -> Tensor:
        seen.append(values)
        return 1e4 * ((values[:, 2] != 0) & (values[:, 2] != model.conditioner.parse(0.3, 0.4, tint="blue")[0, 2]))

    image = to_unit(planted(model, true))
    plain, told = (infer(image, model, solver=Pursuit(side=8), count=1, prior=p) for p in (None, each(blue)))
    assert plain.conditions[0, 2] == true[0, 2]
    assert told.view.components[0]["tint"] == "blue"
    assert float(told.certainty[0, 0]) > 0.99
    assert all(values.shape[1] == 4 for values in seen)  # open while places are sought
    assert float(seen[0][:, 2:].abs().max()) == 0.0


def test_counts_are_the_range_and_decide_between_answers() -> None:
    model = labels_model(6, beta=BETA, counts=(0, 2))
    picture = noisy(model, torch.tensor([0, 2, 4]), 0.05)
    problem = make_problem(picture, model, prior={2: 0.5, 4: 0.5})
    assert problem.counts == (2, 4)
    for solver in (Enumerate(), Beam()):
        assert solver.solve(problem, generator=seeded(0)).count in (2, 4)
    assert Pursuit().solve(make_problem(picture, model, prior={3: 0.9, 4: 0.1}), generator=seeded(0)).count == 3
    with pytest.raises(InputError, match="rules out all answers that Enumerate found"):
        infer(to_unit(picture), model, solver="enumerate", count=1, prior={3: 1.0})


def test_many_images_take_the_prior() -> None:
    model = labels_model(5, beta=BETA, solver="enumerate")
    images = [seen(model, torch.tensor(v))[0] for v in ([0, 1], [2, 3])]
    alone = [infer(image, model, prior=PRIORS["sum"]) for image in images]
    many = list(infer_many(images, model, prior=PRIORS["sum"]))
    assert [s.conditions.tolist() for s in many] == [s.conditions.tolist() for s in alone]
    assert isinstance(PRIORS["sum"], Prior)
