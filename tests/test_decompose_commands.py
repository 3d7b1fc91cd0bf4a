"""`energycomp decompose`, `recombine`, `add` and `evaluate` of stripes, whose parts are known exactly; refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchmetrics import MetricCollection

from energycomp import cli, plugins
from energycomp.closed_form import BACKGROUND, Stripes, StripesEncoder
from energycomp.data import Example
from energycomp.metrics import MaskIoU, MaskRecall
from energycomp.pretrained import save_pretrained
from energycomp.testing import stripes_model, tiny_model

K = 4


@pytest.fixture(autouse=True)
def stripes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The names that a saved model of stripes is rebuilt by."""
    monkeypatch.setattr(plugins, "_own", {})
    plugins.register("networks", "stripes", Stripes)
    plugins.register("encoders", "stripes", StripesEncoder)
    yield
    plugins.reload()


def striped(colours: Tensor) -> Tensor:
    """Pictures (B, 3, 16, 16) of stripes with colours (B, K, 3)."""
    return colours.transpose(1, 2).repeat_interleave(16 // colours.shape[1], 2)[:, :, None].expand(-1, -1, 16, -1)


def colours(batch: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, K, 3, generator=torch.Generator().manual_seed(seed)) * 0.7 + 0.2


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """Runs the command line in a folder with two pictures of stripes and a model: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    save_pretrained(stripes_model(), "./model")
    for name, seed in (("a", 1), ("b", 2)):
        array = ((striped(colours(1, seed))[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(f"{name}.png")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["energycomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


def test_a_strip_shows_picture_whole_and_parts(run: Any) -> None:
    code, out, err = run("decompose", "./model", "a.png", "b.png", "-o", "new/strip.png", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [len(entry["parts"]) for entry in report["images"]] == [K, K]
    assert report["images"][0]["parts"] == pytest.approx([0.25] * K)
    assert max(entry["error"] for entry in report["images"]) < 1e-6
    strip_image = Image.open("new/strip.png")
    cell, padding = 96, 2
    assert strip_image.size == ((K + 2) * (cell + padding) + padding, 4 * (cell + padding) + padding)
    pixels = np.asarray(strip_image).astype(int)
    first, whole = (pixels[padding : padding + cell, x : x + cell] for x in (padding, 2 * padding + cell))
    assert np.abs(first - whole).max() <= 1
    assert np.abs(first[::6, ::6] - np.asarray(Image.open("a.png")).astype(int)).max() <= 1


def test_a_picture_of_another_kind_is_said_to_be_one(run: Any) -> None:
    rows = np.zeros((16, 16, 3), dtype=np.uint8)
    rows[::2] = 255  # stripes across, where the model has stripes down
    Image.fromarray(rows).save("foreign.png")
    code, out, err = run("decompose", "./model", "foreign.png", "a.png", "--json")
    assert code == 0
    shares = [entry["explained"] for entry in json.loads(out)["images"]]
    assert shares[0] < 0.1
    assert shares[1] > 0.99
    assert "foreign.png: parts explain" in err
    assert "a.png" not in err
    Image.new("RGB", (16, 16), (102, 102, 102)).save("plain.png")  # the ground
    code, out, err = run("decompose", "./model", "plain.png", "--json")
    assert (code, json.loads(out)["images"][0]["explained"], err) == (0, None, "")


def test_parts_of_two_pictures_in_one(run: Any) -> None:
    command = ("recombine", "./model", "a.png", "b.png", "--take", "0,1", "--take", "2,3", "-o", "out.png")
    code, out, err = run(*command)
    assert (code, out.splitlines()) == (0, ["4 parts", "out.png"]), err
    a, b, both = (np.asarray(Image.open(f"{name}.png")).astype(int) for name in ("a", "b", "out"))
    assert np.abs(both[:, :8] - a[:, :8]).max() <= 1
    assert np.abs(both[:, 8:] - b[:, 8:]).max() <= 1
    code, out, err = run("add", "./model", "a.png", "b.png", "--json")
    assert (code, json.loads(out)["parts"]) == (0, 2 * K), err
    ground = 127.5 * (1 + BACKGROUND)
    added = np.asarray(Image.open("added.png")).astype(float)
    assert np.abs(added - np.minimum(a + b - ground, 255)).max() <= 2


def test_recombine_with_a_factor(run: Any) -> None:
    code, out, err = run("recombine", "./model", "a.png", "--take", "0,1*0.5", "-o", "weak.png", "--json")
    assert (code, json.loads(out)["parts"]) == (0, 2), err
    a, weak = (np.asarray(Image.open(f"{name}.png")).astype(float)[8] for name in ("a", "weak"))
    ground = 127.5 * (1 + BACKGROUND)
    assert np.abs(weak[2] - a[2]).max() <= 1
    assert np.abs(weak[6] - (ground + a[6]) / 2).max() <= 1
    assert np.abs(weak[14] - ground).max() <= 1


def test_evaluate_takes_masks_of_a_dataset(run: Any) -> None:
    class Source:
        def examples(self, spec: str, *, count: int, seed: int) -> list[Example]:
            stripe = (torch.arange(16) // 4 == torch.arange(K)[:, None])[:, None].expand(-1, 16, -1)
            return [Example(picture, stripe, spec) for picture in striped(colours(count, seed))]

        def write(self, *args: Any, **kwargs: Any) -> None: ...

        def metrics(self) -> MetricCollection:
            return MetricCollection({"recall": MaskRecall(), "iou": MaskIoU()})

    plugins.register("datasets", "stripes", Source)
    code, out, err = run("evaluate", "./model", "-n", 2, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["recall"], report["iou"], report["images"]) == (1.0, 1.0, 2)
    assert report["mse"] < 1e-9 < report["mse_baseline"]
    code, _, err = run("evaluate", "./model", "-n", 2, "--count", "3")
    assert code == 2
    assert "--solver or --count" in err


BAD = {
    "no encoder": ("decompose ./tiny a.png", "has no encoder"),
    "no picture": ("decompose ./model nothing.png", "nothing.png, which is no file"),
    "no png": ("decompose ./model a.png -o strip.jpg", "a PNG file"),
    "one take": ("recombine ./model a.png b.png --take 0", "got 1 --take for 2 pictures"),
    "a factor that is no number": ("recombine ./model a.png --take 0*x", "got --take '0*x'"),
    "words": ("recombine ./model a.png --take left", "got --take 'left'"),
    "no such part": ("recombine ./model a.png --take 0,4", "from 0 to 3"),
    "no part": ("recombine ./model a.png --take none", "one row"),
}


@pytest.mark.parametrize(("command", "reason"), BAD.values(), ids=BAD.keys())
def test_refused_in_one_line_with_nothing_left_behind(run: Any, command: str, reason: str) -> None:
    save_pretrained(tiny_model(), "./tiny")
    code, out, err = run(*command.split())
    assert (code, out) == (2, "")
    assert err.startswith("energycomp: ")
    assert reason in err
    assert err.count("\n") == 1
    assert {path.name for path in Path().iterdir()} == {"model", "tiny", "a.png", "b.png"}
