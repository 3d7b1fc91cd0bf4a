"""The commands `scene` and `relate` on an included model: a graph is drawn, and read again."""

import json
import shlex
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from energycomp import load
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.testing import tiny_model
from energycomp_cli import app
from energycomp_scenes import draw, scene
from energycomp_scenes.drawing import check_words
from energycomp_scenes.relations import ground_of

GRAPH = "a: large red rubber cube; b: large blue rubber sphere; a left of b; not a near b"


@pytest.fixture(scope="module")
def picture(tmp_path_factory: Any) -> Path:
    file = tmp_path_factory.mktemp("drawn") / "scene.png"
    result = CliRunner().invoke(app, ["scene", "clevr-small", GRAPH, "-o", str(file), "--steps", "30", "--json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout.splitlines()[-1])
    assert record["graph"]["relations"] == ["a left of b", "not a near b"]
    (drawn,) = record["pictures"]
    assert [one["name"] for one in drawn["objects"]] == ["a", "b"]
    assert drawn["objects"][0]["x"] < drawn["objects"][1]["x"]
    assert drawn["probability"] > 0.5
    shown = json.loads(CliRunner().invoke(app, ["show", str(file), "--json"]).stdout)
    assert shown["formula"]["objects"] == [drawn["objects"]]
    words = ["energycomp", "scene", "clevr-small", GRAPH, "--steps", "30", "--seed", "0", "-o", "again.png"]
    assert shlex.split(shown["shell"]) == words
    return file


def test_a_graph_that_was_drawn_is_read(picture: Path, answer: Any) -> None:
    program = [{"function": "scene", "inputs": []}, {"function": "count", "inputs": [0]}]
    Path("questions.json").write_text(json.dumps(program))
    asked = ["--ask", "what color is the cube?", "--ask", "is the cube left of the sphere?", "--ask", "questions.json"]
    record = answer("relate", "clevr-small", picture, "--count", 2, *asked, "-o", "read.png")
    assert [one["answer"] for one in record["answers"]] == ["red", "yes", 2]
    (relation,) = record["relations"]
    assert relation["left of"] > 0.99
    assert relation["near"] < 0.5
    assert Image.open("read.png").size > (0, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scene", "clevr-small", "a: cube; b: cube; a left of b; b left of a"], "without a circle"),
        (["scene", "clevr-small", "missing.txt"], "missing.txt"),
        (["scene", "clevr-places", "a: cube"], "whole objects"),
        (["scene", "clevr-small", "a: cube", "-o", "a.txt"], "a.txt"),
        (["relate", "clevr-small", "missing.png"], "missing.png"),
        (["relate", "clevr-places", "IMAGE"], "whole objects"),
        (["relate", "clevr-small", "IMAGE", "--ask", "why?"], "the question 'why?'"),
        (["relate", "clevr-small", "IMAGE", "--ask", "missing.json"], "missing.json"),
        (["relate", "clevr-small", "IMAGE", "--camera"], "no viewpoint"),
    ],
)
def test_what_the_commands_refuse(arguments: list[str], said: str, picture: Path, run: Any) -> None:
    code, _, err = run(*(picture if one == "IMAGE" else one for one in arguments))
    assert code == 2
    assert said in " ".join(err.split())


def test_pictures_that_cannot_be_drawn() -> None:
    with pytest.raises(InputError, match="whole objects"):
        draw(scene("a: cube"), tiny_model())
    model = load("clevr-small")
    with pytest.raises(InputError, match="tries=0"):
        draw(scene("a: cube"), model, tries=0)
    with pytest.raises(InputError, match="'gif'"):
        draw(scene("a: cube"), model, output_type="gif")


def test_a_picture_is_drawn_again_until_its_words_are_seen(monkeypatch: Any) -> None:
    sure = iter([0.1, 0.9, 0.3, 0.2])
    monkeypatch.setattr("energycomp_scenes.drawing.check_words", lambda *_: next(sure))
    how: dict[str, Any] = {"num_inference_steps": 2, "output_type": "pt", "progress": False}
    first, second = draw(scene("a: cube"), load("clevr-small"), 2, tries=3, generator=0, **how)
    assert (first.probability, first.tries) == (0.3, 3)
    assert (second.probability, second.tries) == (0.9, 1)
    # The object, and once it is guided, the one of any words, too; places cost no network.
    assert (first.rows, second.rows) == (3 * (1 + 2), 1 + 2)
    assert isinstance(second.image, torch.Tensor)


@pytest.mark.parametrize(("beta", "draws"), [(1e9, 6 // 3), (1e-9, 6 + 12)], ids=["sure", "in doubt"])
def test_looking_costs_the_words_of_each_object_and_those_in_doubt_again(beta: float, draws: int) -> None:
    model, values = load("clevr-small"), torch.tensor([[0.3, 0.5, 2, 2, 1, 1], [0.7, 0.5, 2, 3, 1, 2.0]])
    model = attrs.evolve(model, defaults=attrs.evolve(model.defaults, beta=beta))
    with count_rows() as counted:
        check_words(torch.zeros(3, 64, 64), model, values, values)
    first = 1 + 2 * (1 + 2 + 8 + 2 + 3)  # u, objects, and the open one beside its words
    assert counted.rows == 2 * first + (draws - 2) * (first - 2 * 4)  # then without the words that objects have


def test_relations_hold_of_the_sizes_that_are_drawn(monkeypatch: Any) -> None:
    monkeypatch.setattr("energycomp_scenes.drawing.check_words", lambda *_: 1.0)
    graph = scene("a: small cube; b: sphere; a in the same row as b; a behind b")
    how: dict[str, Any] = {"num_inference_steps": 1, "output_type": "pt", "progress": False}
    pictures = draw(graph, load("clevr-small"), 4, generator=0, **how)
    values = torch.stack([one.values for one in pictures])
    assert values[:, 1, 2].eq(2).all()
    assert bool(graph.holds(ground_of(values)).all())
