"""`energycomp show`, and what `sample` writes for it."""

import json
import os
import shlex
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from energycomp import __version__
from energycomp.images import read_formula, save_image

Run = Callable[..., tuple[int, str, str]]


def shown(run: Run, formula: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """What `show --json` says of an image with this formula, and its command."""
    save_image(Image.new("RGB", (4, 4)), "made.png", formula=formula)
    code, out, err = run("show", "made.png", "--json")
    assert code == 0, err
    report = json.loads(out)
    return report["formula"], report["shell"]


def test_the_command_that_is_shown_draws_the_same_file(run: Run, model: Path) -> None:
    shutil.copytree(model, "tiny")  # a folder is named by its name alone, so the command is for the folder above it
    given = ["tiny", "0.3,0.5", "0.7,0.6 * 2 @ left half", "--not", "0.1,0.2", "--steps", 2, "--seed", 5]
    assert run("sample", *given, "-n", 2, "-o", "scene.png")[0] == 0
    code, out, _ = run("show", "scene-2.png", "--json")
    report = json.loads(out)
    formula = report["formula"]
    assert code == 0
    assert formula["energycomp"] == __version__
    assert formula["arguments"] == ["0.3,0.5", "0.7,0.6 * 2 @ left half"]
    assert formula["options"] == {"not": ["0.1,0.2"], "n": 2, "steps": 2}
    assert (formula["model"], formula["seed"], formula["number"]) == ("tiny", 5, 2)
    assert formula["composition"].count("tiny(") == 3
    assert run(*shlex.split(report["shell"])[1:])[0] == 0
    for number in (1, 2):
        assert Path(f"again-{number}.png").read_bytes() == Path(f"scene-{number}.png").read_bytes()
    assert report["shell"] in run("show", "scene-1.png")[1].replace("\n", "")


def test_no_metadata(run: Run, model: Path) -> None:
    assert run("sample", model, "0.3,0.5", "--steps", 1, "--no-metadata", "-o", "a.png")[0] == 0
    with Image.open("a.png") as image:
        assert image.info == {}
    code, _, err = run("show", "a.png")
    assert (code, err.count("\n")) == (2, 1)
    assert "got a.png, which says nothing about how it was made" in err
    assert run("show", "gone.png")[0] == 2


def test_neither_a_path_nor_a_name_of_the_machine_is_written(run: Run, model: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden-place"
    shutil.copytree(model, hidden / "tiny")
    Image.new("L", (8, 8), 255).save(hidden / "mask.png")
    ways = [str(hidden / "tiny"), "hidden-place/tiny/", "./hidden-place/../hidden-place/tiny"]
    for source in ways:
        masked = f"0.3,0.5 @ {hidden}/mask.png, 0-0.5"
        text = ["sample", source, masked, "--not", f"0.1,0.1 @ {hidden}/mask.png"]
        assert run(*text, "--steps", 1, "-o", hidden / "out.png")[0] == 0
        with Image.open(hidden / "out.png") as image:
            said = json.dumps(image.info)
        for private in ("hidden-place", str(tmp_path), str(Path.home()), socket.gethostname(), f"{os.sep}tiny"):
            assert private not in said, private
        formula = read_formula(hidden / "out.png")
        assert (formula["model"], len(formula["fingerprint"])) == ("tiny", 16)
        assert formula["arguments"] == ["0.3,0.5 @ mask.png, 0-0.5"]
        assert formula["options"] == {"not": ["0.1,0.1 @ mask.png"], "steps": 1}


def test_a_formula_of_somebody_else_is_text(run: Run) -> None:
    made: dict[str, Any] = {"command": "sample", "model": "clevr", "arguments": ["0.3,0.5; rm -rf ~"], "seed": 0}
    words = shlex.split(shown(run, made)[1] or "")
    assert words[:4] == ["energycomp", "sample", "clevr", "0.3,0.5; rm -rf ~"]
    words = shlex.split(shown(run, {**made, "arguments": ["--out=.bashrc"]})[1] or "")
    assert words[-3:] == ["--", "clevr", "--out=.bashrc"]
    for change in (
        {"command": "install"},  # a command, but none that writes a formula
        {"options": {"out": ".bashrc"}},  # a file that would be written
        {"options": {"later": 3}},  # of another version
        {"command": "gone"}, {"command": "sample; ls"}, {"arguments": ["a\nrm"]}, {"arguments": [{}]},
        {"arguments": "a"}, {"seed": "0"}, {"model": None},
    ):  # fmt: skip
        formula, line = shown(run, {**made, **change})
        assert line is None, change
        assert formula.items() >= change.items()
    shown(run, {**made, "arguments": ["a\x1b[2Jb\u202e", "\ud800"]})
    out = run("show", "made.png")[1]
    assert r"a\x1b[2Jb\u202e; \ud800" in out
    assert "\x1b" not in out


def test_a_formula_that_is_too_long_is_left_out(run: Run, model: Path) -> None:
    words = ["0.3,0.5"] * 3 + [f"0.3,0.5 * 1.{'0' * 30_000}"] * 3
    code, _, err = run("sample", model, *words, "--steps", 1, "-o", "a.png")
    assert code == 0, err
    assert "warning: no metadata is written: got a formula of" in err
    with Image.open("a.png") as image:
        assert image.info == {}
