"""The search that goes on: what is doubted, and answers that are repaired, against models in closed form."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from energycomp.images import to_unit
from energycomp.inference import ObjectWords, Problem, QuadraticForm, SearchInterrupted, each, infer, make_problem
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp.testing import bumps_model, planted, tinted_model, tiny_model
from energycomp_solvers.pursuit import Pursuit
from energycomp_solvers.shared import reread
from energycomp_solvers.shared.combinations import combinations
from energycomp_solvers.shared.doubts import doubts, like, missing, undoubted
from energycomp_solvers.shared.lattice import Screen
from energycomp_solvers.shared.nearby import nearby
from energycomp_solvers.shared.refit import Refit
from energycomp_solvers.shared.repair import Repair
from energycomp_solvers.shared.reread import Rereading
from energycomp_solvers.shared.words import exchange, in_doubt, settle, without_favour
from energycomp_solvers.shared.worth import Worth

TRUE = torch.tensor([[0.3, 0.35], [0.7, 0.3], [0.6, 0.75]])


def problem_of(model: Model, true: Tensor) -> tuple[Problem, tuple[Tensor, Tensor]]:
    problem = make_problem(planted(model, true), model)
    screen = Screen.of(problem, problem.draw(2, seeded(1)), 12)
    return problem, (screen.atoms, screen.form.atoms[0])


def repaired(model: Model, true: Tensor, start: Tensor, budget: int = 4_000) -> Repair:
    problem, lattice = problem_of(model, true)
    repair = Repair.of(problem, start, lattice, 1e-2, seeded(0))
    repair.run(budget)
    return repair


def at(problem: Problem, values: Tensor) -> Refit:
    """Components that have not moved."""
    refit = Refit.of(problem, values[:0], seeded(0), None)
    refit.values = values
    refit.forms = [problem.quadratic(values, bank) for bank in refit.banks]
    return refit


def test_what_fits_badly_is_doubted_most() -> None:
    problem, (places, effects) = problem_of(bumps_model(), TRUE)
    start = TRUE + torch.tensor([[0.0, 0.0], [0.03, 0.02], [0.0, 0.0]])
    found = doubts(problem.quadratic(start, problem.draw(4, seeded(0))), 3)
    assert found.argmax() == 1
    assert found[[0, 2]].max() < 0.2 * found[1]
    left = missing(problem.quadratic(TRUE[:2], problem.draw(4, seeded(0))), effects, 3)
    assert (places[left.argmax()] - TRUE[2]).abs().max() < 0.06


def test_a_small_missing_component_is_proposed_before_what_is_left_of_a_large_one() -> None:
    model = tinted_model()
    parse = model.conditioner.parse
    large = parse(0.3, 0.35, tint="red", width="wide")
    small = parse(0.8, 0.75, tint="blue", width="narrow")
    problem, (places, effects) = problem_of(model, torch.cat([large, small]))
    start = parse(0.36, 0.41, tint="green", width="wide")
    form = problem.quadratic(start, problem.draw(4, seeded(0)))
    by_what_is_left = places[missing(form, effects, 3).argmax()]
    assert (by_what_is_left - large[0, :2]).norm() < 0.3
    proposed = places[like(form, effects).argmax()]
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
    found = repaired(bumps_model(counts=(0, 5)), TRUE, start).values
    assert len(found) == 3
    assert torch.cdist(found, TRUE).amin(1).max() < 0.01


def test_words_and_places_that_hold_each_other_are_read_together() -> None:
    model = tinted_model()
    parse = model.conditioner.parse
    true = torch.cat([parse(0.3, 0.35, tint="red", width="narrow"), parse(0.7, 0.7, tint="blue", width="wide")])
    wrong = torch.cat([parse(0.32, 0.33, tint="blue", width="wide"), true[1:]])
    found = repaired(model, true, wrong).values
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

    refit = at(make_problem(planted(model, true), model, prior=each(unlikely)), start)
    old = refit.own(0)
    narrow = refit.candidate(torch.cat([old.value[:2], true[0, 2:]]))
    left, with_other = Rereading(refit, []).errors([old, narrow]).tolist()
    assert left < with_other  # the wrong word is better where the component is
    best = Rereading(refit, []).best(old.value, old)
    assert best.value[2:].equal(true[0, 2:])
    assert (best.value - true[0]).abs().max() < 0.01


def test_a_component_whose_words_are_certain_still_moves() -> None:
    model = tinted_model(beta=1000.0)
    true = model.conditioner.parse(0.4, 0.5, tint="red", width="narrow")
    problem, _ = problem_of(model, true)
    refit = at(problem, model.conditioner.parse(0.41, 0.495, tint="red", width="narrow"))
    old = refit.own(0)
    best = Rereading(refit, []).best(old.value, old)
    assert (best.value - true[0]).abs().max() < 0.001


def test_words_that_are_read_last_get_places_that_suit_them() -> None:
    model = tinted_model()
    parse = model.conditioner.parse
    true = torch.cat([parse(0.4, 0.5, tint="red", width="narrow"), parse(0.8, 0.8, tint="blue", width="wide")])
    problem, _ = problem_of(model, true)
    refit = at(problem, torch.cat([parse(0.42, 0.51, tint="red", width="wide"), true[1:]]))
    before = problem.rows
    settle(refit, refit.values)
    assert problem.rows == before
    other = torch.cat([refit.values[:, :2], true[:, 2:]], dim=1)
    settle(refit, other)
    assert problem.rows - before == 8 * (2 + 2)  # of one component: with its new word, moved, and the new place
    assert refit.values[:, 2:].equal(true[:, 2:])
    assert refit.values[1].equal(other[1])
    assert (refit.values[0] - true[0]).norm() < 0.5 * (other[0] - true[0]).norm()
    torch.testing.assert_close(refit.whole().b, refit.quadratic(refit.values).b)


@pytest.mark.parametrize("distance", [0.1, 0.14, 0.18])
def test_a_component_in_the_middle_of_two_is_halved(distance: float) -> None:
    middle = torch.tensor([[0.45, 0.5]])
    half = distance / 2 * torch.tensor([[0.8, 0.6]])
    true = torch.cat([middle + half, middle - half, torch.tensor([[0.85, 0.85]])])
    found = repaired(bumps_model(counts=(0, 6)), true, torch.cat([middle, true[2:]])).values
    assert len(found) == 3
    assert torch.cdist(true, found).amin(1).max() < 0.005


def test_a_hidden_component_is_found_though_another_one_moved_to_its_side() -> None:
    model = tinted_model(counts=(0, 4))
    parse = model.conditioner.parse
    true = torch.cat([parse(0.4, 0.5, tint="red", width="wide"), parse(0.52, 0.42, tint="blue", width="narrow")])
    start = parse(0.44, 0.47, tint="red", width="wide")
    found = repaired(model, true, start).values
    assert len(found) == 2
    assert torch.cdist(true, found).amin(1).max() < 0.01


@pytest.mark.parametrize(("beta", "count"), [(None, 3), (10.0, 3), (0.01, 0)])
def test_a_component_has_to_be_worth_its_place(beta: float | None, count: int) -> None:
    assert len(repaired(bumps_model(counts=(0, 5), beta=beta), TRUE, TRUE).values) == count


def test_a_right_answer_stays_and_costs_little() -> None:
    problem, lattice = problem_of(bumps_model(), TRUE)
    repair = Repair.of(problem, TRUE, lattice, 1e-2, seeded(0))
    before = problem.rows
    repair.run(10_000)
    assert len(repair.values) == 3
    assert torch.cdist(repair.values, TRUE).amin(1).max() < 2e-3
    assert problem.rows - before <= 3 * (9 + 2 * 3)  # three places that get none


def test_what_is_known_of_a_component_that_is_read_again_costs_nothing() -> None:
    problem, _ = problem_of(bumps_model(), TRUE)
    refit = Refit.of(problem, TRUE, seeded(0), None)
    own = refit.own(2)
    before = problem.rows
    assert Rereading(refit, [0, 1]).best(own.value, own) is None
    assert problem.rows - before == 8 * (2 + 1)  # both numbers changed a little, and the place that this gives
    before = problem.rows
    start, _ = nearby(refit, [0, 1], own.value, own)
    assert start.equal(own.value)
    assert problem.rows - before == 8 + 2 * 2
    before = problem.rows
    assert nearby(refit, [0, 1], own.value)[0].equal(own.value)
    assert problem.rows - before == 9 + 2 * 3


def test_draws_that_judge_are_not_asked_where_nothing_is_open() -> None:
    problem, lattice = problem_of(bumps_model(), TRUE)
    repair = Repair.of(problem, TRUE, lattice, 1e-2, seeded(0))
    drawn = problem.draw(8, seeded(0))
    torch.testing.assert_close(repair.refit.errors([0, 2]), problem.quadratic(TRUE[[0, 2]], drawn).errors([0, 1]))
    repair.run(4_000)
    assert repair.is_as_it_was
    repair = Repair.of(problem, torch.cat([TRUE, torch.tensor([[0.1, 0.8]])]), lattice, 1e-2, seeded(0))
    repair.run(4_000)
    assert not repair.is_as_it_was


def test_without_words_what_fits_worse_than_the_others_is_read_again() -> None:
    problem, lattice = problem_of(bumps_model(), TRUE)
    start = TRUE + torch.tensor([[0.0, 0.0], [0.03, 0.02], [0.0, 0.0]])
    repair = Repair.of(problem, start, lattice, 1e-2, seeded(0))
    assert [value.tolist() for value in undoubted(repair.refit)] == start[[0, 2]].tolist()
    repair.run(4_000)
    assert (repair.values[-1] - TRUE[1]).abs().max() < 2e-3


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
    def run(repair: Repair, budget: int) -> None:
        repair.refit.keep([])  # whatever the search has done until then
        raise KeyboardInterrupt

    model = bumps_model(counts=(0, 5))
    image = to_unit(planted(model, TRUE))
    complete = infer(image, model, solver=Pursuit(side=12))
    monkeypatch.setattr(Repair, "run", run)
    with pytest.raises(SearchInterrupted) as stop:
        infer(image, model, solver=Pursuit(side=12))
    solution = stop.value.finish()
    torch.testing.assert_close(solution.conditions, complete.conditions, rtol=0, atol=5e-3)
    assert solution.fit == pytest.approx(complete.fit, abs=0.01)
    assert len(solution.record()["objects"]) == 3
    with pytest.raises(SearchInterrupted) as stop:
        Pursuit(side=12).solve(make_problem(planted(model, TRUE), model), generator=0)
    solution = stop.value.finish()
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
    refit = Refit.of(problem, true + off, seeded(0), None)
    assert problem.rows == 8 * (1 + 2 + 2 * (2 + 1))  # u, both, each with each number a little off, and the new places
    assert (refit.values - true).abs().max() < 0.1 * off.abs().max()
    whole = problem.quadratic(refit.values, refit.banks[1])
    torch.testing.assert_close(refit.forms[1].errors([0, 1]), whole.errors([0, 1]))


def test_the_likeliest_words_are_compared_first_others_while_some_are_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of six combinations two see the draw of high noise in each block; none of the second block is close."""
    model = tinted_model(beta=1e4)
    true = model.conditioner.parse(0.4, 0.5, tint="red", width="narrow")
    wrong = model.conditioner.parse(0.4, 0.5, tint="red", width="wide")
    errors = (torch.tensor([[1.0, 1.0002, 1.0004]]), torch.tensor([[1.0, 1.0001]]))
    spent = []
    for size in (2, 6):
        monkeypatch.setattr(reread, "BLOCK", size)
        problem, _ = problem_of(model, true)
        refit = at(problem, wrong)
        refit.asked = ObjectWords(wrong, errors)
        before = problem.rows
        best = Rereading(refit, []).best(wrong[0], refit.own(0), 0)
        spent.append(problem.rows - before)
        assert best is not None
        assert best.value[2:].equal(true[0, 2:])
    assert spent[1] - spent[0] == 2


def test_doubts_of_components_that_are_known() -> None:
    atoms = torch.tensor([[[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    form = QuadraticForm.of(atoms, torch.tensor([[2.0, 0.5, 4.0]]))
    # The first fits; of the second half is there: 0.25 is left, and its fit is 1 - 2 * 0.5 = 0, at least 0.2.
    torch.testing.assert_close(doubts(form, 1), torch.tensor([0.0, 1.25], dtype=torch.float64))


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
    refit = Refit.of(problem, start, seeded(0), ObjectWords(start, errors))
    energies = Rereading(refit, [])._asked(0)
    assert energies is not None
    assert refit.words is not None
    options = combinations(refit.words, start[0], energies, problem.beta)
    assert options[:, 2:].tolist() == [[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize("behind", [0.001, 0.98])  # errors of two words with posteriors of about 0.5, and of 0.95
def test_words_in_doubt_are_read_at_a_place_that_favours_none_of_them(behind: float) -> None:
    """From two places, with two words, that two searches found: the places are one, and words that are sure stay."""
    model = tinted_model(beta=3.0)
    parse = model.conditioner.parse
    true = torch.cat([parse(0.3, 0.35, tint="red", width="wide"), parse(0.7, 0.7, tint="blue", width="narrow")])
    problem, _ = problem_of(model, true)
    drawn = torch.tensor([6.0, 6.0])
    level = torch.tensor([[1.0, 1.0 + behind, 9.0], [9.0, 9.0, 1.0]])  # the first two tints of the first bump
    sure = torch.tensor([[9.0, 1.0], [1.0, 9.0]])
    places = []
    for tint, aside in ((1.0, 0.015), (2.0, -0.015)):
        start = true.clone()
        start[0, :3] += torch.tensor([aside, -aside, tint - true[0, 2]])
        words = ObjectWords(start, (level, sure), drawn)
        found = without_favour(at(problem, start), start, in_doubt(problem, words, 0.99))
        assert found[0, 2:].equal(start[0, 2:])
        assert found[1, 2:].equal(start[1, 2:])
        assert (found[1] - start[1]).abs().max() < 2e-3  # it accounts for its neighbour
        places.append(found[0, :2])
    assert (places[0] - places[1]).abs().max() < 2e-3
    assert (places[0] - true[0, :2]).abs().max() < 4e-3
    certain = ObjectWords(true, (torch.tensor([[1.0, 9.0, 9.0], [9.0, 9.0, 1.0]]), sure), drawn)
    before = problem.rows
    refit = at(problem, true)
    spent = problem.rows
    assert without_favour(refit, true, in_doubt(problem, certain, 0.99)) is true
    assert problem.rows == spent > before


def test_only_what_is_in_doubt_and_what_is_beside_it_moves() -> None:
    model = tinted_model(beta=3.0)
    parse = model.conditioner.parse
    words = [{"tint": "red", "width": "wide"}, {"tint": "blue", "width": "narrow"}, {"tint": "red", "width": "narrow"}]
    true = torch.cat([parse(*xy, **kw) for xy, kw in zip([(0.3, 0.3), (0.36, 0.36), (0.8, 0.8)], words, strict=True)])
    problem, _ = problem_of(model, true)
    start = true.clone()
    start[:, :2] += 0.01
    tints = torch.tensor([[1.0, 1.1, 9.0], [9.0, 9.0, 1.0], [1.0, 9.0, 9.0]])
    widths = torch.tensor([[9.0, 1.0], [1.0, 9.0], [1.0, 9.0]])
    refit = at(problem, start)
    before = problem.rows
    words = ObjectWords(start, (tints, widths), torch.tensor([6.0, 6.0, 6.0]))
    found = without_favour(refit, start, in_doubt(problem, words, 0.99))
    assert found[2].equal(start[2])
    assert (found[:2, :2] - start[:2, :2]).abs().amax(1).min() > 1e-3
    assert (problem.rows - before) % 8 == 0
    assert problem.rows - before <= 8 * (1 + 4 * 2 * 3)  # four steps of two components, at most
    # What nothing is known of is not doubted: its words are asked first
    unknown = ObjectWords(start, (torch.ones(3, 3), torch.ones(3, 2)), torch.zeros(3))
    assert not in_doubt(problem, unknown, 0.99).any()


def two_tinted() -> tuple[Problem, Tensor]:
    """The problem of a wide red bump beside a narrow blue one, and these."""
    model = tinted_model(beta=3.0)
    parse = model.conditioner.parse
    true = torch.cat([parse(0.3, 0.35, tint="red", width="wide"), parse(0.7, 0.7, tint="blue", width="narrow")])
    return problem_of(model, true)[0], true


def exchanged(problem: Problem, values: Tensor, before: Tensor, errors: tuple[Tensor, ...]) -> tuple[Tensor, list[int]]:
    """The components after `exchange`, and which of them have changed."""
    refit = at(problem, values)
    words = ObjectWords(values, errors, torch.full((len(values),), 6.0))
    changed = exchange(refit, words, (before, refit.quadratic(before)))
    return refit.values, changed


def test_two_words_that_are_wrong_together_are_exchanged_at_once() -> None:
    """Each of them was ruled out beside the other one, by 8 nats of tints and 9 of widths."""
    problem, true = two_tinted()
    values = true.clone()
    values[0, 2:4] = torch.tensor([2.0, 1.0])
    values[0, :2] += 0.01
    errors = (torch.tensor([[8.0, 0.0, 80.0], [80.0, 80.0, 0.0]]) / 3, torch.tensor([[0.0, 9.0], [0.0, 70.0]]) / 3)
    found, changed = exchanged(problem, values, values, errors)
    assert changed == [0]
    assert found[:, 2:].equal(true[:, 2:])
    assert (found[0] - true[0]).norm() < 0.3 * (values[0] - true[0]).norm()  # it has moved with its words
    again, none = exchanged(problem, true, true, errors)
    assert none == []
    assert again is not found
    assert again.equal(true)


def test_a_component_whose_new_words_fit_clearly_worse_is_as_it_was() -> None:
    problem, true = two_tinted()
    values = true.clone()
    values[1, :3] = torch.tensor([0.71, 0.69, 1.0])  # with a tint and a place that were read
    sure = (torch.tensor([[0.0, 90.0, 90.0], [0.0, 90.0, 90.0]]), torch.tensor([[90.0, 0.0], [0.0, 90.0]]))
    found, changed = exchanged(problem, values, true, sure)
    assert changed == [1]
    torch.testing.assert_close(found, true, rtol=0, atol=1e-3)


def test_an_option_that_is_not_close_costs_one_evaluation() -> None:
    problem, true = two_tinted()
    refit = at(problem, true)
    # Another tint of the first and another width of the second: all others are hopeless
    errors = (torch.tensor([[0.0, 9.0, 80.0], [80.0, 80.0, 0.0]]) / 3, torch.tensor([[80.0, 0.0], [0.0, 9.0]]) / 3)
    words = ObjectWords(true, errors, torch.full((2,), 6.0))
    form = refit.whole()
    before = problem.rows
    assert exchange(refit, words, (true, form)) == []
    assert problem.rows - before == 2 + 1  # and u, under a draw by itself


def test_what_made_up_for_a_wrong_word_is_removed_once_the_word_is_right() -> None:
    """A narrow bump stands for a wide one, and another narrow one beside it for a part of the rest."""
    model = tinted_model(beta=30.0, counts=(0, 5))
    parse = model.conditioner.parse
    true = torch.cat([parse(0.3, 0.35, tint="red", width="wide"), parse(0.7, 0.7, tint="blue", width="narrow")])
    problem, lattice = problem_of(model, true)
    beside = parse(0.51, 0.35, tint="red", width="narrow")
    wrong = torch.cat([parse(0.3, 0.35, tint="red", width="narrow"), true[1:], beside])
    tints = torch.tensor([[0.0, 9.0, 9.0], [9.0, 9.0, 0.0], [0.0, 9.0, 9.0]]).double()
    widths = torch.tensor([[0.0, 1.0]] * 3).double()
    refit = at(problem, wrong)
    refit.asked = ObjectWords(wrong, (tints, widths), torch.full((3,), 6.0).double())
    judges = problem.draw(16, seeded(3))
    repair = Repair(problem, refit, judges, lattice, Worth(problem, 1e-2), [0, 1, 2])
    repair.read_last()
    assert len(repair.values) == 2
    assert repair.values[repair.values[:, 0].argsort()][:, 2:].equal(true[:, 2:])
    known = repair.words()
    assert known is not None
    assert len(known.values) == 2
