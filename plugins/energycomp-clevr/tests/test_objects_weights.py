"""The shipped weights of whole objects: scenes are drawn as described, and read as drawn."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
from PIL import Image

import energycomp
import energycomp_edit
from energycomp import plugins
from energycomp.inference import make_problem
from energycomp.inference.attributes import read_attributes
from energycomp.models import save_pretrained
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_lab.evaluation import true_values
from energycomp_solvers.pursuit import Pursuit

# Of an edit whose result is read as fast as can be: what is read says nothing here.
UNREAD: dict[str, Any] = {"solver": Pursuit(budget=0), "tries": 1, "progress": False}
TEXTS = ("large red rubber cube at 0.3,0.5", "small blue metal sphere at 0.7,0.55")


@pytest.fixture(scope="module")
def model() -> energycomp.Model:
    """With a quarter of its draws."""
    loaded = energycomp.load("clevr-small")
    return attrs.evolve(loaded, defaults=attrs.evolve(loaded.defaults, draws=16))


@pytest.fixture(scope="module")
def quick(model: energycomp.Model, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of the model with 10 DDPM steps in place of 100, and 4 draws, which doubts no answer."""
    folder = tmp_path_factory.mktemp("models") / "clevr"
    plugins.register("solvers", "first answer", partial(plugins.find("solvers", "pursuit"), budget=0))
    few = attrs.evolve(model.defaults, num_inference_steps=10, draws=4, solver="first answer")
    save_pretrained(attrs.evolve(model, defaults=few), folder)
    return str(folder)


@pytest.fixture(scope="module")
def scene(model: energycomp.Model) -> Image.Image:
    parts = [model.leaf(model.conditioner.read(text)) for text in TEXTS]
    return energycomp.Composer(parts).sample(generator=0, scheduler="ddpm", num_inference_steps=30, progress=False)[0]


@pytest.fixture(scope="module")
def solution(model: energycomp.Model, scene: Image.Image) -> energycomp.Solution:
    return energycomp.infer(scene, model)


def test_a_described_scene_is_read_as_described(model: energycomp.Model, solution: energycomp.Solution) -> None:
    found = [model.conditioner.describe(value) for value in solution.conditions]
    assert [(one["size"], one["color"]) for one in found] == [("large", "red"), ("small", "blue")]
    ddpm = {"scheduler": "DDPMScheduler", "num_inference_steps": 100}
    assert model.sampling() == ddpm | {"guidance": "attributes", "guidance_scale": 2.0}
    assert solution.certainty.shape == (2, 4)
    assert bool(((solution.certainty > 0) & (solution.certainty <= 1)).all())


def test_reads_the_attributes_of_a_held_out_scene(model: energycomp.Model) -> None:
    right: Counter[str] = Counter()
    total = 0
    for example in ClevrSource().examples("synthetic:3", count=1, seed=11):
        true = true_values(example, model.conditioner)
        words = read_attributes(make_problem(model.encode(example.image), model), true[:, :2], generator=0)
        for name, column in zip(("size", "color", "material", "shape"), (words.values == true)[:, 2:].T, strict=True):
            right[name] += int(column.sum())
        total += len(true)
    assert {name: count / total >= 0.8 for name, count in right.items()} == dict.fromkeys(right, True)


def test_an_edit_changes_a_colour(model: energycomp.Model, scene: Image.Image, solution: energycomp.Solution) -> None:
    new = {**model.conditioner.describe(solution.conditions[0]), "color": "green"}
    edited = energycomp_edit.edit(scene, model, move={0: new}, solution=solution, num_inference_steps=12, **UNREAD)
    problem = make_problem(model.encode(edited.image), model)
    again = read_attributes(problem, solution.conditions[:, :2], generator=0).values
    assert [model.conditioner.describe(value)["color"] for value in again] == ["green", "blue"]


@pytest.mark.parametrize(("word", "over"), [({"color": "green"}, 1), ({"shape": "sphere"}, 0)])
def test_another_shape_is_not_drawn_into_the_old_outline(
    model: energycomp.Model, scene: Image.Image, word: dict[str, str], over: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = model.conditioner.read("red cube at 0.3,0.5")
    solution = energycomp.Solution(values, 1, error=0.0, stderr=0.0, rows=0)
    drawn = []
    monkeypatch.setattr("energycomp_edit.canvas.redraw", lambda *given, **_: drawn.append(given) or given[2])
    new = {**model.conditioner.describe(values[0]), **word}
    energycomp_edit.edit(scene, model, move={0: new}, solution=solution, num_inference_steps=2, **UNREAD)
    assert len(drawn) == over


def test_the_command_writes_records_and_draws_what_was_found(quick: str, scene: Image.Image, run: Any) -> None:
    scene.save("scene.png")
    code, out, err = run("infer", quick, "scene.png", "--count", 2, "--format", "clevr", "--redraw", "-o", "out")
    assert code == 0, err
    (record,) = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    assert [entry["color"] for entry in record["objects"]] == ["red", "blue"]
    assert [len(entry["3d_coords"]) for entry in record["objects"]] == [3, 3]
    assert Path("out/scene-redrawn.png").is_file()


def test_guidance_doubles_the_attributes(run: Any) -> None:
    words = ["sample", "clevr-small", "red cube at 0.3,0.5", "0.7,0.6", "--steps", 2, "--no-metadata", "-o", "a.png"]
    images = []
    for options in ("", "--guidance attributes", "--guidance attributes=1", "--best-of 1 --guidance attributes=2.0"):
        code, out, err = run(*words, *options.split())
        assert code == 0, err
        assert out.splitlines()[0] == "-u + clevr-small(red cube at 0.3, 0.5) + clevr-small(0.7, 0.6)"
        images.append(Path("a.png").read_bytes())
    assert [image == images[0] for image in images] == [True, True, False, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("infer PHOTO --redraw", "without a folder"),
        ("infer PHOTO --format faces", "No writer is named 'faces'"),
        ("infer PHOTO --format clevr --json", "expected one of them"),
        ("edit PHOTO --set color=red", "an object's number"),
        ("edit PHOTO --set 1:color", "expected NAME=WORD"),
        ("edit PHOTO --set 1:color=rde", "got --set 1:color=rde; expected one of gray, red, blue,"),
        ("edit PHOTO --set 1:colour=red", "got --set 1:colour=red; expected one of size, color, material, shape"),
        ("edit PHOTO --set 1:color=red --set 1:size=large", "twice"),
        ("sample 0.7,0.6 --guidance attributes=nan", "a finite number"),
        ("sample 0.7,0.6 --guidance 2", "such as attributes=2"),
    ],
)
def test_options_that_cannot_be(options: str, message: str, scene: Image.Image, run: Any) -> None:
    scene.save("PHOTO", "PNG")
    command, *rest = options.split()
    code, _, err = run(command, "clevr-small", *rest)
    assert code == 2
    assert message in " ".join(err.split())
