"""The commands that decompose images, on stripes, whose parts are known exactly; scenes of a model; refusals."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from energycomp.models import save_pretrained
from energycomp.testing import stripes_model, tiny_model
from energycomp.testing.models import BACKGROUND
from energycomp_lab.checks.painter import StripesPainter, paint_stripes, painted_model

pytestmark = pytest.mark.usefixtures("stripes")
K = 4
LINE = 20  # px, the heads of a figure


def colours(batch: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, K, 3, generator=torch.Generator().manual_seed(seed)) * 0.7 + 0.2


@pytest.fixture
def run(run: Callable[..., Any]) -> Callable[..., Any]:
    """Runs the command line in a folder with two pictures of stripes and a model: exit code, stdout, stderr."""
    save_pretrained(stripes_model(), "./model")
    for name, seed in (("a", 1), ("b", 2)):
        array = ((paint_stripes(colours(1, seed))[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(array).save(f"{name}.png")
    return run


def enlarged(pixels: np.ndarray, side: int = 96) -> np.ndarray:
    """An image (16, 16, 3) as figures show it."""
    image = Image.fromarray(pixels.round().astype(np.uint8)).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(image).astype(int)


def figure(path: str, *, columns: int, rows: int) -> np.ndarray:
    """The cells of a figure, below its heads and right of its names: one every 98 pixels."""
    with Image.open(path) as image:
        assert image.mode == "RGB"
        pixels = np.asarray(image).astype(int)
    height, width = rows * 98 + 2, columns * 98 + 2
    assert pixels.shape[0] == height + LINE
    assert pixels.shape[1] > width
    heads, names = pixels[:LINE, -width:], pixels[LINE:, :-width]
    assert all(part.min() < 100 < part.max() for part in (heads, names))  # letters on white
    return pixels[LINE + 2 :, 2 - width :]


def test_a_strip_shows_picture_whole_and_parts(run: Any) -> None:
    code, out, err = run("decompose", "./model", "a.png", "b.png", "-o", "new/strip.png", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [len(entry["parts"]) for entry in report["images"]] == [K, K]
    assert report["images"][0]["parts"] == pytest.approx([0.25] * K)
    assert max(entry["error"] for entry in report["images"]) < 1e-6
    pixels = figure("new/strip.png", columns=K + 2, rows=4)
    first, whole = (pixels[:96, x : x + 96] for x in (0, 98))
    assert np.abs(first - whole).max() <= 2
    assert np.abs(first - enlarged(np.asarray(Image.open("a.png")))).max() <= 2


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
    code, _, err = run("recombine", "./model", "foreign.png", "a.png", "--take", "0", "--take", "2", "-o", "out.png")
    assert (code, err.count("parts explain"), err.count("foreign.png: parts explain")) == (0, 1, 1)
    Image.new("RGB", (16, 16), (102, 102, 102)).save("plain.png")  # the ground
    code, out, err = run("decompose", "./model", "plain.png", "--json")
    assert (code, json.loads(out)["images"][0]["explained"], err.partition("...\n")[2]) == (0, None, "")


def test_parts_of_two_pictures_in_one(run: Any) -> None:
    command = ("recombine", "./model", "a.png", "b.png", "--take", "0,1", "--take", "2,3", "--raw", "-o", "out.png")
    code, out, err = run(*command)
    assert (code, out.splitlines()) == (0, ["4 parts", "out.png"]), err
    a, b, both = (np.asarray(Image.open(f"{name}.png")).astype(int) for name in ("a", "b", "out"))
    assert np.abs(both[:, :8] - a[:, :8]).max() <= 1
    assert np.abs(both[:, 8:] - b[:, 8:]).max() <= 1
    code, out, err = run(
        "recombine", "./model", "a.png", "b.png", "--take", "all", "--raw", "-o", "added.png", "--json"
    )
    assert (code, json.loads(out)["parts"]) == (0, 2 * K), err
    ground = 127.5 * (1 + BACKGROUND)
    added = np.asarray(Image.open("added.png")).astype(float)
    assert np.abs(added - np.minimum(a + b - ground, 255)).max() <= 2


def test_recombine_with_a_factor(run: Any) -> None:
    code, out, err = run("recombine", "./model", "a.png", "--take", "0,1*0.5", "--raw", "-o", "weak.png", "--json")
    assert (code, json.loads(out)["parts"]) == (0, 2), err
    a, weak = (np.asarray(Image.open(f"{name}.png")).astype(float)[8] for name in ("a", "weak"))
    ground = 127.5 * (1 + BACKGROUND)
    for column, expected in ((2, a[2]), (6, (ground + a[6]) / 2), (14, ground)):
        assert np.abs(weak[column] - expected).max() <= 1


def test_views_are_searched_where_asked_for(run: Any) -> None:
    views = ("--option", "views=2")
    one, two = (json.loads(run("decompose", "./model", "a.png", *v, "--json")[1])["rows"] for v in ((), views))
    assert two - one == 5 * 2 * K + 4 * K + 5
    for command in (("recombine", "--take", "0,1"), ("traverse", "--part", 0, "--dim", 1)):
        code, _, err = run(command[0], "./model", "a.png", *command[1:], *views)
        assert code == 0, err


# A model that names a decomposer, which makes scenes


def test_sample_makes_whole_scenes(run: Any) -> None:
    save_pretrained(painted_model(), "./painted")
    code, out, err = run("sample", "./painted", "-n", 3, "--grid", "--seed", 5, "-o", "new/scenes.png", "--json")
    assert (code, json.loads(out)) == (0, {"path": "new/scenes.png", "n": 3, "seed": 5}), err
    pixels = np.asarray(Image.open("new/scenes.png")).astype(float)
    scenes = StripesPainter().sample(3, generator=torch.Generator().manual_seed(5))
    expected = 127.5 * (scenes[0].permute(1, 2, 0).numpy() + 1)
    assert np.abs(pixels[2:130, 2:130] - enlarged(expected, 128)).max() <= 2
    code, out, err = run("sample", "./painted", "-o", "one.png")
    assert (code, out, Image.open("one.png").size) == (0, "one.png\n", (320, 320)), err
    latent = "0,0,0,0"
    for name, option in {"COMPONENT": [latent], "--not": ["--not", latent], "--best-of": ["--best-of", 2]}.items():
        code, out, err = run("sample", "./painted", *option, "-o", "no.png")
        assert (code, out) == (2, "")
        assert f"got {name} with ./painted, which generates whole scenes" in err, err
    assert "got --steps, --sampler" in run("sample", "./painted", "--steps", 3, "--sampler", "ddim")[2]
    assert not Path("no.png").exists()


# One number of a latent


def test_traverse_sets_one_number_and_tells_what_changes(run: Any) -> None:
    command = ("traverse", "./model", "a.png", "--part", 1, "--dim", 2, "--from", -0.4, "--to", 0.8, "--steps", 3)
    code, out, err = run(*command, "-o", "new/strip.png", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["path"], report["part"], report["dim"], report["seed"]) == ("new/strip.png", 1, 2, 0)
    assert report["values"] == pytest.approx([-0.4, 0.2, 0.8])
    assert report["changed"] == pytest.approx(1.2 / 3 / 2, abs=1e-5)  # one channel of three, of a range of 2
    assert report["outside"] == pytest.approx(0, abs=1e-6)
    pixels = figure("new/strip.png", columns=4, rows=1)
    a = np.asarray(Image.open("a.png")).astype(float)
    assert np.abs(pixels[:96, :96] - enlarged(a)).max() <= 2
    for k, value in enumerate((-0.4, 0.2, 0.8), start=1):
        expected = a.copy()
        expected[:, 4:8, 1] = 127.5 * (1 + BACKGROUND + value)
        assert np.abs(pixels[:96, 98 * k : 98 * k + 96] - enlarged(expected)).max() <= 2


def test_pictures_of_a_traversal_start_from_one_noise(run: Any) -> None:
    save_pretrained(stripes_model(leak=0.8), "./noisy")
    command = ("traverse", "./noisy", "a.png", "--part", 1, "--dim", 2, "--from", 0, "--to", 0.2, "--json")
    first, _ = (json.loads(run(*command, "--seed", seed, "-o", f"{seed}.png")[1]) for seed in (0, 1))
    assert first["changed"] > 0.02
    assert first["outside"] == pytest.approx(0, abs=1e-6)
    assert Path("0.png").read_bytes() != Path("1.png").read_bytes()  # the noise does matter


def test_traverse_finds_the_numbers_that_change_most(run: Any) -> None:
    save_pretrained(painted_model(), "./painted")
    for model, dims in (("./painted", {0, 1, 2}), ("./model", {0, 1, 2, 3})):
        code, out, err = run("traverse", model, "a.png", "--part", 3, "--from", 0, "--to", 0.5, "--steps", 2, "--json")
        assert code == 0, err
        report = json.loads(out)
        assert {change["dim"] for change in report["dims"]} == dims
        figure("traverse.png", columns=3, rows=len(dims))
    assert report["dims"][-1]["dim"] == 0  # half a number of a stripe is the same stripe
    assert [change["changed"] for change in report["dims"][:3]] == pytest.approx([0.5 / 6] * 3, abs=1e-5)
    assert report["dims"][-1]["changed"] == report["dims"][-1]["outside"] == pytest.approx(0, abs=1e-6)


def test_traverse_without_masks_or_without_a_pixel(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    save_pretrained(painted_model(), "./painted")
    command = ("traverse", "./painted", "a.png", "--part", 0, "--dim", 0, "--from", 0, "--to", 1)
    parts = StripesPainter.parts
    for masks, expected in ((None, (1 / 3 / 2 / K, None)), (torch.zeros(7, K, 16, 16).bool(), (None, 1 / 3 / 2 / K))):
        masked = lambda *args, masks=masks, **kwargs: attrs.evolve(parts(*args, **kwargs), masks=masks)  # noqa: E731
        monkeypatch.setattr(StripesPainter, "parts", masked)
        report = json.loads(run(*command, "--json")[1])
        assert (report["changed"], report["outside"]) == pytest.approx(expected)
        assert "4.17 % " in run(*command)[1]


BAD = {
    "no encoder": ("decompose ./tiny a.png", "has no encoder"),
    "no picture": ("decompose ./model nothing.png", "nothing.png, which is no file"),
    "no png": ("decompose ./model a.png -o strip.jpg", "a PNG file"),
    "three takes": ("recombine ./model a.png b.png --take 0 --take 1 --take 2", "got 3 --take for 2 images"),
    "a factor that is no number": ("recombine ./model a.png --take 0*x", "got --take '0*x'"),
    "words": ("recombine ./model a.png --take left", "got --take 'left'"),
    "views without an encoder": ("decompose ./tiny a.png --option views=2", "got --option views=2 with tiny"),
    "no such part": ("recombine ./model a.png --take 0,4", "from 0 to 3"),
    "part of four": ("traverse ./model a.png --part 4", "got part 4 of 4; expected a whole number from 0 to 3"),
    "number of four": ("traverse ./model a.png --part 0 --dim 4", "got dimension 4 of 4"),
    "one value": ("traverse ./model a.png --part 0 --from 1 --to 1", "got --from 1 and --to 1; expected two"),
    "no value": ("traverse ./model a.png --part 0 --to nan", "--to nan; expected two finite"),
    "traverse: no encoder": ("traverse ./tiny a.png --part 0", "has no encoder"),
    "traverse: no png": ("traverse ./model a.png --part 0 -o strip.jpg", "a PNG file"),
    "no part": ("recombine ./model a.png --take none", "one row"),
}


@pytest.mark.parametrize(("command", "reason"), BAD.values(), ids=BAD.keys())
def test_refused_in_one_line_with_nothing_left_behind(run: Any, command: str, reason: str) -> None:
    save_pretrained(tiny_model(), "./tiny")
    code, out, err = run(*command.split())
    assert (code, out) == (2, "")
    assert err.startswith("energycomp: ")
    assert reason in err
    assert re.sub(r"^energycomp: loading \S+ \.\.\.\n", "", err).count("\n") == 1
    assert {path.name for path in Path().iterdir()} == {"model", "tiny", "a.png", "b.png"}
