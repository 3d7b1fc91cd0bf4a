"""What an edit says of its result: a reading of it, compared with what was asked for, and another try."""

import re
from typing import Any

import attrs
import pytest
import torch
from PIL import Image
from torch import Tensor

from energycomp import Solution
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.images import to_output, to_unit
from energycomp.testing import Places, TintedSquare, bumps_model, planted, tinted_model
from energycomp_edit import edit
from energycomp_edit.canvas import Repainting
from energycomp_edit.checking import find_faults
from energycomp_edit.painting import differences
from energycomp_edit.plan import Plan, fill_open

MODEL = bumps_model(num_inference_steps=10, solver="pursuit")
PLACES = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.3, 0.8]])
ASKED = PLACES[1:]  # after the first one is removed


def answer(values: Tensor) -> Solution:
    return Solution(values, count=len(values), error=0.0, stderr=0.0, rows=7)


def edit_with_results(monkeypatch: pytest.MonkeyPatch, *results: Tensor, **options: Any) -> tuple[Any, list[int]]:
    """An edit whose samples are images of these values, and how many of them were asked for."""
    asked = list[int]()

    def paint(_: Any) -> tuple[Image.Image, Tensor, Tensor]:
        asked.append(len(asked))
        sample = planted(MODEL, results[asked[-1]])
        return to_output(sample, "pil")[0], sample, torch.ones(1, 1, 16, 16)

    monkeypatch.setattr("energycomp_edit.editing.make_painter", lambda *_, **__: paint)
    image = to_unit(planted(MODEL, PLACES)[0])
    done = edit(image, MODEL, remove=[0], solution=answer(PLACES), progress=False, **options)
    return done, asked


def test_an_edit_is_sampled_again_until_the_result_is_read_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    done, asked = edit_with_results(monkeypatch, PLACES, ASKED, PLACES[:0])
    assert (asked, done.tries, done.faults) == ([0, 1], 2, ())
    torch.testing.assert_close(done.new_solution.conditions, ASKED[[1, 0]], atol=0.02, rtol=0)
    assert str(done) == "3 objects before, 2 after, as asked; 100% of the image changed"
    assert len(done.after.components) == 2


def test_an_edit_that_fails_says_what_is_there_and_keeps_the_best_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    done, asked = edit_with_results(monkeypatch, PLACES[:0], PLACES, PLACES[:1], ASKED)
    assert (asked, done.tries) == ([0, 1, 2], 3)
    assert done.new_solution.count == 3  # what was seen, and not what was asked for
    assert len(done.faults) == 1
    assert re.fullmatch(r"\[0\.[12]\d*, 0\.[12]\d*\] was not asked for", done.faults[0])
    assert str(done).startswith(f"3 objects before, 3 after, not as asked: {done.faults[0]}; 100%")
    done, asked = edit_with_results(monkeypatch, PLACES, ASKED, tries=1)
    assert (asked, done.tries, len(done.faults)) == ([0], 1, 1)


def test_a_moved_object_that_is_misread_is_sampled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pixels are the same in each try, so that cutting it out once more would be read alike."""
    given: list[set[int]] = []

    def paint(resampled: Any) -> tuple[Image.Image, Tensor, Tensor]:
        given.append({*resampled})
        sample = planted(MODEL, PLACES[1:])  # the moved object is missing
        return to_output(sample, "pil")[0], sample, torch.ones(1, 1, 16, 16)

    monkeypatch.setattr("energycomp_edit.editing.make_painter", lambda *_, **__: paint)
    image = to_unit(planted(MODEL, PLACES)[0])
    options: dict[str, Any] = {"solution": answer(PLACES), "tries": 2, "progress": False}
    edit(image, MODEL, move={0: (0.5, 0.5)}, **options)
    assert given == [set(), {0}]
    # What is sampled anew is not cut out
    model = attrs.evolve(MODEL, conditioner=Places())
    plan = Plan(PLACES, (), {0: torch.tensor([0.5, 0.5])}, ())
    photo = planted(MODEL, PLACES)
    painting = Repainting(photo, photo, model, plan, 4, torch.Generator().manual_seed(0), progress=False)
    monkeypatch.setattr("energycomp_edit.canvas.move_picture", lambda *_, **__: pytest.fail("cut out"))
    with torch.no_grad():
        assert painting.paint_changes([0])[0].shape == photo.shape


def test_a_solver_that_cannot_read_the_result_is_refused_before_anything_is_sampled() -> None:
    image = to_unit(planted(MODEL, PLACES)[0])
    with count_rows() as spent, pytest.raises(InputError, match="got continuous slots for 'Enumerate'"):
        edit(image, MODEL, remove=[0], solution=answer(PLACES), solver="enumerate", progress=False)
    assert spent.rows == 0


def test_rows_are_those_of_all_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    once, _ = edit_with_results(monkeypatch, ASKED)
    twice, _ = edit_with_results(monkeypatch, PLACES[:0], ASKED)
    assert once.rows == once.new_solution.rows
    assert twice.rows > twice.new_solution.rows


TINTED = tinted_model()
PARSE = TINTED.conditioner.parse
RED, BLUE = PARSE(0.3, 0.3, tint="red", width="wide"), PARSE(0.3, 0.34, tint="blue", width="wide")
FAULTS: dict[str, tuple[list[Tensor], list[Tensor], tuple[str, ...]]] = {
    "none": ([RED, BLUE], [BLUE, RED], ()),
    "open words are all words": ([PARSE(0.3, 0.3)], [RED], ()),
    "words decide between near places": ([RED, BLUE], [PARSE(0.3, 0.34, tint="red", width="wide"), BLUE], ()),
    "another word": ([RED], [BLUE], ("red wide 0.30 0.30 is read as blue wide 0.30 0.34",)),
    "missing": ([RED, BLUE], [BLUE], ("red wide 0.30 0.30 is missing",)),
    "too many": ([], [RED], ("red wide 0.30 0.30 was not asked for",)),
    "elsewhere": (
        [RED],
        [PARSE(0.4, 0.4, tint="red", width="wide")],
        ("red wide 0.30 0.30 is missing", "red wide 0.40 0.40 was not asked for"),
    ),
    "nothing": ([], [], ()),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_each_object(name: str) -> None:
    asked, seen, expected = FAULTS[name]
    values = [torch.cat([RED[:0], *some]) for some in (asked, seen)]
    assert tuple(map(str, find_faults(*values, TINTED))) == expected


class Drawing(TintedSquare):
    """A conditioner whose prior draws the width alone."""

    prior = property(lambda self: self)

    def draw_open(self, values: Tensor, generator: torch.Generator | None, /) -> Tensor:
        values = values.clone()
        values[:, 3] = torch.where(values[:, 3] == 0, 1.0, values[:, 3])
        return values


def test_what_is_sampled_has_all_words_and_what_was_asked_for_stays() -> None:
    model = attrs.evolve(TINTED, conditioner=Drawing())
    generator = torch.Generator().manual_seed(0)
    opened, red = fill_open(model, [PARSE(0.3, 0.3)[0], RED[0]], generator)
    assert opened[2] > 0
    assert opened[3] == 1
    assert torch.equal(red, RED[0])
    many = torch.stack(fill_open(model, [PARSE(0.3, 0.3)[0]] * 64, generator))
    assert set(many[:, 2].tolist()) == set(range(1, 1 + len(TintedSquare().attributes["tint"])))
    assert fill_open(TINTED, [PARSE(0.3, 0.3)[0]], generator)[0].tolist() == PARSE(0.3, 0.3)[0].tolist()


def test_the_size_of_a_moved_object_is_measured_without_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that shows the object at its old place says how large it is there, and not at the new place."""
    values = torch.tensor([[0.3, 0.5, 1.0, 2.0], [0.8, 0.2, 1.0, 1.0]])
    photo = planted(TINTED, values)
    plan = Plan(values, (), {0: torch.tensor([0.6, 0.5, 1.0, 2.0])}, ())
    seen: list[Tensor] = []

    def recorded(pairs: Any, picture: Tensor, **options: Any) -> Tensor:
        seen.append(picture)
        return differences(pairs, picture, **options)

    monkeypatch.setattr("energycomp_edit.canvas.differences", recorded)
    painting = Repainting(photo, photo, TINTED, plan, 4, torch.Generator().manual_seed(0), progress=False)
    assert painting.scale(0) == pytest.approx(1.0, abs=0.1)
    torch.testing.assert_close(seen[0], planted(TINTED, values[:0]), atol=0.01, rtol=0)
