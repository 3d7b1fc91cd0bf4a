"""The search for changes of an answer, against models in closed form."""

from collections.abc import Callable
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from energycomp.denoisers.together import run_together
from energycomp.images import to_unit
from energycomp.inference import AttributeErrors, Problem, QuadraticForm, SearchInterrupted, each, infer, make_problem
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp.testing import bumps_model, planted, tinted_model, tiny_model
from energycomp_solvers.pursuit import Pursuit
from energycomp_solvers.search.accept import Acceptance
from energycomp_solvers.search.combinations import combinations
from energycomp_solvers.search.hypothesis import Candidate, Hypothesis, SearchSpace
from energycomp_solvers.search.lattice import Screen
from energycomp_solvers.search.loop import search
from energycomp_solvers.search.options import SearchOptions
from energycomp_solvers.search.proposals import Place, birth, find_nearby, merge, prune
from energycomp_solvers.search.residual import Places, component_scores, match_scores, place_scores
from energycomp_solvers.search.schedule import Schedule
from energycomp_solvers.search.update import Update

TRUE = torch.tensor([[0.3, 0.35], [0.7, 0.3], [0.6, 0.75]])


def problem_of(model: Model, true: Tensor) -> tuple[Problem, Places]:
    problem = make_problem(planted(model, true), model)
    screen = Screen.of(problem, problem.draw(2, seeded(1)), 12)
    return problem, Places(screen.atoms, screen.form.atoms[0], 3)


def evaluate(
    problem: Problem, values: Tensor, known: AttributeErrors | None = None, options: SearchOptions | None = None
) -> Hypothesis:
    return Hypothesis.evaluate(SearchSpace.draw(problem, options or SearchOptions(), seeded(0)), values, known)


def find(problem: Problem, lattice: Places, start: Tensor, budget: int = 4_000) -> Tensor:
    answer = search(evaluate(problem, start), lattice, 1e-2, budget).answer
    return start if answer is None else answer.values


def acceptance_of(problem: Problem) -> Acceptance:
    return Acceptance(problem, 1e-2, SearchOptions().penalty)


def test_images_of_a_batch_are_validated_side_by_side() -> None:
    """Each waits in its validation for the others, and none may hold what another one needs."""
    model = bumps_model()
    answers = [evaluate(problem_of(model, TRUE[:k])[0], TRUE[:k]) for k in (1, 2, 3)]
    tasks = [answer.validation_errors for answer in answers]
    together: list[list[Tensor]] = []
    thread = Thread(target=lambda: together.append(run_together(tasks)), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    alone = [evaluate(problem_of(model, TRUE[:k])[0], TRUE[:k]).validation_errors() for k in (1, 2, 3)]
    torch.testing.assert_close(together[0], alone)


def test_what_fits_badly_is_doubted_most() -> None:
    problem, places = problem_of(bumps_model(), TRUE)
    start = TRUE + torch.tensor([[0.0, 0.0], [0.03, 0.02], [0.0, 0.0]])
    found = component_scores(problem.quadratic(start, problem.draw(4, seeded(0))), 3)
    assert found.argmax() == 1
    assert found[[0, 2]].max() < 0.2 * found[1]
    left = place_scores(problem.quadratic(TRUE[:2], problem.draw(4, seeded(0))), places)
    assert (places.values[left.argmax()] - TRUE[2]).abs().max() < 0.06


def test_a_small_missing_component_is_proposed_before_what_is_left_of_a_large_one() -> None:
    model = tinted_model()
    parse = model.conditioner.parse
    large = parse(0.3, 0.35, tint="red", width="wide")
    small = parse(0.8, 0.75, tint="blue", width="narrow")
    problem, places = problem_of(model, torch.cat([large, small]))
    start = parse(0.36, 0.41, tint="green", width="wide")
    form = problem.quadratic(start, problem.draw(4, seeded(0)))
    by_what_is_left = places.values[place_scores(form, places).argmax()]
    assert (by_what_is_left - large[0, :2]).norm() < 0.3
    proposed = places.values[match_scores(form, places).argmax()]
    assert (proposed - small[0, :2]).norm() < 0.1


@pytest.mark.parametrize(
    "start",
    [
        TRUE[:2],
        TRUE[:0],
        torch.cat([TRUE, torch.tensor([[0.1, 0.8]])]),
        torch.cat([TRUE[:2], torch.tensor([[0.4, 0.9]])]),
    ],
    ids=["missing", "empty", "one too many", "one elsewhere"],
)
def test_places_are_repaired(start: Tensor) -> None:
    found = find(*problem_of(bumps_model(counts=(0, 5)), TRUE), start)
    assert len(found) == 3
    assert torch.cdist(found, TRUE).amin(1).max() < 0.01


def test_words_and_places_that_hold_each_other_are_read_together() -> None:
    model = tinted_model()
    parse = model.conditioner.parse
    true = torch.cat([parse(0.3, 0.35, tint="red", width="narrow"), parse(0.7, 0.7, tint="blue", width="wide")])
    wrong = torch.cat([parse(0.32, 0.33, tint="blue", width="wide"), true[1:]])
    found = find(*problem_of(model, true), wrong)
    order = found[:, 0].argsort()
    torch.testing.assert_close(found[order][:, 2:], true[:, 2:])
    assert (found[order] - true).abs().max() < 0.01


def test_a_word_that_is_better_at_its_own_place_alone_is_found() -> None:
    model = tinted_model(beta=1.0)
    parse = model.conditioner.parse
    true = parse(0.4, 0.5, tint="red", width="narrow")
    start = parse(0.43, 0.52, tint="red", width="wide")

    def unlikely(values: Tensor) -> Tensor:  # narrow ones away from their place
        return 3e3 * (values[:, :2] - true[0, :2]).square().sum(1) * (values[:, 3] == true[0, 3])

    hypothesis = evaluate(make_problem(planted(model, true), model, prior=each(unlikely)), start)
    old = hypothesis.component(0)
    narrow = hypothesis.space.evaluate(Candidate(torch.cat([old.value[:2], true[0, 2:]]), ()))
    left, with_other = Update(hypothesis, []).errors([old, narrow]).tolist()
    assert left < with_other  # the wrong word is better where the component is
    best = Update(hypothesis, []).best(old.value, 0)
    assert best.value[2:].equal(true[0, 2:])
    assert (best.value - true[0]).abs().max() < 0.01


def test_a_component_whose_words_are_certain_still_moves() -> None:
    model = tinted_model(beta=1000.0)
    true = model.conditioner.parse(0.4, 0.5, tint="red", width="narrow")
    problem, _ = problem_of(model, true)
    hypothesis = evaluate(problem, model.conditioner.parse(0.41, 0.495, tint="red", width="narrow"))
    best = Update(hypothesis, []).best(hypothesis.values[0], 0)
    assert (best.value - true[0]).abs().max() < 0.001


@pytest.mark.parametrize("distance", [0.1, 0.14, 0.18])
def test_a_component_in_the_middle_of_two_is_halved(distance: float) -> None:
    middle = torch.tensor([[0.45, 0.5]])
    half = distance / 2 * torch.tensor([[0.8, 0.6]])
    true = torch.cat([middle + half, middle - half, torch.tensor([[0.85, 0.85]])])
    found = find(*problem_of(bumps_model(counts=(0, 6)), true), torch.cat([middle, true[2:]]))
    assert len(found) == 3
    assert torch.cdist(true, found).amin(1).max() < 0.005


def test_a_hidden_component_is_found_though_another_one_moved_to_its_side() -> None:
    model = tinted_model(counts=(0, 4))
    parse = model.conditioner.parse
    true = torch.cat([parse(0.4, 0.5, tint="red", width="wide"), parse(0.52, 0.42, tint="blue", width="narrow")])
    start = parse(0.44, 0.47, tint="red", width="wide")
    found = find(*problem_of(model, true), start)
    assert len(found) == 2
    assert torch.cdist(true, found).amin(1).max() < 0.01


def test_two_components_are_tried_for_one_that_stands_for_both_where_much_is_left() -> None:
    """A wide bump in the middle of two narrow ones: beside it neither of them gains anything."""
    model = tinted_model(beta=10.0, counts=(0, 5))
    parse = model.conditioner.parse
    true = torch.cat([parse(0.39, 0.47, tint="red", width="narrow"), parse(0.51, 0.53, tint="blue", width="narrow")])
    problem = make_problem(planted(model, true), model)
    hypothesis, acceptance = evaluate(problem, parse(0.45, 0.5, tint="red", width="wide")), acceptance_of(problem)
    place = true[0, :2]
    assert birth(hypothesis, Place(place, is_strong=False, beside=0), acceptance) is None
    assert birth(hypothesis, Place(place, is_strong=True, beside=None), acceptance) is None
    both = birth(hypothesis, Place(place, is_strong=True, beside=0), acceptance)
    assert both is not None
    order = both.values[:, 0].argsort()
    assert both.values[order][:, 2:].equal(true[:, 2:])
    assert (both.values[order] - true)[:, :2].abs().max() < 0.03
    whole = problem.quadratic(both.values, both.space.validation)
    torch.testing.assert_close(both.validation_errors(), whole.errors([0, 1]))


def test_two_are_tried_for_one_once_and_it_stays_if_they_are_no_better() -> None:
    model = tinted_model(beta=10.0, counts=(0, 5))
    true = model.conditioner.parse(0.45, 0.5, tint="red", width="wide")
    problem = make_problem(planted(model, true), model)
    hypothesis, acceptance = evaluate(problem, true), acceptance_of(problem)
    spent = []
    for _ in range(2):
        before = problem.rows
        assert birth(hypothesis, Place(true[0, :2] + 0.02, is_strong=True, beside=0), acceptance) is None
        spent.append(problem.rows - before)
    assert spent[1] == 9 + 2 * 3 < spent[0]


def test_one_component_is_tried_for_two_of_which_one_is_missed_little() -> None:
    """Two narrow bumps that share a wide one are missed by 12 to 15 nats each, and by none beside a wide one."""
    model = tinted_model(beta=10.0, counts=(0, 5))
    parse = model.conditioner.parse
    true = torch.cat([parse(0.8, 0.8, tint="blue", width="narrow"), parse(0.4, 0.5, tint="red", width="wide")])
    parts = [parse(x, y, tint="red", width="narrow") for x, y in ((0.39, 0.46), (0.42, 0.56))]
    problem = make_problem(planted(model, true), model)
    acceptance = acceptance_of(problem)
    three = prune(evaluate(problem, torch.cat([true[:1], *parts])), acceptance)
    assert len(three) == 3
    two = merge(three, acceptance)
    assert two is not None
    assert two.values[:, 2:].equal(true[:, 2:])
    assert (two.values - true).abs().max() < 0.01
    assert merge(two, acceptance) is None
    # Two that are there
    both = torch.cat([true[1:], parse(0.52, 0.58, tint="blue", width="narrow")])
    problem = make_problem(planted(model, both), model)
    assert merge(evaluate(problem, both), acceptance_of(problem)) is None


@pytest.mark.parametrize(("beta", "count"), [(None, 3), (10.0, 3), (0.01, 0)])
def test_a_component_has_to_be_worth_its_place(beta: float | None, count: int) -> None:
    assert len(find(*problem_of(bumps_model(counts=(0, 5), beta=beta), TRUE), TRUE)) == count


def test_a_right_answer_stays_and_costs_little() -> None:
    problem, lattice = problem_of(bumps_model(), TRUE)
    hypothesis = evaluate(problem, TRUE)
    before = problem.rows
    assert search(hypothesis, lattice, 1e-2, 10_000).answer is None
    assert problem.rows - before <= 3 * (9 + 2 * 3)  # three places that get none; validation draws are not asked


def test_what_is_known_of_a_component_that_is_updated_costs_nothing() -> None:
    problem, _ = problem_of(bumps_model(), TRUE)
    hypothesis = evaluate(problem, TRUE)
    old = hypothesis.component(2)
    before = problem.rows
    assert Update(hypothesis, [0, 1]).best(old.value, 2) is None
    assert problem.rows - before == 8 * (2 + 1)  # both numbers changed a little, and the place that this gives
    before = problem.rows
    start, _ = find_nearby(hypothesis, [0, 1], old.value, old)
    assert start.equal(old.value)
    assert problem.rows - before == 8 + 2 * 2
    before = problem.rows
    assert find_nearby(hypothesis, [0, 1], old.value)[0].equal(old.value)
    assert problem.rows - before == 9 + 2 * 3


def test_a_hypothesis_has_the_errors_of_its_draws() -> None:
    problem, lattice = problem_of(bumps_model(), TRUE)
    drawn = problem.draw(8, seeded(0))
    errors = evaluate(problem, TRUE).errors([0, 2])
    torch.testing.assert_close(errors, problem.quadratic(TRUE[[0, 2]], drawn).errors([0, 1]))
    surplus = evaluate(problem, torch.cat([TRUE, torch.tensor([[0.1, 0.8]])]))
    assert search(surplus, lattice, 1e-2, 4_000).answer is not None


def test_without_attributes_what_fits_worse_than_the_others_is_updated() -> None:
    problem, lattice = problem_of(bumps_model(), TRUE)
    start = TRUE + torch.tensor([[0.0, 0.0], [0.03, 0.02], [0.0, 0.0]])
    schedule = Schedule.start(evaluate(problem, start), lattice, 4_000)
    assert [value.tolist() for value in schedule.tried] == start[[0, 2]].tolist()
    assert (find(problem, lattice, start)[-1] - TRUE[1]).abs().max() < 2e-3


def test_the_search_goes_on_where_its_lattice_is_too_coarse() -> None:
    problem = make_problem(planted(bumps_model(counts=(0, 5)), TRUE), bumps_model(counts=(0, 5)))
    solution = Pursuit(side=4).solve(problem, generator=seeded(0))
    assert solution.count == 3
    assert torch.cdist(TRUE, solution.conditions).amin(1).max() < 0.01
    assert sum(solution.trace["rows"]) == solution.rows


def test_no_budget_and_one_possible_count_are_searches_like_any_other() -> None:
    model = bumps_model()
    problem = make_problem(planted(model, TRUE), model)
    solution = Pursuit(side=12, budget=0).solve(problem, generator=seeded(0))
    assert solution.trace["rows"][4] == 0
    problem = make_problem(planted(bumps_model(), TRUE), bumps_model(counts=(2, 2)))
    assert Pursuit(side=8).solve(problem, generator=seeded(0)).count == 2


def test_a_component_that_moves_and_is_dropped_leaves_an_empty_answer() -> None:
    draw = np.random.default_rng(0)
    *_, noise = (draw.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(214))
    image = Image.fromarray(noise)  # in which an untrained model finds something, moves it, and gives it up
    assert infer(image, tiny_model(solver="pursuit"), count=(0, 1), progress=False).count == 0


def test_ctrl_c_leaves_the_first_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    model = bumps_model(counts=(0, 5))
    image = to_unit(planted(model, TRUE))
    complete = infer(image, model, solver=Pursuit(side=12))
    monkeypatch.setattr("energycomp_solvers.search.loop.merge", stop)
    with pytest.raises(SearchInterrupted) as stopped:
        infer(image, model, solver=Pursuit(side=12))
    solution = stopped.value.finish()
    torch.testing.assert_close(solution.conditions, complete.conditions, rtol=0, atol=5e-3)
    assert solution.fit == pytest.approx(complete.fit, abs=0.01)
    assert len(solution.record()["objects"]) == 3
    with pytest.raises(SearchInterrupted) as stopped:
        Pursuit(side=12).solve(make_problem(planted(model, TRUE), model), generator=0)
    solution = stopped.value.finish()
    assert sum(solution.trace["rows"]) == solution.rows


@pytest.mark.parametrize("model", [bumps_model, tinted_model])
def test_a_search_without_low_noise(model: Callable[..., Model]) -> None:
    high = model(counts=(0, 5), timesteps=(700, 900))
    found = infer(to_unit(planted(high, torch.cat([TRUE, torch.zeros(3, 0)], 1))), high, solver=Pursuit(side=12))
    assert found.count == 3


def test_components_with_words_move_to_their_places_together() -> None:
    model = tinted_model()
    parse = model.conditioner.parse
    true = torch.cat([parse(0.4, 0.5, tint="red", width="narrow"), parse(0.5, 0.5, tint="blue", width="wide")])
    problem = make_problem(planted(model, true), model)
    off = torch.tensor([[0.01, -0.01, 0.0, 0.0], [-0.01, 0.0, 0.0, 0.0]])
    moved = evaluate(problem, true + off).move([0, 1])
    assert problem.rows == 8 * (1 + 2 + 2 * (2 + 1))  # u, both, each with each number a little off, and the new places
    assert (moved.values - true).abs().max() < 0.1 * off.abs().max()
    whole = problem.quadratic(moved.values, moved.space.parts[1])
    torch.testing.assert_close(moved.forms[1].errors([0, 1]), whole.errors([0, 1]))


def test_the_likeliest_attributes_are_compared_first_others_while_some_are_close() -> None:
    """Of six combinations two see the draw of high noise in each block; none of the second block is close."""
    model = tinted_model(beta=1e4)
    true = model.conditioner.parse(0.4, 0.5, tint="red", width="narrow")
    wrong = model.conditioner.parse(0.4, 0.5, tint="red", width="wide")
    errors = (torch.tensor([[1.0, 1.0002, 1.0004]]), torch.tensor([[1.0, 1.0001]]))
    spent = []
    for size in (2, 6):
        problem, _ = problem_of(model, true)
        known = AttributeErrors(wrong, errors, torch.ones(1))
        hypothesis = evaluate(problem, wrong, known, SearchOptions(block=size))
        before = problem.rows
        best = Update(hypothesis, []).best(wrong[0], 0)
        spent.append(problem.rows - before)
        assert best is not None
        assert best.value[2:].equal(true[0, 2:])
    assert spent[1] - spent[0] == 2


def test_scores_of_components_that_are_known() -> None:
    atoms = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    form = QuadraticForm.of(atoms, torch.tensor([[2.0, 0.5, 4.0]]))
    # The first fits; of the second half is there: 0.25 is left, and its fit is 1 - 2 * 0.5 = 0, at least 0.2.
    torch.testing.assert_close(component_scores(form, 1), torch.tensor([0.0, 1.25], dtype=torch.float64))


def test_the_number_of_threads_changes_no_answer() -> None:
    problem = make_problem(planted(bumps_model(counts=(0, 5)), TRUE), bumps_model(counts=(0, 5)))
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 8):
            torch.set_num_threads(number)
            found.append(Pursuit(side=8).solve(problem, generator=seeded(0)).conditions)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)


def test_words_are_hopeless_by_what_posteriors_are_of() -> None:
    """Under log errors the second tint is 3 log(210 / 10) = 9 nats worse, not 600; the first width is 69 nats worse."""
    model = tinted_model(beta=3.0, log_errors=True)
    problem, _ = problem_of(model, model.conditioner.parse(0.3, 0.35, tint="red", width="wide"))
    start = model.conditioner.parse(0.3, 0.35, tint="red", width="wide")
    errors = (torch.tensor([[10.0, 210.0, 12.0]]), torch.tensor([[1e11, 10.0]]))
    hypothesis = evaluate(problem, start, AttributeErrors(start, errors, torch.ones(1)))
    energies = Update(hypothesis, [])._known_energies(0)
    assert energies is not None
    assert hypothesis.space.attributes is not None
    swaps = combinations(
        hypothesis.space.attributes, start[0], energies, problem.posterior.beta, hypothesis.space.options
    )
    assert swaps[:, 2:].tolist() == [[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]]
