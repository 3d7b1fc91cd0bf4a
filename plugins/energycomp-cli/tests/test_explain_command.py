"""`explain`: an image, one map of pixels for each component, and a table."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from energycomp import plugins
from energycomp.models import Model
from energycomp.testing import bumps_model, planted, stripes_model


def prepared(model: Model, values: Any, folder: Path) -> None:
    plugins.register("models", model.name, lambda **_: model)
    image = torch.full((1, 3, 16, 16), 0.6) if values is None else planted(model, values)
    model.decode(image)[0].save(folder / "scene.png")


def test_a_reading_and_given_components(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prepared(bumps_model(solver="pursuit"), torch.tensor([[0.2, 0.3], [0.7, 0.8]]), tmp_path)
    code, out, _ = run("explain", "bumps", "scene.png", "-o", "read.png", "--count", 2)
    assert (code, out.splitlines()[-1]) == (0, "read.png")
    assert "share" in out
    given = ("--component", "0.7,0.8", "--component", "0.2,0.3")
    code, out, err = run("explain", "bumps", "scene.png", *given, "-o", "given.png", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "energycomp: loading bumps ...\n")
    assert [one["value"][0] for one in report["objects"]] == pytest.approx([0.2, 0.7])
    assert sum(one["share"] for one in report["objects"]) == pytest.approx(1.0, abs=0.05)
    assert torch.tensor(report["maps"]).shape == (2, 16, 16)
    assert Image.open("read.png").size == Image.open("given.png").size


def test_shares_of_an_image_that_the_model_does_not_know(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prepared(bumps_model(solver="pursuit"), torch.tensor([[0.2, 0.3]]), tmp_path)
    monkeypatch.setattr("energycomp.inference.Solution.trusted", False)
    given = ("explain", "bumps", "scene.png", "--component", "0.2,0.3")
    _, out, _ = run(*given)
    row = next(line for line in out.splitlines() if line.startswith("│ 1"))
    assert "share" in out
    assert [cell.strip() for cell in row.split("│")][-3:] == ["-", "-", ""]  # gain and share
    _, out, _ = run(*given, "--json")
    report = json.loads(out)
    assert report["trusted"] is False
    assert report["objects"][0]["share"] == pytest.approx(1.0)


def test_parts_of_a_model_that_decomposes(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    prepared(stripes_model(parts=2), None, tmp_path)
    code, out, _ = run("explain", "stripes", "scene.png", "--json")
    assert code == 0
    assert len(json.loads(out)["maps"]) == 2


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("scene.png --component 2,2", "got --component '2,2', which is not a component of bumps"),
        ("scene.png --count 0", "without maps; expected components"),
        ("scene.png --component 0.2,0.3 --count 2", "got --count 2 with components that are given"),
        ("scene.png -o maps.txt", "got -o maps.txt"),
        ("missing.png", "missing.png"),
    ],
)
def test_what_is_refused(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, error: str) -> None:
    prepared(bumps_model(solver="pursuit"), torch.tensor([[0.2, 0.3]]), tmp_path)
    code, out, err = run("explain", "bumps", *command.split())
    assert (code, out) == (2, "")
    assert error in err
    assert not Path("explained.png").exists()
