"""The problem a solver sees: its errors are denoising errors, its rows counted, what does not fit refused."""

import warnings
from typing import Any

import pytest
import torch

from energycomp.components import predict
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.images import to_unit
from energycomp.inference import OutOfDistributionWarning, Solution, infer, make_problem
from energycomp.models import Calibration, calibration_of
from energycomp.seeds import seeded
from energycomp.testing import Fixed, bumps_model, labels_model, planted, tiny_model
from energycomp_solvers.sgd import SGD

CASES = [
    ("product", "sample"), ("product", "epsilon"), ("mean", "v_prediction"), ("product", "flow"), ("mean", "sample"),
    ("sum", "epsilon"),
]  # fmt: skip
BLANK = torch.zeros(1, 3, 16, 16)


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize(("rule", "kind"), CASES)
@torch.no_grad()
def test_errors_are_those_of_the_composition(rule: str, kind: str, count: int) -> None:
    if count == 0 and rule != "product":
        return
    model = tiny_model(rule=rule, prediction_type=kind)
    observation = torch.rand(1, 3, 16, 16, generator=seeded(1)) * 2 - 1
    problem = make_problem(observation, model)
    bank = problem.draw(4, seeded(0))
    values = torch.rand(2, count, 2, generator=seeded(2))
    with count_rows() as spent:
        got = problem.errors(values, bank)
    null = 4 if rule == "product" and count != 1 else 0
    assert (spent.rows, spent.trunks) == (2 * count * 4 + null, 4)
    noised = bank.noised(observation, model.denoiser.alphas_cumprod)
    for n in range(2):
        eps = predict(model.compose(values[n]), noised, bank.timestep)
        expected = bank.weight * (eps - bank.noise).flatten(1).square().sum(1)
        torch.testing.assert_close(got[n], expected, rtol=1e-4, atol=1e-4)
    if count:
        found = problem.quadratic(values[0], bank).errors(range(count), problem.weighting(count))
        torch.testing.assert_close(found, got[0].double(), rtol=1e-4, atol=1e-4)


def test_a_bank_pays_for_its_trunk_and_for_u_once() -> None:
    problem = make_problem(torch.zeros(1, 3, 16, 16), tiny_model())
    bank = problem.draw(4, seeded(0))
    with count_rows() as spent, torch.no_grad():
        problem.errors(torch.rand(1, 1, 2), bank)
        problem.errors(torch.rand(3, 2, 2), bank)
        problem.quadratic(torch.rand(5, 2), bank)
    assert spent.trunks == 4
    assert spent.rows == 4 + (24 + 4) + 20
    assert problem.rows == spent.rows
    for _ in range(6):
        problem.errors(torch.rand(1, 1, 2), problem.draw(2, seeded(0)))
    with count_rows() as spent:
        problem.errors(torch.rand(1, 1, 2), bank)
    assert spent.trunks == 0
    assert len(problem._predicted.trunks) == 1  # those of banks that are gone are gone, too: they hold memory
    del bank
    assert not problem._predicted.trunks


def test_a_bank_of_another_problem_has_a_trunk_of_its_own() -> None:
    one, other = (make_problem(torch.full((1, 3, 16, 16), shade), tiny_model()) for shade in (-0.5, 0.5))
    bank, values = one.draw(4, seeded(0)), torch.rand(1, 2, 2, generator=seeded(0))
    with torch.no_grad():
        first, second = (problem.errors(values, bank) for problem in (one, other))
        again = make_problem(other.observation, tiny_model()).errors(values, other.draw(4, seeded(0)))
    assert not torch.allclose(first, second)
    torch.testing.assert_close(second, again)


def test_gradients_are_those_of_finite_differences() -> None:
    model = bumps_model()
    problem = make_problem(planted(model, torch.tensor([[0.3, 0.4]])), model)
    bank = problem.draw(4, seeded(0))
    values = torch.tensor([[[0.35, 0.5]]], requires_grad=True)
    (gradient,) = torch.autograd.grad(problem.errors(values, bank).mean(), values)
    for axis in range(2):
        step = torch.zeros(1, 1, 2)
        step[..., axis] = 1e-3
        with torch.no_grad():
            up, down = (problem.errors(values + sign * step, bank).mean() for sign in (1, -1))
        assert float(gradient[0, 0, axis]) == pytest.approx(float((up - down) / 2e-3), rel=0.02)


def test_the_planted_answer_has_no_error() -> None:
    for model, values in (
        (bumps_model(), torch.rand(3, 2, generator=seeded(0))),
        (labels_model(6), torch.tensor([5, 0, 3])),
        (labels_model(6, rule="mean", prediction_type="v_prediction"), torch.tensor([5, 0, 3])),
        (labels_model(6, prediction_type="flow"), torch.tensor([5, 0, 3])),
        (labels_model(6, rule="sum", components=3), torch.tensor([5, 0, 3])),
    ):
        problem = make_problem(planted(model, values), model)
        bank = problem.draw(8, seeded(0))
        with torch.no_grad():
            assert float(problem.errors(values[None], bank).max()) < 1e-6
            assert float(problem.errors(values[None, :2], bank).mean()) > 1


@pytest.mark.parametrize(("count", "expected"), [(None, (0, 3)), (2, (2, 2)), ((1, 5), (1, 5)), (0, (0, 0))])
def test_counts(count: Any, expected: tuple[int, int]) -> None:
    problem = make_problem(BLANK, tiny_model(), count=count)
    assert problem.counts == expected
    assert len(problem.slots) == expected[1]


def test_counts_without_an_unconditional_prediction() -> None:
    model = tiny_model(rule="mean")
    problem = make_problem(BLANK, model)
    assert (problem.counts, problem.has_empty, problem.weighting(4)) == ((1, 3), False, 0.25)
    with pytest.raises(InputError, match="count 0 under the rule 'mean'"):
        make_problem(BLANK, model, count=0)


def test_components_come_from_left_to_right_and_what_is_said_of_them_follows() -> None:
    said = {"component_gain": torch.tensor([1.0, 2.0, 3.0]), "probability": torch.tensor([0.9, 0.2, 0.5])}
    places = torch.tensor([[0.7, 0.3], [0.2, 0.9], [0.2, 0.4]])
    solution = infer(BLANK, tiny_model(), solver=Fixed(places, said=said))
    assert torch.equal(solution.conditions, places[[2, 1, 0]])
    assert solution.component_gain.tolist() == [3.0, 2.0, 1.0]
    assert solution.probability.tolist() == pytest.approx([0.5, 0.2, 0.9])


def test_pictures_are_read_under_a_rule_of_their_own() -> None:
    """Composed under the product, read under the mean: the errors are those of a denoiser with that rule."""
    model = tiny_model(reading_rule="mean")
    assert model.denoiser.rule == "product"
    observation, generator = torch.rand(1, 3, 16, 16) * 2 - 1, seeded(0)
    problem = make_problem(observation, model)
    averaged = make_problem(observation, tiny_model(rule="mean"))
    assert problem.counts == (1, 3)
    assert not problem.has_empty
    assert [problem.weighting(count) for count in (1, 2, 4)] == [1.0, 0.5, 0.25]
    values, bank = torch.rand(2, 3, 2), problem.draw(4, generator)
    with count_rows() as spent:
        errors = problem.errors(values, bank)
    assert spent.rows == 2 * 3 * 4  # and none for u
    torch.testing.assert_close(errors, averaged.errors(values, bank), rtol=1e-5, atol=0)
    assert not torch.allclose(errors, make_problem(observation, tiny_model()).errors(values, bank), rtol=1e-3)
    solution = infer(to_unit(observation), model, solver=Fixed(values[0, :2]), generator=seeded(0))
    again, bank = make_problem(observation, model), problem.draw(16, seeded(0))
    with torch.no_grad():
        error = again.errors(values[:1, :2], bank).mean()
        empty = make_problem(observation, tiny_model()).errors(values[:1, :0], bank).mean()
    assert solution.fit == pytest.approx(1 - float(error / empty), abs=1e-5)
    with pytest.raises(InputError, match="count 0 under the rule 'mean'"):
        make_problem(observation, model, count=0)
    by_product = make_problem(observation, tiny_model(rule="mean", reading_rule="product"))
    assert by_product.has_empty
    assert by_product.weighting(3) == 1.0


def test_candidates() -> None:
    model = tiny_model()
    assert make_problem(BLANK, model).slots[0].candidates is None
    assert make_problem(BLANK, labels_model(4)).slots[0].candidates.tolist() == [0, 1, 2, 3]
    twice = torch.tensor([[0.1, 0.2], [0.3, 0.4], [0.1, 0.2]])
    assert len(make_problem(BLANK, model, candidates=twice).slots[0].candidates) == 2  # each value is run once
    with pytest.raises(InputError, match="got candidates"):  # what else is refused is in test_doors.py
        make_problem(BLANK, model, candidates=torch.rand(3, 3))
    with pytest.raises(InputError, match="2 values for at least 3"):
        make_problem(BLANK, model, candidates=torch.rand(2, 2), count=3)
    with pytest.raises(InputError, match="4 values for at least 5"):
        make_problem(BLANK, labels_model(4), count=(5, 6))


@pytest.mark.parametrize(
    ("needs", "model", "options", "message"),
    [
        ("finite", bumps_model(), {}, "continuous slots for 'Fixed'"),
        ("continuous", labels_model(4), {}, "listed values for 'Fixed'"),
        ("differentiable", labels_model(4), {}, "listed values for 'Fixed'"),
        ("differentiable", bumps_model(), {"candidates": torch.rand(4, 2)}, "leave candidates= out"),
        ("continous", bumps_model(), {}, "needs = 'continous' of 'Fixed'; expected 'finite'"),
    ],
)
def test_needs_are_checked_before_any_row(needs: str, model: Any, options: dict[str, Any], message: str) -> None:
    with count_rows() as spent, pytest.raises(InputError, match=message):
        infer(BLANK, model, solver=Fixed(torch.rand(1, 2), needs), **options)
    assert spent.rows == 0


def test_infer_fills_in_the_fit() -> None:
    model, values = bumps_model(), torch.tensor([[0.3, 0.3], [0.7, 0.7]])
    picture = to_unit(planted(model, values))
    with count_rows() as spent:
        exact = infer(picture, model, solver=Fixed(values))
    assert exact.fit == pytest.approx(1, abs=1e-5)
    assert exact.rows == spent.rows > 0
    assert exact.out_of_distribution is None  # the model has no calibration
    assert exact.record()["out_of_distribution"] is None
    assert exact.trusted
    others = (values[:1], values[:0], torch.tensor([[0.3, 0.7]]))
    half, nothing, worse = (infer(picture, model, solver=Fixed(found)).fit for found in others)
    assert nothing is None  # the empty answer explains nothing, also where it is right
    assert 0.4 < half < 0.6  # one of two bumps
    assert worse < 0
    assert infer(BLANK, labels_model(3, rule="mean"), solver=Fixed(torch.tensor([1]))).fit is None


def test_an_unusual_error_warns() -> None:
    values = torch.tensor([[0.3, 0.3]])
    usual = torch.randn(50, 2, generator=seeded(0)) * 0.1  # logarithms: errors of about 1
    model = bumps_model(calibration=calibration_of({1: usual}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        typical = infer(to_unit(planted(model, values) + 0.001), model, solver=Fixed(values))
    assert typical.out_of_distribution is False
    assert typical.typicality > 0.01
    with pytest.warns(OutOfDistributionWarning, match="with 1 components reach") as caught:
        foreign = infer(to_unit(-torch.ones(3, 16, 16)), model, solver=Fixed(values))
    assert caught[0].filename == __file__
    assert foreign.out_of_distribution
    assert any("out of distribution" in warning for warning in foreign.warnings)
    background = to_unit(planted(model, values[:0]))
    assert infer(background, bumps_model(), solver=Fixed(values)).typicality is None


@pytest.mark.parametrize(
    ("count", "answer", "limit"),
    [((0, 3), 3, True), ((0, 3), 0, False), ((1, 3), 1, True), ((1, 3), 2, False), (3, 3, False), (None, 3, True)],
)
def test_an_answer_at_the_end_of_the_range_of_counts_is_flagged(count: Any, answer: int, limit: bool) -> None:
    solution = infer(BLANK, bumps_model(), solver=Fixed(torch.rand(answer, 2)), count=count)
    assert solution.at_count_limit is limit
    assert any("end of the range" in warning for warning in solution.warnings) is limit


@pytest.mark.parametrize(("distinct", "limit"), [(True, False), (False, True)])
def test_the_end_of_the_range_is_no_limit_where_every_value_is_taken(distinct: bool, limit: bool) -> None:
    """A warning asked for a larger range, in which there is no further answer."""
    model = labels_model(2, counts=(0, 2), distinct=distinct)
    found = infer(to_unit(planted(model, torch.tensor([0, 1]))), model, solver="enumerate")
    assert (found.count, found.at_count_limit) == (2, limit)


def test_a_component_without_which_the_error_does_not_rise_is_flagged() -> None:
    answer = Solution(torch.zeros(3, 2), 3, 0.0, 0.0, 0, component_gain=torch.tensor([1.0, -2.0, 3.0]))
    assert answer.unsupported == (1,)
    assert any("without component 2" in warning for warning in answer.warnings)


def test_infer_is_repeatable() -> None:
    model, picture, solver = tiny_model(), torch.rand(3, 16, 16), Fixed(torch.rand(1, 2, generator=seeded(0)))
    state = torch.get_rng_state()
    assert infer(picture, model, solver=solver).fit == infer(picture, model, solver=solver).fit
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    model, values = bumps_model().to("cuda"), torch.tensor([[0.3, 0.3], [0.7, 0.7]])
    solution = infer(to_unit(planted(bumps_model(), values)), model, solver=Fixed(values.to("cuda")))
    assert solution.fit == pytest.approx(1, abs=1e-4)


def test_gradients_are_followed_in_inference_mode() -> None:
    model, places = bumps_model(), torch.tensor([[0.2, 0.3]])
    image = to_unit(planted(model, places))
    options: Any = {"solver": SGD(inits=2, steps=6), "count": 1}
    expected = infer(image, model, **options)
    with torch.inference_mode():
        assert torch.equal(infer(image.clone(), model, **options).conditions, expected.conditions)
        with pytest.raises(InputError, match=r"loaded in torch\.inference_mode"):
            infer(image, tiny_model(), **options)


@pytest.mark.filterwarnings("ignore::energycomp.inference.OutOfDistributionWarning")
@pytest.mark.parametrize("found", [0.7, 0.9999])
def test_a_p_value_is_that_of_its_test_however_sure_the_answer_is(found: float) -> None:
    """Many draws make a lead of one nat significant; that is no certainty, which `sure` says."""
    values = torch.tensor([[0.5, 0.5]])
    solver = Fixed(
        values,
        said={"runner_up": values + 0.1, "difference": 1.0, "p_value": 0.001, "probability": torch.tensor([found])},
    )
    levels = Calibration((1,), ((0.0, 0.0),), ((1.0, 1.0),), tuple(range(9)), 100, sure=(0.0, 1.0))
    fitted = infer(BLANK[0], bumps_model(beta=4.0, calibration=levels), solver=solver, count=1)
    assert (fitted.sure, fitted.p_value) == (pytest.approx(found), 0.001)
    plain = infer(BLANK[0], bumps_model(beta=4.0), solver=solver)
    assert (plain.sure, plain.p_value) == (None, 0.001)


def test_a_warm_start_costs_less_and_finds_what_is_new() -> None:
    """The places of the frame before, in the order of the next one, which has one more."""
    model = bumps_model(counts=(0, 4), solver="pursuit")
    frames = [torch.tensor([[0.2, 0.3], [0.7, 0.8]]), torch.tensor([[0.21, 0.31], [0.69, 0.79], [0.75, 0.2]])]
    first, second = (infer(to_unit(planted(model, places)), model) for places in frames)
    warm = infer(to_unit(planted(model, frames[1])), model, init=first.conditions)
    torch.testing.assert_close(warm.conditions, second.conditions, atol=2e-3, rtol=0)
    same = infer(to_unit(planted(model, frames[0])), model, init=first.conditions)
    torch.testing.assert_close(same.conditions, first.conditions, atol=2e-3, rtol=0)
    assert same.trace["rows"][1] < 0.5 * first.trace["rows"][1]
    descended = infer(to_unit(planted(model, frames[0])), model, solver=SGD(inits=1, steps=30), init=first.conditions)
    assert descended.count == 2


def test_a_start_that_does_not_fit_is_refused() -> None:
    model, image = bumps_model(counts=(0, 1)), torch.zeros(3, 16, 16)
    with pytest.raises(InputError, match="got 2 values of init= and counts up to 1"):
        infer(image, model, init=torch.rand(2, 2))
    for options in ({"solver": "enumerate"}, {"solver": "pursuit"}):
        with pytest.raises(InputError, match="got init= for"):
            infer(image, model, init=torch.rand(1, 2), candidates=torch.rand(4, 2), **options)


@pytest.mark.parametrize("solver", ["enumerate", "beam", "pursuit"])
def test_the_best_answers_come_in_order(solver: str) -> None:
    model = labels_model(5, beta=1.0)
    solution = infer(to_unit(planted(model, torch.tensor([1, 3]))), model, solver=solver)
    best = solution.best(5)
    assert len(best) == 5
    assert best[0].conditions.equal(solution.conditions)
    assert solution.runner_up is not None
    assert best[1].conditions.tolist() == solution.runner_up.tolist()
    behind = [one.behind for one in best]
    assert behind == sorted(behind)
    assert behind[0] == 0.0 < behind[1]
    assert [len(solution.best(n)) for n in (0, 1, 2)] == [0, 1, 2]
