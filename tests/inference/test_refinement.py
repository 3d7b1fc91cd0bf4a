"""Places of objects whose attributes are known: one Newton step for each number."""

from __future__ import annotations

import pytest
import torch

from energycomp import infer
from energycomp.images import to_unit
from energycomp.inference.problem import make_problem
from energycomp.inference.refinement import DRAWS, refine_numbers
from energycomp.testing import planted, tinted_model

MODEL = tinted_model()
TRUE = torch.tensor([[0.2, 0.3, 1.0, 2.0], [0.4, 0.4, 2.0, 1.0], [0.7, 0.8, 3.0, 1.0]])  # the first two overlap


def test_places_come_nearer_and_words_stay() -> None:
    shift = torch.tensor([[0.015, -0.01], [-0.01, 0.01], [0.005, 0.015]])
    start = TRUE.clone()
    start[:, :2] += shift
    problem = make_problem(planted(MODEL, TRUE), MODEL)
    refined = refine_numbers(problem, start, generator=0)
    assert (refined - TRUE)[:, :2].norm(dim=1).max() < 0.3 * shift.norm(dim=1).min()
    assert refined[:, 2:].equal(TRUE[:, 2:])
    assert problem.rows == DRAWS * (3 * 5 + 1)


@pytest.mark.parametrize("place", [[0.0, 1.0], [1.0, 0.0], [0.999999, 0.5]])
def test_places_stay_inside(place: list[float]) -> None:
    start = torch.tensor([[*place, 1.0, 1.0]])
    refined = refine_numbers(make_problem(planted(MODEL, TRUE), MODEL), start, generator=0)
    assert bool(MODEL.conditioner.support.check(refined).all())
    assert (refined - start).abs().max() < 0.05


def test_no_object() -> None:
    problem = make_problem(planted(MODEL, TRUE), MODEL)
    assert refine_numbers(problem, TRUE[:0], generator=0).shape == (0, 4)
    assert problem.rows == 0


def test_infer_refines_places() -> None:
    image = planted(MODEL, TRUE)
    found, opened = (
        infer(to_unit(image), MODEL, solver="pursuit", attributes=a).conditions[:, :2] for a in (True, False)
    )
    nearer, before = ((places - TRUE[:, :2]).norm(dim=1).mean() for places in (found, opened))
    assert nearer < before
