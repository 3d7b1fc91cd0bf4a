"""One contract for all solvers, and each algorithm against brute force."""

import time
from itertools import combinations, combinations_with_replacement, product
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.images import to_unit
from energycomp.inference import Problem, Slot, Solution, Solver, infer, infer_many, make_problem
from energycomp.plugins import find, listing
from energycomp.seeds import seeded
from energycomp.testing import bumps_model, labels_model, planted, tiny_model
from energycomp_lab.checks import check_solver
from energycomp_solvers.beam import Beam
from energycomp_solvers.enumerate import Enumerate
from energycomp_solvers.pursuit import Pursuit
from energycomp_solvers.relaxed import Relaxed
from energycomp_solvers.sgd import SGD
from energycomp_solvers.shared import configurations, number_of_configurations
from energycomp_solvers.weights import Weights, _fit_by_steps

SOLVERS = {"pursuit": Pursuit, "sgd": SGD, "enumerate": Enumerate, "beam": Beam, "weights": Weights, "relaxed": Relaxed}
QUICK = {"sgd": SGD(inits=4, steps=20), "relaxed": Relaxed(steps=10)}  # in place of the defaults, which take seconds
RULES = [
    ("product", "sample"), ("product", "epsilon"), ("mean", "sample"), ("mean", "v_prediction"), ("product", "flow"),
    ("sum", "epsilon"),
]  # fmt: skip


@pytest.mark.parametrize("name", SOLVERS)
def test_contract(name: str) -> None:
    solver = find("solvers", name)()  # installed: found through the entry point
    assert type(solver) is SOLVERS[name]
    assert isinstance(solver, Solver)
    check_solver(QUICK.get(name, solver))


@pytest.mark.parametrize("solver", [Relaxed(mix="predictions", steps=15), Weights(method="sgd", steps=8)], ids=str)
def test_contract_of_other_ways(solver: Any) -> None:
    check_solver(solver)


def test_the_plugin_works_and_registers_all_of_them() -> None:
    (info,) = [plugin for plugin in listing(load=True) if plugin.distribution == "energycomp-solvers"]
    assert info.error is None
    assert set(SOLVERS) <= set(info.registered["solvers"])


@attrs.frozen
class Spoiled:
    """A solver with one fault: its answer has `changes`, of which some depend on the right answer."""

    changes: Any
    unseeded: bool = False

    needs = "finite"

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        if self.unseeded:
            torch.rand(1)
        good = Enumerate().solve(problem, generator=generator)
        return attrs.evolve(good, **self.changes(good, problem))


def first_candidates(good: Solution, problem: Problem) -> dict[str, Any]:
    first = problem.slots[0].candidates if problem.slots else None
    return {"conditions": good.conditions if first is None else first[: good.count]}


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (Spoiled(lambda good, _: {"rows": good.rows + 1}), "rows reported"),
        (Spoiled(lambda good, _: {"count": good.count + 1}), "count is the number of values"),
        (Spoiled(first_candidates), "the planted values leave no error"),
        (Spoiled(lambda good, _: {"error": good.error + 50.0}), "the error of that answer on other draws"),
        (Spoiled(lambda *_: {"p_value": 0.9}), "p below 1/2"),
        (Spoiled(lambda *_: {"runner_up": None}), "numbers where there is a runner-up"),
        (Spoiled(lambda *_: {}, unseeded=True), "global random state"),
    ],
)
def test_the_contract_finds_each_fault(solver: Spoiled, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_solver(solver)


def brute_force(problem: Problem, values: Tensor, draws: int, seed: int) -> dict[tuple[int, ...], float]:
    """Mean error of every subset, each composed and run on its own on the bank that Enumerate selects with."""
    bank = problem.draw(draws, seeded(seed))
    errors = {}
    for count in range(problem.counts[0], problem.counts[1] + 1):
        for chosen in combinations(range(len(values)), count):
            with torch.no_grad():
                errors[chosen] = float(problem.errors(values[list(chosen)][None], bank).double().mean())
    return errors


@pytest.mark.parametrize(("rule", "kind"), RULES)
@pytest.mark.parametrize("seed", [0, 1])
def test_enumerate_is_brute_force(rule: Any, kind: Any, seed: int) -> None:
    model = labels_model(6, rule=rule, prediction_type=kind, seed=seed)
    picture = planted(model, torch.tensor([1, 4])) + 0.3 * torch.randn(1, 3, 16, 16, generator=seeded(seed))
    problem = make_problem(picture, model, count=(0, 4))
    expected = brute_force(problem, torch.arange(6), 5, seed)
    order = sorted(expected, key=lambda chosen: expected[chosen])
    fresh = make_problem(picture, model, count=(0, 4))
    solution = Enumerate(draws=5, p_value=None).solve(fresh, generator=seeded(seed))
    assert tuple(solution.conditions.tolist()) == order[0]
    assert tuple(solution.runner_up.tolist()) == order[1]
    assert solution.trace["error"] == pytest.approx([expected[chosen] for chosen in order[:2]], rel=1e-5)
    assert solution.trace["configurations"] == [len(expected)]


@pytest.mark.parametrize("rule", ["product", "mean"])
def test_enumerate_with_a_real_network_is_brute_force(rule: str) -> None:
    model = tiny_model(rule=rule)
    places = torch.unique(torch.rand(5, 2, generator=seeded(3)), dim=0)
    picture = torch.rand(1, 3, 16, 16, generator=seeded(4)) * 2 - 1
    expected = brute_force(make_problem(picture, model, candidates=places), places, 4, 7)
    solver = Enumerate(draws=4, p_value=None)
    solution = solver.solve(make_problem(picture, model, candidates=places), generator=seeded(7))
    best = min(expected, key=lambda chosen: expected[chosen])
    assert torch.equal(solution.conditions, places[list(best)])
    assert solution.trace["error"][0] == pytest.approx(expected[best], rel=1e-5)


def test_rows_of_enumerate() -> None:
    model = labels_model(7)
    problem = make_problem(planted(model, torch.tensor([2, 5])), model)
    with count_rows() as spent:
        Enumerate(draws=6, fresh_draws=1).solve(problem, generator=seeded(0))
    assert spent.rows - (7 + 1) * 6 in (2 + 3 + 1, 2 + 1 + 1)  # the answer and its rival, one draw, one u
    assert spent.trunks == 6 + 1


def test_two_equal_labels_take_all_draws_and_the_others_one_round() -> None:
    model = labels_model(7)
    sets = [torch.tensor([0, 2, 5]), torch.tensor([0, 2, 6])]
    image = (planted(model, sets[0]) + planted(model, sets[1])) / 2
    with count_rows() as spent:
        solution = Enumerate().solve(make_problem(image, model, count=3), generator=seeded(0))
    assert sorted([solution.conditions.tolist(), solution.runner_up.tolist()]) == [one.tolist() for one in sets]
    assert spent.rows == solution.rows == 8 * (7 + 1) + (2 * 16 - 8) * (4 + 1)


def test_enumerate_reads_in_chunks_and_draws_without_changing_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = labels_model(7)
    problem = make_problem(planted(model, torch.tensor([2, 5])), model)  # 64 sets
    few, many = (Enumerate(chunk=chunk).solve(problem, generator=seeded(0)) for chunk in (64, 63))
    assert few.conditions.tolist() == many.conditions.tolist() == [2, 5]
    assert (few.trace["draws"], many.trace["draws"]) == ([8], [2 * 16])
    model = labels_model(5)
    problem = make_problem(planted(model, torch.tensor([0, 2])), model, count=2)
    whole = Enumerate(draws=12).solve(problem, generator=seeded(0))
    monkeypatch.setattr("energycomp_solvers.shared.answers.AT_ONCE", 5)
    parts = Enumerate(draws=12).solve(problem, generator=seeded(0))
    assert torch.equal(whole.conditions, parts.conditions)
    assert parts.error == pytest.approx(whole.error)


def test_images_that_stop_at_different_draws_are_read_together_as_alone() -> None:
    model = labels_model(6, solver="enumerate", counts=(2, 2))
    clear = planted(model, torch.tensor([1, 4]))
    images = [to_unit(image)[0] for image in (clear, (clear + planted(model, torch.tensor([1, 5]))) / 2, clear)]
    together = list(infer_many(images, model, batch_size=3))
    for image, solution in zip(images, together, strict=True):
        alone = infer(image, model)
        assert solution.conditions.tolist() == alone.conditions.tolist()
        assert (solution.rows, solution.trace["draws"]) == (alone.rows, alone.trace["draws"])
        assert solution.p_value == pytest.approx(alone.p_value, abs=1e-3)
    assert [solution.trace["draws"] for solution in together] == [[8], [32], [8]]


def test_the_limit_names_what_to_use_instead() -> None:
    model = labels_model(64)
    with count_rows() as spent, pytest.raises(InputError, match=r"configurations .* use pursuit or beam"):
        infer(torch.zeros(3, 16, 16), model, solver=Enumerate(), count=(0, 8))
    assert spent.rows == 0


def test_a_million_configurations_take_seconds() -> None:
    model = labels_model(20)
    true = torch.tensor([0, 3, 4, 9, 13, 17, 19])
    problem = make_problem(planted(model, true), model, count=(0, 20))
    start = time.process_time()
    solution = Enumerate(draws=4).solve(problem, generator=seeded(0))
    assert solution.trace["configurations"] == [2**20]
    assert solution.conditions.tolist() == true.tolist()
    assert time.process_time() - start < 20


@pytest.mark.parametrize(("rule", "kind"), RULES)
@pytest.mark.parametrize("seed", range(3))
def test_pursuit_is_enumerate_on_an_easy_dictionary(rule: Any, kind: Any, seed: int) -> None:
    model = labels_model(10, rule=rule, prediction_type=kind, seed=seed)
    true = torch.randperm(10, generator=seeded(seed))[:2]
    for count in ((0, 4), 2):
        problem = make_problem(planted(model, true), model, count=count)
        pursued, exact = (s.solve(problem, generator=seeded(0)) for s in (Pursuit(), Enumerate()))
        assert sorted(pursued.conditions.tolist()) == exact.conditions.tolist() == sorted(true.tolist())


def test_pursuit_finds_many_at_the_cost_of_one_dictionary() -> None:
    model, true = labels_model(40), torch.tensor([1, 5, 8, 13, 21, 34, 35, 39])
    problem = make_problem(planted(model, true), model, count=(0, 12))
    solution = Pursuit(draws=4).solve(problem, generator=seeded(0))
    assert sorted(solution.conditions.tolist()) == true.tolist()
    judging = 2 * problem.default_draws * (12 + 2)  # dropping and the final comparison, at most
    assert solution.rows <= 4 * (40 + 1) + judging


def test_components_that_matter_have_a_gain() -> None:
    model, places = bumps_model(), torch.tensor([[0.25, 0.25], [0.75, 0.7]])
    for solver in (Pursuit(), SGD(inits=8, steps=60)):
        solution = infer(to_unit(planted(model, places)), model, solver=solver, count=2)
        assert (solution.component_gain > 10 * solution.error).all()
        assert solution.p_value is None or solution.p_value < 1e-3
        assert solution.fit == pytest.approx(1, abs=0.02)


def problem_of(slots: list[list[int]], counts: tuple[int, int], *, exchangeable: bool, distinct: bool) -> Problem:
    problem = make_problem(torch.zeros(1, 3, 16, 16), labels_model(4), count=counts)
    made = tuple(Slot(problem.slots[0].support, torch.tensor(values)) for values in slots)
    return attrs.evolve(problem, slots=made, exchangeable=exchangeable, distinct=distinct)


@pytest.mark.parametrize("exchangeable", [True, False])
@pytest.mark.parametrize("distinct", [True, False])
def test_configurations_are_those_of_itertools(exchangeable: bool, distinct: bool) -> None:
    slots = [[0, 1, 2, 3]] * 3
    problem = problem_of(slots, (0, 3), exchangeable=exchangeable, distinct=distinct)
    got = [row for count in range(4) for row in configurations(problem, slots, count)]
    if exchangeable:
        pick = combinations if distinct else combinations_with_replacement
        expected = [row for count in range(4) for row in pick(range(4), count)]
    else:
        every = [row for count in range(4) for row in product(range(4), repeat=count)]
        expected = [row for row in every if len(set(row)) == len(row)] if distinct else every
    assert sorted(got) == sorted(expected)
    assert number_of_configurations(problem, slots) >= len(got)
    assert exchangeable is False or number_of_configurations(problem, slots) == len(got)


def test_slots_that_differ() -> None:
    model = labels_model(4)
    problem = make_problem(planted(model, torch.tensor([0, 3])), model, count=2)
    slots = tuple(Slot(problem.slots[0].support, torch.tensor(values)) for values in ([2, 3], [0, 1]))
    problem = attrs.evolve(problem, slots=slots, exchangeable=False)
    assert Enumerate().solve(problem, generator=seeded(0)).conditions.tolist() == [3, 0]
    with pytest.raises(InputError, match="not exchangeable"):
        Pursuit().solve(problem, generator=seeded(0))


def test_an_answer_that_repeats_a_value_counts_once_in_its_posterior() -> None:
    model = labels_model(3, distinct=False, beta=1.0)
    problem = make_problem(planted(model, torch.tensor([2, 2])), model, count=2)
    solution = Enumerate(draws=4).solve(problem, generator=seeded(0))
    assert solution.conditions.tolist() == [2, 2]
    assert float(solution.probability.max()) <= 1.0


@pytest.mark.parametrize("solver", [Weights(), Weights(method="sgd", steps=3), Pursuit()], ids=repr)
def test_solvers_that_repeat_no_value_answer_within_the_counts_or_say_what_to_use(solver: Any) -> None:
    model = labels_model(2, distinct=False)
    observation = planted(model, torch.tensor([0, 1]))
    solution = solver.solve(make_problem(observation, model, count=(1, 3)), generator=seeded(0))
    assert sorted(solution.conditions.tolist()) == [0, 1]
    assert solution.runner_up is None or sorted(solution.runner_up.tolist()) != [0, 1]
    with pytest.raises(InputError, match="at least 3 components and 2 values; expected as many values"):
        solver.solve(make_problem(observation, model, count=3), generator=seeded(0))


@pytest.mark.parametrize("draws", [9, 16, 17, 33])
def test_early_stopping_compares_with_any_number_of_draws(draws: int) -> None:
    model = labels_model(4, spread=0.5)
    problem = make_problem(planted(model, torch.tensor([1])), model, count=1)
    solution = Enumerate(draws=draws, p_value=1e-300).solve(problem, generator=seeded(0))
    assert solution.p_value < 1e-3
    assert solution.stderr < float("inf")


def test_gradient_steps_on_weights_average_over_their_draws() -> None:
    model = labels_model(3)
    problem = make_problem(planted(model, torch.tensor([0, 2])), model, count=2)
    atoms = torch.arange(3)
    form, weights = _fit_by_steps(problem, atoms, 30, 0.05, seeded(0))
    generator = seeded(0)
    banks = [problem.draw(1, generator) for _ in range(30)]
    expected = [problem.errors(torch.tensor([[0, 1]]), bank).item() for bank in banks]
    assert float(form.errors([0, 1])) == pytest.approx(sum(expected) / 30, rel=1e-4)
    assert weights.argsort(descending=True)[:2].sort().values.tolist() == [0, 2]
