"""Skills: what is asked, when a picture is right, and `energycomp evaluate --data skills`."""

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

from energycomp import load
from energycomp.errors import InputError
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp_clevr.objects import Objects
from energycomp_datasets.clevr.geometry import SHAPES
from energycomp_datasets.clevr.layout import object_values, scene_of
from energycomp_datasets.clevr.outlines import in_view
from energycomp_datasets.clevr.reader import load_reader
from energycomp_datasets.clevr.renderer import render
from energycomp_datasets.solids.solids import picture
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_scenes import Skills, scene
from energycomp_scenes.artists import Drawing
from energycomp_scenes.prompts import PROMPTED, Prompter, Wanted
from energycomp_scenes.skills import SKILLS, Describer, GraphPrompt, judge_outlines


def found(*texts: str) -> Tensor:
    """What a reader that makes no mistake finds of described objects."""
    return torch.cat([Objects().read(text) for text in texts])


BALL, CUBE = "large red rubber sphere at 0.3,0.5", "small blue metal cube at 0.7,0.6"
FAR = "small blue metal cube at 0.1,0.6"
RIGHT = [
    ("two", "a: red sphere; b: blue cube", None, (BALL, CUBE)),
    ("relation", "a: red sphere; b: blue cube; a left of b", None, (CUBE, BALL)),
    ("position", "a: red sphere at 0.32,0.5", None, (BALL,)),
    ("negation", "a: large sphere at 0.3,0.5", "blue", (BALL,)),
]
WRONG = [
    ("two", "a: red sphere; b: blue cube", None, (BALL,)),
    ("two", "a: red sphere; b: blue cube", None, (BALL, CUBE, FAR)),
    ("two", "a: red cube; b: blue sphere", None, (BALL, CUBE)),
    ("relation", "a: red sphere; b: blue cube; a left of b", None, (BALL, FAR)),
    ("position", "a: red sphere at 0.4,0.5", None, (BALL,)),
    ("position", "a: red sphere at 0.4,0.5", None, ()),
    ("negation", "a: large sphere at 0.3,0.5", "red", (BALL,)),
]


@pytest.mark.parametrize(("case", "right"), [*((case, True) for case in RIGHT), *((case, False) for case in WRONG)])
def test_a_picture_is_right(case: tuple[str, str, str | None, tuple[str, ...]], right: bool) -> None:
    skill, text, denied, objects = case
    there = found(*objects) if objects else torch.zeros(0, 6)
    assert GraphPrompt(skill, scene(text), denied).shown_by(there) is right


def test_prompts_follow_from_the_seed() -> None:
    names = [one.name for one in Skills().examples("", count=16, seed=0)]
    assert [name.split()[0] for name in names[:8]] == list(SKILLS)
    assert names == [one.name for one in Skills().examples("", count=16, seed=0)]
    assert len({*names, *(one.name for one in Skills().examples("", count=16, seed=1))}) == 30  # counting has no words
    with pytest.raises(InputError, match="which are prompts"):
        Skills().write(Path("out"))
    with pytest.raises(InputError, match="got the skill 'three'"):
        Skills().examples("three", count=1, seed=0)


def test_a_model_is_evaluated(answer: Any) -> None:
    model = load("clevr-small")
    quick = attrs.evolve(model, defaults=attrs.evolve(model.defaults, num_inference_steps=4, draws=16))
    quick.save_pretrained("quick")
    report = answer("evaluate", "./quick", "--data", "skills:negation", "-n", 2, "--seed", 1, "-o", "out")
    assert report["negation"] in (0.0, 0.5, 1.0)
    assert {name for name in report if name.endswith("_by_outline")} <= {f"{shape}s_by_outline" for shape in SHAPES}
    assert report["rows_per_image"] == 2 + 2 + 3 + 3  # two components in four steps, and what guides the later two
    assert len(list(Path("out").glob("*.png"))) == 2


def test_outlines_are_judged_beside_the_reader() -> None:
    """Renders of what was asked for have the outlines that were asked for; those of other words have not."""
    drawing = Drawing(Describer(Skills(), load("clevr-small"), load_reader()))
    there = scene_of(HELD_OUT, 3, (3, 3))
    image, values = render(there, (128, 192)) / 2 + 0.5, object_values(there)
    swapped = values.clone()
    swapped[:, 5] = values[:, 5] % len(SHAPES) + 1
    count = int(in_view(values).sum())
    assert count > 0
    for asked, right in ((values, True), (swapped, False)):
        outlines = judge_outlines(image, asked)
        assert [one for _, one in outlines] == [right] * count
        drawing.score(torch.zeros(0), torch.zeros(0), {"skill": "one", "right": True, "outlines": outlines})
    assert judge_outlines(image, values * torch.tensor([1.0, 1, 1, 1, 1, 0])) == ()  # open shapes
    found = {name: value for scores in drawing.scores for name, value in scores.values().items()}
    true, others = (asked[in_view(values), 5].int().tolist() for asked in (values, swapped))
    shares = {code: true.count(code) / (true + others).count(code) for code in {*true, *others}}
    expected = {"one": 1.0} | {f"{SHAPES[code - 1]}s_by_outline": share for code, share in shares.items()}
    assert found == pytest.approx(expected)


@pytest.fixture(scope="module")
def text() -> Model:
    pytest.importorskip("energycomp_text", reason="no text: pip install energycomp-text")
    return load("text-composed")


def test_prompts_are_composed(text: Model) -> None:
    task = Skills().task(text)
    examples = task.examples("", count=18, seed=0)
    asked = {skill: [one.conditions[0] for one in examples[k::6]] for k, skill in enumerate(PROMPTED)}
    assert all(one.skill == skill for skill, those in asked.items() for one in those)
    assert [len(one.names) for one in asked["several"]] == [2, 3, 4]
    assert [one.names for one in asked["compound"]] == [one.names for one in asked["two"]]
    for one in asked["binding"]:
        assert not {*one.names[0].split()} & {*one.names[1].split()}
    for one in asked["negation"]:
        assert one.denied not in one.names
    assert [one.name for one in examples] == [one.name for one in task.examples("", count=18, seed=0)]
    assert examples[0].name != task.examples("one", count=1, seed=1)[0].name


def test_a_judge_knows_all_concepts(text: Model) -> None:
    judge = attrs.evolve(text, conditioner=text.conditioner.with_concepts(["red cube", "blue cube"]))
    with pytest.raises(InputError, match="which does not know red sphere"):
        Skills(judge=judge).task(text).examples("", count=1, seed=0)


def test_prompts_are_judged_by_a_model(text: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp_scenes.prompts.DRAWS", 4)
    artist = Prompter(text, text)
    image = picture(["red cube", "blue sphere"], np.random.default_rng(0)) / 2 + 0.5
    composition = text(concept="red cube") & text(concept="blue sphere")
    asked = Wanted("two", ("red cube", "blue sphere"), composition)
    assert artist.right(asked, image) == (True, ["blue sphere", "red cube"])
    assert not artist.right(attrs.evolve(asked, names=("red cube", "green sphere")), image)[0]
    assert artist.right(attrs.evolve(asked, names=("red cube",), denied="green cube"), image)[0]
    assert not artist.right(attrs.evolve(asked, names=("red cube",), denied="blue sphere"), image)[0]
    quick = Prompter(text, text, options={"num_inference_steps": 2})
    drawn = quick.drawn(asked, seeded(0))
    assert (drawn.image.shape, drawn.tries, drawn.rows) == ((3, 64, 64), 1, 6)  # two prompts and u, in two steps
    drawn = attrs.evolve(quick, tries=2).drawn(asked, seeded(0))
    assert 1 <= drawn.tries <= 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["clevr-places", "--data", "skills"], "or of prompts, such as text"),
        (["clevr-small", "--data", "skills:three"], "got the skill 'three'"),
        (["clevr-small", "--data", "skills", "--solver", "pursuit"], "got a solver or a count"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], said: str, run: Any) -> None:
    code, _, err = run("evaluate", *arguments)
    assert code == 2
    assert said in err


@pytest.mark.parametrize(
    ("spec", "concepts", "said"),
    [
        ("counting", ["red cube", "blue cube"], "expected some of one, two, compound"),
        ("", ["red cube"], "add --option concepts=cat,dog"),
    ],
)
def test_what_cannot_be_asked_of_prompts(text: Model, spec: str, concepts: list[str], said: str) -> None:
    few = attrs.evolve(text, conditioner=text.conditioner.with_concepts(concepts))
    with pytest.raises(InputError, match=said):
        Skills().task(few).examples(spec, count=1, seed=0)
