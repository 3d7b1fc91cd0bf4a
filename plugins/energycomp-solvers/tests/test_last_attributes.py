"""The attributes of an answer, read last: what is uncertain is read again, and wrong ones are swapped together."""

import pytest
import torch
from torch import Tensor

from energycomp.inference import AttributeErrors, Problem, make_problem
from energycomp.seeds import seeded
from energycomp.testing import planted, tinted_model
from energycomp_solvers.search.attributes import find_uncertain, place_openly, read_last, settle
from energycomp_solvers.search.hypothesis import Hypothesis, SearchSpace
from energycomp_solvers.search.loop import search
from energycomp_solvers.search.options import SearchOptions
from energycomp_solvers.search.runner_up import Answer, finish, least_certain
from energycomp_solvers.search.swap import _score_at_own_places, swap_attributes


def evaluate(problem: Problem, values: Tensor, known: AttributeErrors | None = None) -> Hypothesis:
    return Hypothesis.evaluate(SearchSpace.draw(problem, SearchOptions(), seeded(0)), values, known)


def test_words_that_are_read_last_get_places_that_suit_them() -> None:
    model = tinted_model()
    parse = model.conditioner.parse
    true = torch.cat([parse(0.4, 0.5, tint="red", width="narrow"), parse(0.8, 0.8, tint="blue", width="wide")])
    problem = make_problem(planted(model, true), model)
    start = evaluate(problem, torch.cat([parse(0.42, 0.51, tint="red", width="wide"), true[1:]]))
    before = problem.rows
    assert settle(start, start.values) is start
    assert problem.rows == before
    other = torch.cat([start.values[:, :2], true[:, 2:]], dim=1)
    settled = settle(start, other)
    assert problem.rows - before == 8 * (2 + 2)  # of one component: with its new word, moved, and the new place
    assert settled.values[:, 2:].equal(true[:, 2:])
    assert settled.values[1].equal(other[1])
    assert (settled.values[0] - true[0]).norm() < 0.5 * (other[0] - true[0]).norm()
    torch.testing.assert_close(settled.whole.b, settled.space.quadratic(settled.values).b)


@pytest.mark.parametrize("behind", [0.001, 0.98])  # errors of two words with posteriors of about 0.5, and of 0.95
def test_words_in_doubt_are_read_at_a_place_that_favours_none_of_them(behind: float) -> None:
    """From two places, with two words, that two searches found: the places are one, and words that are sure stay."""
    model = tinted_model(beta=3.0)
    parse = model.conditioner.parse
    true = torch.cat([parse(0.3, 0.35, tint="red", width="wide"), parse(0.7, 0.7, tint="blue", width="narrow")])
    problem = make_problem(planted(model, true), model)
    drawn = torch.tensor([6.0, 6.0])
    level = torch.tensor([[1.0, 1.0 + behind, 9.0], [9.0, 9.0, 1.0]])  # the first two tints of the first bump
    sure = torch.tensor([[9.0, 1.0], [1.0, 9.0]])
    places = []
    for tint, aside in ((1.0, 0.015), (2.0, -0.015)):
        start = true.clone()
        start[0, :3] += torch.tensor([aside, -aside, tint - true[0, 2]])
        words = AttributeErrors(start, (level, sure), drawn)
        found = place_openly(evaluate(problem, start), start, find_uncertain(problem, words, 0.99))
        assert found[0, 2:].equal(start[0, 2:])
        assert found[1, 2:].equal(start[1, 2:])
        assert (found[1] - start[1]).abs().max() < 2e-3  # it accounts for its neighbour
        places.append(found[0, :2])
    assert (places[0] - places[1]).abs().max() < 2e-3
    assert (places[0] - true[0, :2]).abs().max() < 4e-3
    certain = AttributeErrors(true, (torch.tensor([[1.0, 9.0, 9.0], [9.0, 9.0, 1.0]]), sure), drawn)
    before = problem.rows
    hypothesis = evaluate(problem, true)
    spent = problem.rows
    assert place_openly(hypothesis, true, find_uncertain(problem, certain, 0.99)) is true
    assert problem.rows == spent > before


def test_only_what_is_in_doubt_and_what_is_beside_it_moves() -> None:
    model = tinted_model(beta=3.0)
    parse = model.conditioner.parse
    words = [{"tint": "red", "width": "wide"}, {"tint": "blue", "width": "narrow"}, {"tint": "red", "width": "narrow"}]
    true = torch.cat([parse(*xy, **kw) for xy, kw in zip([(0.3, 0.3), (0.36, 0.36), (0.8, 0.8)], words, strict=True)])
    problem = make_problem(planted(model, true), model)
    start = true.clone()
    start[:, :2] += 0.01
    tints = torch.tensor([[1.0, 1.1, 9.0], [9.0, 9.0, 1.0], [1.0, 9.0, 9.0]])
    widths = torch.tensor([[9.0, 1.0], [1.0, 9.0], [1.0, 9.0]])
    hypothesis = evaluate(problem, start)
    before = problem.rows
    words = AttributeErrors(start, (tints, widths), torch.tensor([6.0, 6.0, 6.0]))
    found = place_openly(hypothesis, start, find_uncertain(problem, words, 0.99))
    assert found[2].equal(start[2])
    assert (found[:2, :2] - start[:2, :2]).abs().amax(1).min() > 1e-3
    assert (problem.rows - before) % 8 == 0
    assert problem.rows - before <= 8 * (1 + 4 * 2 * 3)  # four steps of two components, at most
    # What nothing is known of is not doubted: its words are asked first
    unknown = AttributeErrors(start, (torch.ones(3, 3), torch.ones(3, 2)), torch.zeros(3))
    assert not find_uncertain(problem, unknown, 0.99).any()


def two_tinted(beta: float = 3.0) -> tuple[Problem, Tensor]:
    """The problem of a wide red bump beside a narrow blue one, and these."""
    model = tinted_model(beta=beta)
    parse = model.conditioner.parse
    true = torch.cat([parse(0.3, 0.35, tint="red", width="wide"), parse(0.7, 0.7, tint="blue", width="narrow")])
    return make_problem(planted(model, true), model), true


def swap(problem: Problem, values: Tensor, before: Tensor, errors: tuple[Tensor, ...]) -> tuple[Tensor, list[int]]:
    """The components after a swap of attributes, and which of them have changed."""
    hypothesis = evaluate(problem, values)
    known = AttributeErrors(values, errors, torch.full((len(values),), 6.0))
    old = (before, hypothesis.space.quadratic(before))
    swapped, changed = swap_attributes(hypothesis, known, find_uncertain(problem, known, 0.95), old)
    return swapped.values, changed


def test_two_words_that_are_wrong_together_are_exchanged_at_once() -> None:
    """Each of them was ruled out beside the other one, by 8 nats of tints and 9 of widths."""
    problem, true = two_tinted()
    values = true.clone()
    values[0, 2:4] = torch.tensor([2.0, 1.0])
    values[0, :2] += 0.01
    errors = (torch.tensor([[8.0, 0.0, 80.0], [80.0, 80.0, 0.0]]) / 3, torch.tensor([[0.0, 9.0], [0.0, 70.0]]) / 3)
    found, changed = swap(problem, values, values, errors)
    assert changed == [0]
    assert found[:, 2:].equal(true[:, 2:])
    assert (found[0] - true[0]).norm() < 0.3 * (values[0] - true[0]).norm()  # it has moved with its words
    found, changed = swap(problem, true, true, errors)
    assert changed == []
    assert found.equal(true)


def test_a_component_whose_new_words_fit_clearly_worse_is_as_it_was() -> None:
    problem, true = two_tinted()
    values = true.clone()
    values[1, :3] = torch.tensor([0.71, 0.69, 1.0])  # with a tint and a place that were read
    sure = (torch.tensor([[0.0, 90.0, 90.0], [0.0, 90.0, 90.0]]), torch.tensor([[90.0, 0.0], [0.0, 90.0]]))
    found, changed = swap(problem, values, true, sure)
    assert changed == [1]
    torch.testing.assert_close(found, true, rtol=0, atol=1e-3)


def test_an_option_that_is_not_close_costs_one_evaluation() -> None:
    problem, true = two_tinted()
    hypothesis = evaluate(problem, true)
    # Another tint of the first and another width of the second: all others are hopeless
    errors = (torch.tensor([[0.0, 9.0, 80.0], [80.0, 80.0, 0.0]]) / 3, torch.tensor([[80.0, 0.0], [0.0, 9.0]]) / 3)
    words = AttributeErrors(true, errors, torch.full((2,), 6.0))
    before = problem.rows
    assert swap_attributes(hypothesis, words, find_uncertain(problem, words, 0.95), (true, hypothesis.whole))[1] == []
    # Under a draw by itself: both, u, and each of both components with each number changed a little
    assert problem.rows - before == 2 + 1 + 2 * 2


def test_an_option_is_compared_about_at_its_own_place() -> None:
    """The right words where a wrong component is: they move by how this one changes with its numbers."""
    problem, true = two_tinted(beta=30.0)
    values = true.clone()
    values[0] = torch.tensor([0.32, 0.34, 2.0, 1.0])
    option = values[:1].clone()
    option[0, 2:] = true[0, 2:]
    hypothesis = evaluate(problem, values)
    before = problem.rows
    nats, moved = _score_at_own_places(hypothesis, option, [0])
    assert problem.rows - before == 1 + 2 * 2 + 1  # u, each number of both components, and the option
    assert (moved - true[:1])[:, :2].norm() < 0.85 * (option - true[:1])[:, :2].norm()
    assert moved[:, 2:].equal(option[:, 2:])
    assert float(nats[0]) < 0


def test_the_runner_up_has_the_word_that_is_least_certain() -> None:
    problem, true = two_tinted()
    assert problem.posterior.beta == 3.0
    tints = torch.tensor([[0.0, 9.0, 8.0], [9.0, 6.0, 0.0]])
    widths = torch.tensor([[9.0, 0.0], [0.0, 0.5]])
    words = AttributeErrors(true, (tints, widths), torch.tensor([6.0, 6.0]))
    found = least_certain(problem, words)
    assert found is not None
    assert found.component == 1
    assert found.value.tolist() == pytest.approx([0.7, 0.7, 3.0, 2.0])
    assert found.behind == pytest.approx(3.0 * 0.5)
    unknown = least_certain(problem, AttributeErrors(true, (tints, widths), torch.tensor([6.0, 0.0])))
    assert unknown is not None
    assert unknown.component == 0
    assert least_certain(problem, AttributeErrors(true, (tints, widths), torch.zeros(2))) is None


def test_an_answer_is_compared_with_a_word_in_doubt_before_a_component_that_is_missed_much() -> None:
    problem, true = two_tinted(beta=30.0)
    draws = problem.quadratic(true, problem.draw(8, seeded(1)))
    tints = torch.tensor([[0.0, 9.0, 9.0], [9.0, 9.0, 0.0]])
    narrow_is_in_doubt = torch.tensor([[9.0, 0.0], [0.0, 0.05]])
    words = AttributeErrors(true, (tints, narrow_is_in_doubt), torch.ones(2))
    other = true.clone()
    other[1, 3] = 2.0
    for known, runner_up in ((words, other), (None, true[:1])):
        solution = finish(
            problem, Answer(true, true[:0], draws, swapped=known and least_certain(problem, known)), 8, seeded(2), {}
        )
        assert solution.runner_up is not None
        assert solution.runner_up.equal(runner_up)
        assert solution.p_value is not None
        assert solution.p_value < 0.01


def test_what_made_up_for_a_wrong_word_is_removed_once_the_word_is_right() -> None:
    """A narrow bump stands for a wide one, and another narrow one beside it for a part of the rest."""
    model = tinted_model(beta=30.0, counts=(0, 5))
    parse = model.conditioner.parse
    true = torch.cat([parse(0.3, 0.35, tint="red", width="wide"), parse(0.7, 0.7, tint="blue", width="narrow")])
    problem = make_problem(planted(model, true), model)
    beside = parse(0.51, 0.35, tint="red", width="narrow")
    wrong = torch.cat([parse(0.3, 0.35, tint="red", width="narrow"), true[1:], beside])
    tints = torch.tensor([[0.0, 9.0, 9.0], [9.0, 9.0, 0.0], [0.0, 9.0, 9.0]]).double()
    widths = torch.tensor([[0.0, 1.0]] * 3).double()
    known = AttributeErrors(wrong, (tints, widths), torch.full((3,), 6.0).double())
    read, is_swapped = read_last(evaluate(problem, wrong, known))
    assert is_swapped
    assert read.known is not None
    assert len(read.known.values) == len(read) == 3
    lattice = (true[:, :2], problem.quadratic(true[:, :2], problem.draw(1, seeded(0))).atoms[0])
    answer = search(evaluate(problem, wrong, known), lattice, 1e-2, 0).answer
    assert answer is not None
    assert answer.values[answer.values[:, 0].argsort()][:, 2:].equal(true[:, 2:])
    assert answer.known is not None
    assert len(answer.known.values) == len(answer.values) == 2
