"""`rank` and `sample --best-of` on a model in closed form."""

import json
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from energycomp import Composer, plugins
from energycomp.models import Model
from energycomp.testing import bumps_model, planted
from energycomp_samplers import rank as ranked

Run = Callable[..., tuple[int, str, str]]
A, B = (0.2, 0.3), (0.7, 0.8)
NAMES = ["bumps(0.2, 0.3)", "bumps(0.7, 0.8)"]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    model = bumps_model(num_inference_steps=3)
    plugins.register("models", "bumps", lambda **_: model)
    return model


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Model) -> Run:
    """Runs the command line in a folder of three images: exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "images").mkdir()
    for name, sample in samples(model).items():
        model.decode(sample)[0].save(tmp_path / "images" / f"{name}.png")
    return run


def samples(model: Model) -> dict[str, Tensor]:
    places = {"a": [A], "both": [A, B], "none": []}
    return {name: planted(model, torch.tensor(values).reshape(-1, 2)) for name, values in places.items()}


def test_rank_prints_the_best_image_first(run: Run) -> None:
    code, out, err = run("rank", "bumps", "images", "--component", "0.2,0.3", "--component", "0.7,0.8")
    assert (code, err.partition("...\n")[2]) == (0, "")
    lines = [line for line in out.splitlines() if "images/" in line]
    assert "both.png" in lines[0]
    assert "complete" in lines[0]
    assert "without bumps(0.7, 0.8)" in next(line for line in lines if "a.png" in line)
    assert out.splitlines()[-1] == f"1 of 3 images show every component; {3 * 3 * 32} network evaluations"


def test_rank_as_json_agrees_with_the_function(run: Run, model: Model) -> None:
    command = ["rank", "bumps", "images/a.png", "images/both.png", "--component", "0.2,0.3", "--not", "0.7,0.8"]
    code, out, _ = run(*command, "--draws", 8, "--seed", 4, "--json")
    report = json.loads(out)
    assert code == 0
    assert [Path(entry["image"]).name for entry in report["images"]] == ["a.png", "both.png"]
    assert [entry["unwanted"] for entry in report["images"]] == [[], NAMES[1:]]
    composition = Composer([model(*A), ~model(*B)])
    expected = ranked(["images/a.png", "images/both.png"], composition, model=model, draws=8, generator=4)
    found = torch.tensor([[entry["lift"] for entry in image["lifts"]] for image in report["images"]])
    torch.testing.assert_close(found, expected.lift)
    assert report["rows"] == expected.rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images"], "got no component; expected --component or --not"),
        (["missing.png", "--component", "0.2,0.3"], "got missing.png, which does not exist"),
        (["images", "--component", "red"], "got the component 'red', which is not a component of bumps"),
    ],
)
def test_rank_refuses(run: Run, arguments: list[str], message: str) -> None:
    code, out, err = run("rank", "bumps", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def sampled_in_turn(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    """Replaces the sampler by one that draws the images a, both, none, a, both, none, ..."""
    kinds = cycle(samples(model).values())
    monkeypatch.setattr(Composer, "sample", lambda _, n, **__: torch.cat([*islice(kinds, n)]))


def test_best_of_keeps_what_shows_every_component(run: Run, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled_in_turn(monkeypatch, model)
    command = ["sample", "bumps", "0.2,0.3", "0.7,0.8", "-n", 2, "--best-of", 3, "--raw", "-o", "best.png"]
    code, out, err = run(*command)
    assert (code, err.partition("...\n")[2]) == (0, "")
    composition, kept, dropped, cost, *files = out.splitlines()
    assert composition == "-u + bumps(0.2, 0.3) + bumps(0.7, 0.8)"
    assert kept == "kept 2 of 6 samples; 2 show every component"
    lacks = ["2 without bumps(0.7, 0.8)", "2 without bumps(0.2, 0.3), without bumps(0.7, 0.8)"]
    assert sorted(dropped.removeprefix("dropped 4: ").split("; ")) == sorted(lacks)
    assert cost == f"{6 * 3 * 32 / 2:.0f} network evaluations per kept sample"
    assert files == ["best-1.png", "best-2.png"]
    with Image.open("best-1.png") as image:
        assert image.tobytes() == model.decode(samples(model)["both"])[0].tobytes()
    report = json.loads(run(*command, "--json")[1])["best_of"]
    assert (report["best_of"], report["complete"]) == (3, 2)
    assert [entry["missing"] for entry in report["kept"]] == [[], []]
    assert sorted(len(entry["missing"]) for entry in report["dropped"]) == [1, 1, 2, 2]


def test_best_of_warns_where_too_few_are_complete(run: Run, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sampled_in_turn(monkeypatch, model)
    code, out, err = run("sample", "bumps", "0.2,0.3", "0.7,0.8", "-n", 2, "--best-of", 2)
    assert (code, "kept 2 of 4 samples; 1 show every component" in out) == (0, True)
    said = "energycomp: warning: 1 of 2 kept samples: 1 without bumps(0.7, 0.8); raise --best-of\n"
    assert err.partition("...\n")[2] == said


def test_best_of_needs_components(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("sample", "bumps", "--best-of", 2)
    code, _, err = run(*command)
    assert (code, "got u without components" in err) == (2, True)
    monkeypatch.setattr("energycomp.decomposition.sampler_of", lambda _: lambda *_, **__: None)
    code, _, err = run(*command)
    assert (code, "got --best-of with bumps, which generates whole scenes" in err) == (2, True)
