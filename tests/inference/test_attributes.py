"""Attributes of found objects: read by enumeration on the quadratic form, measured, edited; and refined places."""

from typing import Any

import pytest
import torch
from torchmetrics import MetricCollection

from energycomp import infer
from energycomp.components import mixed_of
from energycomp.images import to_unit
from energycomp.inference import Posterior, explain, refine_numbers
from energycomp.inference.attributes import DRAWS, SWEEPS, AttributeErrors, read_attributes
from energycomp.inference.problem import make_problem
from energycomp.testing import Fixed, Labels, planted, tinted_model
from energycomp_edit import edit
from energycomp_lab.evaluation import AttributeAccuracy, AttributeCalibration, Example, PerceptionRate, evaluate

MODEL = tinted_model(beta=8.0)
TRUE = torch.tensor([[0.2, 0.3, 1.0, 2.0], [0.55, 0.4, 2.0, 1.0], [0.7, 0.8, 3.0, 1.0]])  # two of them overlap
PLAIN = tinted_model()
CLOSE = torch.tensor([[0.2, 0.3, 1.0, 2.0], [0.4, 0.4, 2.0, 1.0], [0.7, 0.8, 3.0, 1.0]])  # the first two overlap


def test_reads_the_words_of_every_object() -> None:
    problem = make_problem(planted(MODEL, TRUE), MODEL)
    found = read_attributes(problem, TRUE[:, :2], generator=0)
    assert found.values.equal(TRUE)
    assert found.certainty(Posterior(8.0)).shape == (3, 2)
    assert found.certainty(Posterior(8.0)).min() > 0.9
    assert found.certainty(Posterior()).isnan().all()
    logarithms = AttributeErrors(torch.zeros(1, 3), (torch.tensor([[2.0, 6.0]]),))
    assert logarithms.certainty(Posterior(1.0, log_errors=True)).tolist() == [[pytest.approx(0.75)]]  # that of ratios


def test_costs_what_it_says() -> None:
    """Without an inverse temperature all words see all draws; clear ones see a third of those of one sweep."""
    for model, draws, further in ((tinted_model(beta=1e6), DRAWS // 3, 0), (PLAIN, DRAWS, DRAWS * (2**SWEEPS - 2))):
        problem = make_problem(planted(model, TRUE), model)
        read_attributes(problem, TRUE[:, :2], generator=0)
        evaluations = 3 + 3 * (3 + 2) + 1  # and u
        again = 3 + 3 * (2 + 1) + 1  # without the words that objects have
        assert problem.rows == draws * evaluations + further * again


def test_words_that_are_far_behind_see_no_further_draw_of_a_sweep() -> None:
    """Halfway between two tints both are equally good; the third one and the other width are far behind."""
    model = tinted_model(beta=1e4)
    first, second = (torch.tensor([[0.5, 0.5, tint, 1.0]]) for tint in (1.0, 3.0))
    problem = make_problem((planted(model, first) + planted(model, second)) / 2, model)
    found = read_attributes(problem, first[:, :2], sweeps=1, generator=0)
    third = DRAWS // 3
    assert problem.rows == third * (1 + 3 + 2 + 1) + (DRAWS - third) * (
        1 + 1 + 1
    )  # open, words, u; then the other word
    assert found.draws.tolist() == [DRAWS]
    assert found.values[0, 2] in (1.0, 3.0)
    assert found.values[0, 3] == 1.0


def test_words_found_beside_one_that_has_changed_are_asked_again() -> None:
    """A certain width is kept beside the tint that it was found with, and is worth nothing beside another one."""
    true = torch.tensor([[0.5, 0.5, 2.0, 1.0]])
    certain = torch.tensor([[100.0, 0.0]]).double()  # of the wrong width
    first = DRAWS // 3 * (1 + 2 + 1)  # the object, with two other tints, and u
    again = (DRAWS - DRAWS // 3) * (1 + 2 + 1 + 1)  # and with the other width
    for tint, width, rows in ((2.0, 2.0, first), (1.0, 1.0, first + again)):
        problem = make_problem(planted(MODEL, true), MODEL)
        known = AttributeErrors(
            torch.tensor([[0.5, 0.5, tint, 2.0]]), (torch.zeros(1, 3).double(), certain), torch.ones(1)
        )
        found = read_attributes(problem, known.values, known=known, sweeps=1, generator=0)
        assert found.values[0, 2:].tolist() == [2.0, width]
        assert problem.rows == rows


def test_an_object_that_is_not_there_has_an_uncertain_tint() -> None:
    problem = make_problem(planted(MODEL, TRUE[:1]), MODEL)
    posterior = read_attributes(problem, torch.tensor([[0.2, 0.3], [0.8, 0.8]]), generator=0).certainty(Posterior(8.0))
    assert posterior[0].min() > 0.9 > posterior[1, 0]


def test_infer_returns_whole_objects() -> None:
    """Their places come nearer by their words; candidates are whole values."""
    image = to_unit(planted(MODEL, TRUE[[0, 2]]))
    solution, opened = (infer(image, MODEL, solver="pursuit", **options) for options in ({}, {"attributes": False}))
    assert solution.conditions[:, 2:].equal(TRUE[[0, 2], 2:])
    off, before = ((one.conditions[:, :2] - TRUE[[0, 2], :2]).abs() for one in (solution, opened))
    assert off.max() < 0.02
    assert off.mean() < before.mean()
    assert solution.certainty is not None
    assert (opened.conditions.shape, opened.certainty) == ((2, 2), None)
    listed = infer(to_unit(planted(MODEL, TRUE[:1])), MODEL, solver="pursuit", candidates=TRUE)
    assert (listed.conditions.tolist(), listed.certainty) == (TRUE[:1].tolist(), None)


def test_error_and_gains_are_those_of_the_answer_with_its_words() -> None:
    """A solver that finds places has measured them with open words: what `explain` says of the answer is another."""
    said = {"error": 99.0, "stderr": 9.0, "component_gain": torch.full((3,), -99.0)}
    places = Fixed(TRUE[:, :2], said=said)
    image = to_unit(planted(MODEL, TRUE))
    solution = infer(image, MODEL, solver=places, count=3)
    expected = explain(image, MODEL, solution.conditions)
    assert solution.error == pytest.approx(expected.error, abs=0.01)
    assert solution.stderr < 0.01
    assert expected.component_gain is not None
    torch.testing.assert_close(solution.component_gain, expected.component_gain, rtol=0.05, atol=0.0)
    opened = infer(image, MODEL, solver=places, count=3, attributes=False)
    assert (opened.error, opened.stderr) == (99.0, 9.0)  # nothing was read: it is the solver's answer


def test_evaluate_measures_places_and_attributes() -> None:
    described = [MODEL.conditioner.describe(value) for value in TRUE[[0, 2]]]
    example = Example(planted(MODEL, TRUE[[0, 2]])[0], conditions=described)
    metrics = MetricCollection({"perception_rate": PerceptionRate()})
    report = evaluate(MODEL, [example], metrics, solver="pursuit", progress=False)
    expected = {"perception_rate": 1.0, "tint_accuracy": 1.0, "width_accuracy": 1.0, "all_attributes": 1.0}
    assert {name: report.values[name] for name in expected} == expected
    assert report.values["tint_calibration_error"] < 0.1


def test_accuracy_and_calibration_are_over_found_objects() -> None:
    found = TRUE.clone()
    found[0, 2] = 3.0  # a wrong tint
    support = MODEL.conditioner.support
    calibration = AttributeCalibration(support, 0)
    calibration.update([found], [TRUE], certainty=[torch.full((3, 2), 0.95)])
    assert float(calibration.compute()) == pytest.approx(0.95 - 2 / 3, abs=1e-6)
    found[1, :2] = 0.0  # not found
    tint, both = AttributeAccuracy(support, [0]), AttributeAccuracy(support, [0, 1])
    for metric in (tint, both):
        metric.update([found], [TRUE])
        assert metric.compute() == 0.5


def test_attributes_that_are_not_known_of_an_object_are_left_out() -> None:
    """They counted as right: data without words had an accuracy of 1."""
    support = MODEL.conditioner.support
    true = TRUE.clone()
    true[:2, 2] = 0.0
    true[0, 3] = 0.0
    found = TRUE.clone()
    found[:, 2:] = 1 + found[:, 2:] % 2  # all words are wrong
    found[2] = TRUE[2]
    tint, both = AttributeAccuracy(support, [0]), AttributeAccuracy(support, [0, 1])
    calibration = AttributeCalibration(support, 0)
    for metric in (tint, both):
        metric.update([found], [true])
    assert (tint.compute(), both.compute()) == (1.0, 0.5)  # of one object, and of two
    calibration.update([found], [true], certainty=[torch.tensor([[0.3, 0.3], [0.3, 0.3], [0.9, 0.9]])])
    assert float(calibration.compute()) == pytest.approx(0.1)
    tint.reset()
    tint.update([found], [support.opened(true)])
    assert bool(tint.compute().isnan())


@pytest.mark.parametrize("change", [{"tint": "green"}, {"tint": "green", "width": "narrow"}])
def test_an_edit_changes_attributes_in_place(change: dict[str, Any]) -> None:
    image = planted(MODEL, TRUE[[0, 2]])
    solution = infer(to_unit(image), MODEL, solver="pursuit")
    new = {**MODEL.conditioner.describe(solution.conditions[0]), **change}
    edited = edit(
        to_unit(image[0]),
        MODEL,
        move={0: new},
        solution=solution,
        solver="pursuit",
        num_inference_steps=10,
        progress=False,
    )
    again = infer(edited.image, MODEL, solver="pursuit")
    described = MODEL.conditioner.describe(again.conditions[0])
    assert {name: described[name] for name in change} == change
    assert again.conditions[1, 2:].equal(TRUE[2, 2:])


def test_labels_with_attributes_have_no_continuous_numbers() -> None:
    """The conditioner of `faces` has `attributes`, too."""

    class Named(Labels):
        attributes = ("smiling",)

    assert mixed_of(Named(4)) is None
    assert mixed_of(MODEL.conditioner) is MODEL.conditioner


def test_places_come_nearer_and_words_stay() -> None:
    shift = torch.tensor([[0.015, -0.01], [-0.01, 0.01], [0.005, 0.015]])
    start = CLOSE.clone()
    start[:, :2] += shift
    problem = make_problem(planted(PLAIN, CLOSE), PLAIN)
    refined = refine_numbers(problem, start, generator=0)
    assert (refined - CLOSE)[:, :2].norm(dim=1).max() < 0.3 * shift.norm(dim=1).min()
    assert refined[:, 2:].equal(CLOSE[:, 2:])
    assert problem.rows == DRAWS * (3 * 5 + 1)


@pytest.mark.parametrize("place", [[0.0, 1.0], [1.0, 0.0], [0.999999, 0.5]])
def test_places_stay_inside(place: list[float]) -> None:
    start = torch.tensor([[*place, 1.0, 1.0]])
    refined = refine_numbers(make_problem(planted(PLAIN, CLOSE), PLAIN), start, generator=0)
    assert bool(PLAIN.conditioner.support.check(refined).all())
    assert (refined - start).abs().max() < 0.05


def test_no_object_has_no_words_and_costs_nothing() -> None:
    problem = make_problem(planted(PLAIN, CLOSE), PLAIN)
    assert refine_numbers(problem, CLOSE[:0], generator=0).shape == (0, 4)
    assert problem.rows == 0
    found = read_attributes(problem, CLOSE[:0, :2], generator=0)
    assert (found.values.shape, found.certainty(Posterior(8.0)).shape) == ((0, 4), (0, 2))
