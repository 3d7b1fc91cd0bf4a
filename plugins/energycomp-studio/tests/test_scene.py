"""From the page's scene to a composition, and to the lines that make the same image: pixel by pixel."""

import io
import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from energycomp import Composer, __version__, plugins
from energycomp.components import Gaussian
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError
from energycomp.images import png, read_formula
from energycomp.models import Model
from energycomp.testing import attributes_model, bumps_model, labels_model, tinted_model, tiny_model
from energycomp_studio.drawing import PLAIN, draw_scene, frame_image, read_address, settings_of
from energycomp_studio.first import first_scene
from energycomp_studio.forms import form_of
from energycomp_studio.formulas import formula_of_scene, model_in, scene_in
from energycomp_studio.pictures import SIDE
from energycomp_studio.preview import Preview
from energycomp_studio.scene import Draft, Item, beyond, changes, component, compose_scene, in_words, scene_of, text_of
from energycomp_studio.settings import Settings
from energycomp_studio.snippets import edit_python, edit_shell, python_lines, shell_line

RED = {"x": 0.2, "y": 0.3, "tint": "red", "width": "wide"}
OPEN = {"x": 0.7, "y": 0.8}
SCENES = {
    "one": ("tinted", [Item(RED)]),
    "two": ("tinted", [Item(RED), Item(OPEN)]),
    "weights": ("tinted", [Item(RED, 2.0), Item(OPEN, 0.5)]),
    "equal weights": ("tinted", [Item(RED, 2.0), Item(OPEN, 2.0)]),
    "negation first": ("tinted", [Item(RED, 2.0, negated=True), Item(OPEN)]),
    "none": ("tinted", []),
    "guided": ("guided", [Item(RED), Item(OPEN)]),
    "guided weights": ("guided", [Item(RED, 2.0), Item(OPEN, 0.5)]),
    "guided negation": ("guided", [Item(RED), Item({**OPEN, "tint": "blue"}, negated=True)]),
    "guided, with a sampler": ("guided", [Item(RED), Item(OPEN)]),
    "places": ("bumps", [Item({"x": 0.25, "y": 0.5}), Item(OPEN, 1.5)]),
    "network": ("tiny", [Item({"x": 0.25, "y": 0.5}), Item(OPEN, negated=True)]),
    "rule sum": ("added", [Item({"text": "0"}), Item({"text": "2"}, 0.5)]),
    "rule mean": ("averaged", [Item({"text": "0"}), Item({"text": "2"})]),
    "or": ("bumps", [Item(OPEN), Item({"x": 0.2, "y": 0.2}), Item({"x": 0.5, "y": 0.2}, either=True)]),
}


@pytest.fixture(autouse=True, scope="module")
def models() -> None:
    for name, model in {
        "tinted": tinted_model(),
        "guided": tinted_model(attribute_guidance=2.5),
        "bumps": bumps_model(),
        "tiny": tiny_model(),
        "added": labels_model(3, rule="sum"),
        "averaged": labels_model(3, rule="mean"),
    }.items():
        plugins.register("models", name, lambda model=model, **_: model)


@pytest.mark.parametrize("name", SCENES)
def test_the_lines_make_the_image_of_the_page(name: str, run: Any) -> None:
    source, items = SCENES[name]
    model, scene = plugins.find("models", source)(), Draft(tuple(items))
    sampler = {"or": "mixture", "guided, with a sampler": "perpendicular"}.get(name)
    settings = Settings(5, 4, sampler, "DDPMScheduler" if name == "two" else None)
    shown = np.asarray(model.shown(draw_scene(scene, model, settings), side=SIDE))
    exec(python_lines(scene, model, source, settings), {})  # noqa: S102 - the lines under test
    np.testing.assert_array_equal(np.asarray(Image.open("scene.png")), shown)
    line = shell_line(scene, model, source, settings)
    formula = formula_of_scene(scene, model, source, settings)
    assert formula is not None
    again, how, method = scene_in(formula, model)
    kind = "scheduler" if (method or "").endswith("Scheduler") else "sampler"
    image = draw_scene(again, model, attrs.evolve(how, **{kind: method}))
    np.testing.assert_array_equal(np.asarray(model.shown(image, side=SIDE)), shown)  # the image of the image's scene
    if name == "or":
        assert line.startswith("#")
        return
    Path("scene.png").unlink()
    words = shlex.split(line)
    assert "--guidance" not in words
    assert words[0] == "energycomp"
    assert run(*words[1:])[0] == 0
    np.testing.assert_array_equal(np.asarray(Image.open("scene.png")), shown)
    assert read_formula("scene.png") == {"energycomp": __version__, **formula}


def test_what_an_image_says_and_the_page_cannot_show() -> None:
    model = plugins.find("models", "tinted")()
    made = {"command": "sample", "model": "tinted", "arguments": ["0.2,0.3"], "options": {}, "seed": 0}
    assert scene_in({**made, "options": {"n": 4, "raw": True}}, model)[0] == Draft((Item({"x": 0.2, "y": 0.3}),))
    for change, said in {
        "guidance": ({"options": {"guidance": "cfg"}}, "drawn with --guidance, which the page does not have"),
        "command": ({"command": "edit"}, "the command 'edit'; expected one of sample"),
        "region": ({"arguments": ["0.2,0.3 @ left half"]}, "a region, a share of the trajectory"),
        "several": ({"arguments": ["0.2,0.3", "/", "0.5,0.5"]}, "several compositions"),
        "damaged": ({"arguments": [3]}, "damaged"),
        "seed": ({"seed": "x"}, "the seed 'x'"),
        "canvas": ({"options": {"canvas": "/etc"}}, "the canvas '/etc'"),
        "scene": ({"scene": [{"given": {}}]}, "the component"),
    }.values():
        with pytest.raises(InputError, match=said):
            scene_in({**made, **change}, model)
    assert model_in(made, ["bumps", "tinted"]) == "tinted"
    assert model_in({**made, "fingerprint": "0"}, ["bumps", "runs/tinted"]) == "runs/tinted"
    for named in ("runs/tinted", None, ["tinted"]):
        with pytest.raises(InputError, match="got an image of the model"):
            model_in({**made, "model": named}, ["tinted"])


def drawn(run: Any, scene: Draft, model: Model, source: str, settings: Settings) -> tuple[bytes, bytes]:
    """The files that the lines for the shell and for Python write."""
    line, file = shell_line(scene, model, source, settings), Path("scene.png")
    assert run(*shlex.split(line)[1:])[0] == 0
    by_command = file.read_bytes()
    file.unlink()
    exec(python_lines(scene, model, source, settings), {})  # noqa: S102 - the lines under test
    return by_command, file.read_bytes()


def test_a_canvas_is_drawn_as_the_lines_draw_it(run: Any) -> None:
    pytest.importorskip("energycomp_clevr", reason="no clevr: pip install energycomp-clevr")
    model = plugins.find("models", "clevr")()
    scene = Draft((Item({"x": 0.2, "y": 0.5}, 1.5), Item({"x": 0.8, "y": 0.6})))
    settings = settings_of(3, 2, PLAIN, scene, "288x128")
    assert (settings.size, settings.aspect(model)) == ((128, 288), 2.25)
    image = np.asarray(frame_image(draw_scene(scene, model, settings), model, settings))
    assert image.shape == (SIDE, 720, 3)
    line = "energycomp sample clevr --canvas 288x128 '0.2,0.5 * 1.5' 0.8,0.6 --steps 2 --seed 3 -o scene.png"
    assert shell_line(scene, model, "clevr", settings) == line
    for content in drawn(run, scene, model, "clevr", settings):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), image)


def test_a_canvas_that_cannot_be_is_refused() -> None:
    for wrong in ("256", "256 x 64", "x", 3, "1x9999999"):
        with pytest.raises(InputError, match="expected WIDTHxHEIGHT"):
            Settings(canvas=wrong)
    assert Settings(canvas="").size is None
    scene, settings = Draft((Item(OPEN),)), Settings(canvas="32x16")
    with pytest.raises(InputError, match="got the canvas 32x16 with tinted; expected objects alone"):
        compose_scene(scene, tinted_model(), settings)
    with pytest.raises(InputError, match="with not or or; expected objects alone"):
        compose_scene(Draft((Item(OPEN, negated=True),)), tinted_model(), settings)
    kept = {"model": "tinted", "items": [], "seed": 3, "steps": None, "sampler": PLAIN, "canvas": "32x16"}
    assert (read_address(quote(json.dumps(kept)), ["tinted"]) or {})["canvas"] == "32x16"
    assert read_address(quote(json.dumps({**kept, "canvas": "wide"})), ["tinted"]) is None


def test_alternatives_choose_their_sampler_and_too_many_objects_get_a_word() -> None:
    two, model = Draft((Item(OPEN), Item(RED, either=True))), tinted_model(counts=(0, 2))
    assert (
        settings_of(1, None, PLAIN, two) == settings_of(1, None, "DDIMScheduler", two) == Settings(1, None, "mixture")
    )
    assert settings_of(1, None, "smc", two).sampler == "smc"
    assert settings_of(1, None, PLAIN, Draft((Item(OPEN),))) == Settings(1)
    assert in_words(two, model, Settings()) == "2 objects, 2 alternatives"
    assert not beyond(two, model)
    assert "more than the 2 that tinted knows" in beyond(Draft((Item(OPEN),) * 3), model)
    assert in_words(Draft((Item(OPEN),)), tinted_model(attribute_guidance=2.5), Settings()) == "1 object, guidance 2.5"


def test_what_is_in_the_address_is_taken_or_left() -> None:
    items = Draft((Item(RED),)).as_json()["items"]
    kept = {"model": "tinted", "items": items, "seed": 3, "steps": None, "sampler": PLAIN}
    found = read_address(quote(json.dumps(kept)), ["tinted"])
    assert (found["scene"], found["seed"]) == (Draft((Item(RED),)), 3)
    for wrong in ({"model": "owner/name"}, {"seed": -1}, {"items": 3}, {"sampler": "no"}, {"steps": 0}, {"model": []}):
        assert read_address(quote(json.dumps({**kept, **wrong})), ["tinted"]) is None
    assert not any(read_address(address, ["tinted"]) for address in ("", "{}", "[" * 99_999, "%00", "[1]", "null"))


def test_a_preview_has_the_guidance_of_the_model_and_asks_the_network_five_times() -> None:
    model, scene = plugins.find("models", "guided")(), Draft((Item(RED),))
    settings = Settings(steps=10)
    assert repr(component(scene, model)).startswith("tinted(0.2,0.3,")
    for draft, cost in ((False, 3 + 2 * 7), (True, 2 + 2 * 3)):  # the first three of ten steps are not guided
        with count_rows() as spent:
            image = draw_scene(scene, model, settings, draft=draft)
        assert spent.rows == cost
        plain = draw_scene(scene, plugins.find("models", "tinted")(), settings, draft=draft)
        assert image.tobytes() != plain.tobytes()


def test_a_preview_chooses_what_is_left_open_as_the_result_does() -> None:
    """Of two modes in closed form, which the noise of the steps decides between."""
    both, options = Composer(Gaussian(0.8, 0.01) | Gaussian(-0.8, 0.01)), {"output_type": "pt", "progress": False}

    def modes(steps: int, **method: Any) -> torch.Tensor:
        return both.sample(64, generator=0, num_inference_steps=steps, **method, **options).flatten() > 0

    result = modes(50, scheduler="DDPMScheduler")
    share = (modes(50, sampler=Preview("DDPMScheduler")) == result).float().mean()
    of_few_steps = (modes(5, scheduler="DDIMScheduler") == result).float().mean()
    assert share > 0.8
    assert of_few_steps < 0.7


def test_the_first_picture_of_text_shows_both_of_its_solids() -> None:
    pytest.importorskip("energycomp_text", reason="no text: pip install energycomp-text")
    model = plugins.find("models", "text")()
    scene = first_scene(form_of(model), "text")
    pixels = np.asarray(draw_scene(scene, model, Settings()), int)
    assert [item.given["text"] for item in scene.items] == ["green cube", "blue sphere"]
    for channel in (1, 2):  # green, blue: more of it than of the others
        others = np.delete(pixels, channel, axis=2).max(2)
        assert (pixels[..., channel] - others > 30).sum() > 60


def test_alternatives_are_a_mixture_of_compositions() -> None:
    model = bumps_model()
    made = component(Draft((Item(OPEN), Item(OPEN, 2.0), Item(OPEN, either=True))), model)
    assert "|" in repr(made)
    with pytest.raises(CompositionError, match="of mass 2 in a mixture"):
        component(Draft((Item({"text": "0"}, 2.0), Item({"text": "1"}, either=True))), labels_model(3, rule="sum"))


PLACE = {"x": 0.1, "y": 0.1}
UNSENT = [
    {"given": {"x": 0.1, "y": 0.2}, "other": 1}, {"given": {"x": [1]}}, {"given": {}}, {"given": {"text": "a" * 3_000}},
    {"given": {"x": float("nan"), "y": 0.1}}, {"given": PLACE, "weight": "2"}, {"given": PLACE, "weight": 1e9},
    {"given": PLACE, "origin": -1},
]  # fmt: skip


@pytest.mark.parametrize(
    "data", [None, {"items": 3}, {"items": [{"given": PLACE}] * 33}, *({"items": [one]} for one in UNSENT)]
)
def test_what_the_page_does_not_send_is_refused(data: Any) -> None:
    with pytest.raises(InputError, match=r"got .*; expected"):
        scene_of(data)


def test_scenes_survive_the_page_and_settings_are_checked() -> None:
    scene = Draft((Item(RED, 2.0, negated=True, either=True, origin=3),))
    assert scene_of(scene.as_json()) == scene
    for given in ({"seed": -1}, {"seed": 1.5}, {"seed": None}, {"steps": 0}, {"steps": 1.5}, {"steps": 10_000}):
        with pytest.raises(InputError, match=r"got .*; expected"):
            Settings(**given)
    long = Draft((Item({"text": "0" * 2_000}),) * 32)
    assert formula_of_scene(long, labels_model(3), "added", Settings()) is None


def test_forms() -> None:
    assert form_of(tinted_model()).attributes == {"tint": ("red", "green", "blue"), "width": ("narrow", "wide")}
    assert form_of(bumps_model()).attributes == {}
    assert form_of(labels_model(3)).suggestions == ("0", "1", "2")
    for model in (tinted_model(), bumps_model(), tiny_model(), labels_model(3), attributes_model(3)):
        assert draw_scene(first_scene(form_of(model)), model, Settings(steps=2)).size == (16, 16)


def test_attributes_of_which_one_word_holds_are_switches() -> None:
    pytest.importorskip("energycomp_faces", reason="no faces: pip install energycomp-faces")
    model = plugins.find("models", "faces")(pretrained=False)
    form = form_of(model)
    assert form.kind == "labels"
    assert form.attributes["smiling"] == ("no", "yes")
    scene = Draft((Item({"attribute": "smiling", "value": "yes"}), Item({"attribute": "smiling", "value": "no"})))
    assert "faces(smiling=yes)" in repr(component(scene, model))
    assert shell_line(scene, model, "faces", Settings()).startswith("energycomp sample faces smiling=yes smiling=no")


def test_the_lines_of_an_edit() -> None:
    model = tinted_model()
    read = ({"x": 0.2, "y": 0.3, "tint": "red"}, {"x": 0.7, "y": 0.8}, {"x": 0.5, "y": 0.5})
    items = [Item({**read[0], "tint": "blue"}, origin=0), Item(read[2], origin=2), Item({"x": 0.9, "y": 0.1})]
    found = changes(read, Draft(tuple(items)))
    assert (list(found.move), found.remove, len(found.add)) == ([0], (1,), 1)
    assert edit_shell(found, model, "tinted", Settings()) == (
        "energycomp edit tinted scene.png --move 1:0.2,0.3,tint=blue --remove 2 --add 0.9,0.1 --seed 0 -o edited.png"
    )
    assert 'move={0: {"x": 0.2, "y": 0.3, "tint": "blue"}}, remove=[1], add=[[0.9, 0.1]]' in edit_python(
        found, model, "tinted", Settings()
    )
    assert "--steps 25 --seed 0" in edit_shell(found, model, "tinted", Settings(steps=25))
    assert "num_inference_steps=25, generator=0" in edit_python(found, model, "tinted", Settings(steps=25))
    assert not changes(read, Draft(tuple(Item(one, origin=k) for k, one in enumerate(read))))
    with pytest.raises(InputError, match="read the image again"):
        changes(read, Draft((Item(read[0], origin=7),)))


def test_a_turn_is_said_in_all_lines(turned: Model) -> None:
    cube = {"x": 0.2, "y": 0.3, "color": "red", "shape": "cube", "turn": 45}
    scene, settings = Draft((Item(cube),)), Settings()
    assert text_of(scene.items[0], turned) == "red cube turn=45 at 0.2,0.3"
    whole = Item({"x": 0.2, "y": 0.3, "size": "large", "color": "red", "material": "metal", "shape": "cube"})
    assert text_of(whole, turned) == "large red metal cube at 0.2,0.3"
    assert 'model(0.2, 0.3, color="red", shape="cube", turn=45)' in python_lines(scene, turned, "clevr", settings)
    assert "'red cube turn=45 at 0.2,0.3'" in shell_line(scene, turned, "clevr", settings)
    assert form_of(turned).attributes.keys() == {"size", "color", "material", "shape"}  # no list of 90 turns
    formula = formula_of_scene(scene, turned, "clevr", settings) or {}
    assert scene_in(formula, turned)[0] == scene
    assert (settings.aspect(turned), Settings(canvas="48x16").aspect(turned)) == (1.5, 3.0)


def test_what_is_open_is_drawn_alike_by_python_the_command_and_the_studio(turned: Model, run: Any) -> None:
    plugins.register("models", "turned", lambda **_: turned)
    scene, settings = Draft((Item({"x": 0.3, "y": 0.5, "shape": "cube"}), Item(OPEN))), Settings(seed=3)
    image, other = (turned.shown(draw_scene(scene, turned, one), side=SIDE) for one in (settings, Settings(seed=4)))
    assert png(image) != png(other)
    line = "energycomp sample turned 'cube at 0.3,0.5' 0.7,0.8 --seed 3 -o scene.png"
    assert shell_line(scene, turned, "turned", settings) == line
    formula = formula_of_scene(scene, turned, "turned", settings)
    # Python writes what made an image only where it is told
    assert drawn(run, scene, turned, "turned", settings) == (png(image, formula=formula), png(image))
    assert scene_in(formula or {}, turned)[:2] == (scene, settings)  # what was open is open again
