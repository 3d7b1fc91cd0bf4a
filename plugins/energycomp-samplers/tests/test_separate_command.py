"""`energycomp separate`: a sum of two images is written as its sources; refusals in one line."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from energycomp.models import save_pretrained
from energycomp.testing import tiny_model

OPTIONS = ["--steps", "2", "-n", "3", "--variance", "0.3", "--noise", "0.05"]


@pytest.fixture
def run(run: Callable[..., Any]) -> Callable[..., Any]:
    save_pretrained(tiny_model(), "./model")
    Image.new("RGB", (16, 16), (200, 180, 160)).save("both.png")
    return run


def test_sources_are_drawn_beside_each_other(run: Callable[..., Any]) -> None:
    arguments = ["separate", "./model", "both.png", "0.3,0.3", "0.7,0.6", "--brightness", "0.5", *OPTIONS]
    code, out, _ = run(*arguments, "-o", "sources.png", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["count"] == 2
    assert [one["source"] for one in report["sources"]] == ["tiny(0.3, 0.3)", "tiny(0.7, 0.6)"]
    # The two means, at half their brightness, add up to the image.
    assert sum(one["brightness"] for one in report["sources"]) / 2 == pytest.approx(180 / 255, abs=0.03)
    assert report["residual"] < 0.05
    assert report["rows"] == 3 * 2 * 2
    assert report["level"] == 0.5  # between the least and the greatest of three draws
    with Image.open("sources.png") as figure:
        assert figure.width > 3 * 192
        assert figure.height > 3 * 192


def test_the_largest_of_small_intervals_is_white(run: Callable[..., Any]) -> None:
    small = ["--steps", "2", "-n", "2", "--variance", "1e-4", "--noise", "0.05"]
    code, _, _ = run("separate", "./model", "both.png", "0.3,0.3", "0.7,0.6", *small, "-o", "sources.png")
    assert code == 0
    with Image.open("sources.png") as figure:  # cells of 192 px, 2 px apart; the first of the last row is a residual
        last = [
            figure.crop((figure.width - left + 4, figure.height - 190, figure.width - left + 188, figure.height - 6))
            for left in (194, 388)
        ]
    assert max(high for cell in last for _, high in cell.getextrema()) > 240


def test_sources_have_the_shape_of_the_frames_of_the_model(run: Callable[..., Any]) -> None:
    save_pretrained(tiny_model(aspect=1.5), "./wide")
    code, _, _ = run("separate", "./wide", "both.png", "0.3,0.3", "0.7,0.6", *OPTIONS, "-o", "sources.png")
    assert code == 0
    with Image.open("sources.png") as figure:
        assert 3 * 288 < figure.width < 4 * 288
        assert 3 * 192 < figure.height < 4 * 192


def test_the_count_may_be_open(run: Callable[..., Any]) -> None:
    code, out, _ = run("separate", "./model", "both.png", "0.3,0.3", "--count", "1-2", *OPTIONS)
    assert code == 0
    assert "sources; probabilities of counts: 1 (" in out


def test_what_cannot_be_separated_is_refused(run: Callable[..., Any]) -> None:
    for arguments, message in (
        (["0.3,0.3"], "got one source and no --count"),
        (["0.3,0.3", "0.7,0.6", "--noise", "0"], "got noise=0; expected numbers above 0"),
        (["0.3,0.3", "--count", "0-2"], "got count=(0, 2)"),
        (["0.3,none"], "COMPONENT '0.3,none'"),
    ):
        code, out, err = run("separate", "./model", "both.png", *OPTIONS, *arguments)
        assert (code, out) == (2, "")
        assert message in err.splitlines()[-1]
