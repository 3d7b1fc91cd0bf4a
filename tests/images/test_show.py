"""How results show themselves: in one line, as text, and in a notebook, whatever they hold and a plugin says."""

import base64
import copy
import io
import json
import math
import pickle
import re
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image, ImageShow
from torch import Tensor

from energycomp import Composer, Model, Solution, images as shown, infer
from energycomp.components import Gaussian, random_values
from energycomp.errors import InputError
from energycomp.images import to_unit
from energycomp.inference import View, view_of
from energycomp.testing import UnitSquare, bumps_model, labels_model, planted, tinted_model, tiny_model
from energycomp.testing.models import SIZE
from energycomp_edit import edit

EVIL = "<script>alert('x')</script>\" onerror=\"x"


class Page(HTMLParser):
    """The elements and attributes of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(html: str) -> Page:
    """A page that is closed, without scripts, links and colours that one of the themes does not show."""
    page = Page(html)
    assert page.open == []
    assert {tag for tag, _ in page.elements} <= {"div", "img", "pre"}
    for _, attributes in page.elements:
        assert set(attributes) <= {"style", "src", "alt", "width", "height"}
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
        assert not re.search(r"(^|[;-])(color|background)\b(?!:inherit)", attributes.get("style") or "")
    return page


def picture(html: str) -> Image.Image:
    (source,) = (attributes["src"] for tag, attributes in Page(html).elements if tag == "img")
    return Image.open(io.BytesIO(base64.b64decode(str(source).partition(",")[2])))


def test_what_a_plugin_says_stays_text() -> None:
    page = checked(shown.html(EVIL, Image.new("RGB", (4, 2))))
    assert page.text == EVIL
    assert [attributes["alt"] for tag, attributes in page.elements if tag == "img"] == [EVIL]
    assert "[red]" in shown.as_text(shown.rich_table(["[red]a"], [["[bold]b"]]))  # no markup of rich either
    narrow = shown.as_text(shown.rich_table(["a", "b", "c"], [["timesteps=(511, 728)" * 9, "x" * 400, "c " * 200]]))
    assert narrow.count("x") == 400  # and no word is cut


CELLS = [
    (float("nan"), "nan"), ({"a": 0.5, "b": 0.25}, "0.25"), ({}, "{}"), ({"a": "b"}, "{'a': 'b'}"), ([], ""),
    ([1, 2.5], "1, 2.5"), ([["a"]], "[['a']]"), (True, "True"),
    ([0.123456789] * 16, "0.123, 0.123, 0.123, ... (16 numbers)"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), CELLS)
def test_a_cell(value: Any, expected: str) -> None:
    assert shown.cell(value) == expected


def test_a_table_of_rows_that_differ_has_every_column_once() -> None:
    rows = [{"x": 1, "gain": 2}, {}, {"x": 1, "shape": "cube", "gain": 2}, {"size": "large", "gain": 3}]
    columns, cells = shown.table_cells(rows)
    assert sorted(columns) == ["gain", "shape", "size", "x"]
    assert columns[-1] == "gain"
    assert cells[1] == ["", "", "", ""]
    text = shown.as_text(shown.rich_table(columns, cells))
    assert len({len(line) for line in text.splitlines()}) == 1


def test_the_words_of_a_table_stay_whole_in_a_narrow_console(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["identity", "material", "cylinder"]  # 24 letters and 4 lines; 6 spaces where there is room
    table = shown.rich_table(words, [words])
    for columns, width in (("80", 34), ("30", 28), ("80", 34)):
        monkeypatch.setenv("COLUMNS", columns)
        lines = shown.as_text(table).splitlines()
        assert {len(line) for line in lines} == {width}
        assert all(word in lines[1] and word in lines[3] for word in words)
    several = shown.rich_table(["name", "words"], [["one", " ".join(words)]])  # a cell may go on after a word
    monkeypatch.setenv("COLUMNS", "26")
    assert "│ one  │ identity " in shown.as_text(several)


def test_a_machine_without_a_window_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageShow, "_viewers", [])
    with pytest.raises(InputError, match="without a program that shows it"):
        shown.open_window(Image.new("RGB", (4, 2)))


# Solutions

PLACES = torch.tensor([[0.2, 0.3], [0.8, 0.7]])


def answer(**said: Any) -> Solution:
    """What a solver returns, and what else is known of it."""
    return Solution(PLACES, 2, 1.0, 0.1, 7, **said)


def as_place(value: Tensor) -> dict[str, float]:
    return {"x": float(value[0]), "y": float(value[1])}


class Says(UnitSquare):
    """A conditioner that describes its values as it is told."""

    said: Any = None

    def describe(self, value: Tensor) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said(value) if callable(self.said) else self.said


def saying(said: Any, **defaults: Any) -> Model:
    conditioner = type("Told", (Says,), {"said": staticmethod(said) if callable(said) else said})()
    return attrs.evolve(bumps_model(solver="pursuit", **defaults), conditioner=conditioner)


@pytest.fixture(scope="module")
def solution() -> Solution:
    return infer(to_unit(planted(bumps_model(), PLACES)), saying(as_place), generator=0)


def test_a_solution_keeps_its_image_and_says_what_it_found(solution: Solution) -> None:
    assert solution.image.size == (SIZE, SIZE)
    rows = solution.table()
    assert [set(row) for row in rows] == [{"x", "y", "gain"}] * 2
    assert [(row["x"], row["y"]) for row in rows] == [pytest.approx(place, abs=0.02) for place in PLACES.tolist()]
    text = str(solution)
    assert text.splitlines()[-1].startswith("2 objects, fit ")
    assert all(f"{row['gain']:.3g}" in text for row in rows)
    assert "\n" not in repr(solution)
    assert repr(solution).startswith("Solution(2 components")


def test_a_solution_shows_and_saves_the_marked_image_and_the_table(
    solution: Solution, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    html = solution._repr_html_()
    assert picture(html).size == (320, 320)
    assert checked(html).text == str(solution)
    assert solution._repr_png_()[:4] == b"\x89PNG"
    marked, plain = solution.picture(side=96), solution.image.resize((96, 96), Image.Resampling.LANCZOS)
    assert marked.size == plain.size
    assert marked.tobytes() != plain.tobytes()  # rings
    opened: list[Image.Image] = []
    monkeypatch.setattr(ImageShow, "show", lambda image: opened.append(image) or True)
    solution.show()
    solution.save(tmp_path / "read.png")
    with Image.open(tmp_path / "read.png") as image:
        assert image.size == opened[0].size == (480, 480)
        assert image.tobytes() == opened[0].tobytes()


def test_a_solution_is_what_it_was_after_pickle_and_copy(solution: Solution) -> None:
    for again in (pickle.loads(pickle.dumps(solution)), copy.deepcopy(solution)):  # noqa: S301 - our own bytes
        assert again.table() == solution.table()
        assert again.image.tobytes() == solution.image.tobytes()
    assert len(pickle.dumps(solution)) < 20_000  # it holds no model
    assert json.loads(json.dumps(solution.record(), allow_nan=False)) == solution.record()


BARE: dict[str, Solution] = {
    "of a solver": answer(),
    "no components": Solution(PLACES[:0], 0, 1.0, 0.1, 7, runner_up=PLACES[:1], p_value=0.5),
    "NaN": Solution(
        PLACES, 2, math.nan, math.inf, 7, component_gain=torch.tensor([math.nan, 1.0]), p_value=math.nan,
        fit=math.nan,
    ),
    "labels": Solution(torch.tensor([3, 1]), 2, 1.0, 0.1, 7, probability=torch.tensor([0.5, 0.25])),
    "all warnings": answer(
        component_gain=torch.tensor([-1.0, 1.0]), missing=(0.5, 0.5), at_count_limit=True
    ),
    "another view": answer(view=View(None, ({"x": 0.5, "y": 0.5},))),
    "no certainty": answer(
        posteriors=(torch.full((2, 3), math.nan),), view=View(None, (EVIL, EVIL), None, ("tint",))
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BARE)
def test_any_solution_shows_itself(name: str) -> None:
    given = BARE[name]
    assert len(given.table()) == given.count
    assert "\n" not in repr(given)
    page = checked(given._repr_html_())
    assert all(warning in page.text and warning in str(given) for warning in given.warnings)
    assert page.text.count("warning: ") == len(given.warnings) == (3 if name == "all warnings" else 0)
    assert ("3 warnings" in repr(given)) == (name == "all warnings")
    assert given._repr_png_() is None
    json.dumps(given.record(), allow_nan=False)
    for use in (given.picture, lambda: given.save("never.png")):
        with pytest.raises(InputError, match="without its image"):
            use()


PLAIN = {"value": [0.25, 0.5]}
SAID: dict[str, tuple[Any, dict[Any, Any]]] = {
    "raises": (ValueError("not described"), PLAIN),
    "list": (lambda value: [float(v) for v in value], PLAIN),
    "text": ("a red <b>cube</b>", {"value": "a red <b>cube</b>"}),
    "None": (None, {"value": None}),
    "NaN": ({"x": math.nan, "y": 0.5}, {"x": math.nan, "y": 0.5}),
    "words": ({"x": "left", "y": 0.5}, {"x": "left", "y": 0.5}),
    "one coordinate": ({"x": 0.5}, {"x": 0.5}),
    "a number as name": ({1: 2}, {1: 2}),
}


@pytest.mark.parametrize("kind", SAID)
def test_a_conditioner_of_a_plugin_may_say_anything(kind: str) -> None:
    said, row = SAID[kind]
    view = view_of(saying(said), torch.tensor([[0.25, 0.5]]), image=torch.zeros(3, SIZE, SIZE))
    assert repr(view.rows) == repr([row])
    assert view.places == []
    found = Solution(torch.tensor([[0.25, 0.5]]), 1, 1.0, 0.1, 7, view=view)
    checked(found._repr_html_())
    assert found.picture(side=64).getextrema() == ((128, 128),) * 3  # the plain image: it has no place to mark


def test_attributes_have_their_certainty() -> None:
    model = tinted_model(solver="pursuit", beta=0.5)
    values = model.conditioner.parse(0.3, 0.4, tint="blue", width="wide")
    found = infer(to_unit(planted(model, values)), model, count=1)
    (row,) = found.table()
    assert (row["tint"], row["width"]) == ("blue", "wide")
    assert set(row["certainty"]) == {"tint", "width"}
    assert f"{min(row['certainty'].values()):.2f}" in str(found)
    empty = infer(to_unit(planted(model, values[:0])), model, count=0)  # which shows the image alone
    assert empty.table() == []
    assert str(empty).startswith("0 objects")
    assert picture(empty._repr_html_()).size == (320, 320)


RED = Image.new("RGB", (24, 16), "red")


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (Path("a.png"), (24, 16)), (torch.zeros(1, 3, 16, 24), (24, 16)), ([RED], (24, 16)),
        (np.asarray(RED), (24, 16)),
        (Image.new("RGB", (3000, 1500)), (1024, 512)), (torch.full((1, 5, 4, 4), 7.0), None),
    ],
    ids=["path", "tensor", "list", "array", "a large one is kept small", "none"],
)  # fmt: skip
def test_the_image_is_kept_in_whatever_form_it_came(
    image: Any, size: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RED.save("a.png")
    kept = view_of(saying(as_place), PLACES, image=image).image
    assert (kept if kept is None else kept.size) == size


# Edits and models


def test_an_edit_shows_both_images(monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = saying(as_place, num_inference_steps=4), Solution(PLACES, 2, 0.0, 0.0, 7)
    image = to_unit(planted(model, PLACES)[0])
    edited = edit(image, model, remove=[0], add=[(0.2, 0.8)], solution=found, progress=False)
    assert edited.solution is found
    assert str(edited).startswith("2 objects before, 2 after, as asked; ")
    assert "\n" not in repr(edited)
    assert "0.8" in checked(edited._repr_html_()).text
    assert picture(edited._repr_html_()).size == (2 * 258 + 2, 256 + 4 + 20)
    assert edited._repr_png_()[:4] == b"\x89PNG"
    opened: list[Image.Image] = []
    monkeypatch.setattr(ImageShow, "show", lambda image: opened.append(image) or True)
    edited.show()
    assert opened[0].size == edited.picture().size
    silent = saying("nothing to say", num_inference_steps=4)
    emptied = edit(image, silent, remove=[0, 1], solution=found, progress=False)
    assert str(emptied).startswith("2 objects before, 0 after, as asked; ")
    checked(emptied._repr_html_())


@pytest.mark.parametrize(
    "model", [tiny_model(), bumps_model(), labels_model(4), tinted_model()], ids=lambda model: model.name
)
def test_models_and_compositions_say_what_they_are_in_one_line(model: Model) -> None:
    assert repr(model).startswith(f"Model({model.name!r}, 16x16 ")
    assert type(model.conditioner).__name__ in repr(model)
    text = checked(model._repr_html_()).text
    assert model.denoiser.rule in text
    assert ("red, green, blue" in text) == (model.name == "tinted")  # the words of attributes
    a, b = (model.leaf(value[None]) for value in random_values(model.conditioner, 2, generator=0))
    for one in (model, model.denoiser, a & ~b, Composer(a & b), model.unconditional, a | b, Gaussian(0.0)):
        assert "\n" not in repr(one)


def test_a_model_without_a_name_or_with_a_bad_one() -> None:
    for name in ("", EVIL, "two\nlines"):
        model = attrs.evolve(bumps_model(), name=name)
        assert "\n" not in repr(model)
        assert repr(name) in checked(model._repr_html_()).text


def test_numbers_of_an_image_that_is_not_to_be_trusted_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """From every table and every map, not from JSON, which says `trusted`."""
    numbers = {"component_gain": torch.tensor([0.625, 0.875]), "probability": torch.tensor([0.375, 0.125])}
    view = View(Image.new("RGB", (8, 8)), ("left", "right"))
    maps = {"share": torch.tensor([0.25, 0.75]), "pixels": partial(torch.rand, 2, 4, 4)}
    known = answer(typicality=0.5, sure=0.97, view=view, **maps, **numbers)
    foreign = attrs.evolve(known, typicality=0.001)
    assert (known.record()["trusted"], foreign.record()["trusted"]) == (True, False)
    assert known.record()["objects"] == foreign.record()["objects"]
    for text in (str, lambda one: checked(one._repr_html_()).text):
        for number in ("0.625", "0.875", "0.375", "0.125", "sure 0.97"):
            assert number in text(known)
            assert number not in text(foreign)
        assert "2 objects, not trusted" in text(foreign)
    # Maps: each has its name, and beside it the share that it explains, where that means something
    said: list[list[str]] = []
    monkeypatch.setattr("energycomp.inference.view.grid", lambda _, *, captions: said.append(captions))
    for one in (known, foreign):
        one.picture(maps=True)
    assert said == [["", "1 left: 25%", "2 right: 75%"], ["", "1 left", "2 right"]]
