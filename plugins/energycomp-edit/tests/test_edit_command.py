"""`energycomp edit` on a tiny model."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from energycomp.errors import InputError
from energycomp.testing import tinted_model
from energycomp_edit.command import _check_words

Run = Callable[..., tuple[int, str, str]]
Fake = Callable[..., list[Any]]


def test_edit_changes_the_objects_that_infer_numbers(run: Run, model: Path, pictures: Path, fake_infer: Fake) -> None:
    fake_infer()
    arguments = ["--move", "1:0.5,0.75", "--add", "0.1,0.2", "--steps", 2, "-o", "new/out.png", "--strip", "strip.png"]
    code, out, _ = run("edit", model, pictures / "a/one.png", *arguments)
    assert code == 0
    # The untrained model sees nothing in the result, and the command says so
    missing = "not as asked: 0.50 0.75 is missing; 0.10 0.20 is missing"
    lines = rf"1 object before, 0 after, {missing}; \d+% of the image changed\nnew/out.png\nstrip.png\n"
    assert re.fullmatch(lines, out)
    assert "strip.png, which energycomp wrote to show 2 images" in run("infer", model, "strip.png")[2]
    with Image.open("new/out.png") as edited, Image.open("strip.png") as strip:
        assert edited.size == (24, 16)
        assert strip.size[0] > 2 * strip.size[1]
    shown = json.loads(run("show", "new/out.png", "--json")[1])
    image = (pictures / "a/one.png").read_bytes()
    assert shown["formula"]["image"] == hashlib.sha256(image).hexdigest()
    assert len(shown["formula"]["objects"]) == 2
    words = "energycomp edit ./tiny IMAGE --move 1:0.5,0.75 --add 0.1,0.2 --steps 2 --seed 0 -o again.png"
    assert shown["shell"] == words
    assert "one.png" not in json.dumps(shown), "the name of a photo may be private"


def test_edit_reports_as_json_and_warns_of_foreign_pictures(
    run: Run, model: Path, pictures: Path, fake_infer: Fake
) -> None:
    fake_infer(foreign=True)
    code, out, err = run("edit", model, pictures / "a/one.png", "--remove", 1, "--steps", 2, "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["before"], report["after"]) == ([{"x": 0.5, "y": 0.25}], [])
    assert (report["path"], report["out_of_distribution"]) == ("edited.png", True)
    assert 0 < report["repainted"] <= 1
    assert (report["asked"], report["faults"], report["tries"]) == ([], [], 1)
    assert "one.png: the image is out of distribution" in err


def test_a_misspelt_attribute_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(InputError, match=r"got --set 1:tnt=red; expected one of tint.*; did you mean tint\?"):
        _check_words({1: {"tnt": "red"}}, tinted_model())
