"""Each input that the commands must refuse, in one line, with nothing left behind."""

import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from energycomp.images import save_image
from energycomp.plugins import registry, reload

Run = Callable[..., tuple[int, str, str]]


REFUSED = {
    "sample: one number": ("sample MODEL 0.3", "two numbers x, y"),
    "sample: outside": ("sample MODEL 0.3,1.5", "got the component '0.3,1.5', which is not a component of tiny"),
    "sample: NaN": ("sample MODEL nan,0.5", "got the component 'nan,0.5'"),
    "sample: words": ("sample MODEL --not left,top", "got the component 'left,top'"),
    "sample: second": ("sample MODEL 0.3,0.5 0.3,1.5*2", "got the component '0.3,1.5'"),
    "sample: no component": ("sample MODEL 0.3,,0.5", "got the component '0.3,,0.5'"),
    "sample: option": ("sample MODEL --option model", "got --option 'model'; expected NAME=VALUE"),
    "sample: option of a folder": ("sample MODEL --option preset=paper", "got preset with"),
    "sample: weight": ("sample MODEL '0,0 * b'", "got '* b' in '0,0 * b'; expected a finite number, such as * 7.5"),
    "sample: weight left out": ("sample MODEL '0,0 *'", "got '* ' in '0,0 *'; expected a finite number"),
    "sample: weight NaN": ("sample MODEL '0,0 * nan'", "got '* nan'"),
    "sample: weight of nothing": ("sample MODEL *2", "got '*2'; expected a component in front"),
    "sample: region": (
        "sample MODEL '0,0 @ left'",
        "got '@ left' in '0,0 @ left'; expected all, left half, right half",
    ),
    "sample: box": ("sample MODEL '0,0 @ 0.5,0,0.5,1'", "a box x0,y0,x1,y1 with 0 <= x0 < x1 <= 1"),
    "sample: region of --not": ("sample MODEL --not '0,0 @ left'", "got '@ left'"),
    "sample: region of nothing": ("sample MODEL '@ all'", "got '@ all'; expected a component in front"),
    "sample: mask that is no image": ("sample MODEL '0,0 @ file'", "file, which cannot be decoded (cannot identify"),
    "sample: no mask": ("sample MODEL '0,0 @ notes.png'", "got '@ notes.png' in '0,0 @ notes.png'; expected all"),
    "sample: weight behind a region": ("sample MODEL '0,0 @ all * 2'", "got '@ all * 2'"),
    "sample: shares": ("sample MODEL '0,0 @ 0.5-0.5'", "got the share 0.5-0.5 in '0,0 @ 0.5-0.5'; expected FROM-TO"),
    "sample: share above 1": ("sample MODEL '0,0 @ 0-1.5'", "with 0 <= FROM < TO <= 1, such as 0-0.4"),
    "sample: share NaN": ("sample MODEL '0,0 @ 0-nan'", "or a share of the trajectory such as 0-0.4"),
    "sample: sampler and guidance": (
        "sample MODEL 0,0 --guidance apg --sampler smc",
        "got the guidance apg with a sampler, which needs a density",
    ),
    "sample: guidance by a number": (
        "sample MODEL 0,0 --guidance 2.0",
        "expected a name, and its scale as a number, such as attributes=2.0",
    ),
    "sample: attributes of places": (
        "sample MODEL 0,0 --guidance attributes",
        "got --guidance attributes with tiny at the scale 1, which changes nothing",
    ),
    "sample: float16": ("sample MODEL 0,0 --option dtype=float16", "got dtype float16 on the CPU"),
    "sample: region and sampler": ("sample MODEL '0,0 @ left half' --sampler smc", "(sampler= or --sampler)"),
    "sample: region and best": (
        "sample MODEL '0,0 @ 0-0.4' --best-of 2",
        "got --best-of with the component '0,0 @ 0-0.4'; expected one composition whose weights are numbers",
    ),
    "sample: sampler": ("sample MODEL 0,0 --sampler nobody", "Known samplers"),
    "sample: no png": ("sample MODEL -o scene.gif", "a PNG, JPEG or WebP file"),
    "sample: no ending": ("sample MODEL -o new/scene", "the name of a PNG, JPEG or WebP file, such as new/scene.png"),
    "sample: stdout": ("sample MODEL -o -", "the name of a PNG, JPEG or WebP file, such as image.png"),
    "sample: folder as file": (
        "sample MODEL -o empty",
        "got -o empty, a folder; expected a PNG, JPEG or WebP file, such as empty/",
    ),
    "sample: long name": (f"sample MODEL -n 2 -o {'x' * 250}.png", "which cannot be a file"),
    "sample: grid that is no png": ("sample MODEL -n 4 --grid -o a.jpg", "with a.jpg; expected a PNG file"),
    "sample: grid of one": ("sample MODEL --grid", "got --grid with one sample; expected several, such as -n 4"),
    "infer: grid": ("infer MODEL grid.png", "got grid.png, which energycomp wrote to show 4 images at once"),
    "sample: option that is an argument": ("sample MODEL --option device=cpu", "expected none of source, device"),
    "train: option that is an argument": ("train clevr --option preset=flow", "expected none of data, init, preset"),
    "train: option without a value": ("train clevr --option bad", "expected NAME=VALUE"),
    "train: folder in a file": ("train clevr -o file/run", "got -o file/run; expected a folder that can be written"),
    "infer: no image, new folder": ("infer MODEL nowhere.png -o new/out", "which does not exist"),
    "batch: an image as a list": ("batch MODEL @picture.png", "got @picture.png, a file that is no text"),
    "data: no such dataset, new folder": ("data nobody -o new/deep/out", "No dataset is named 'nobody'"),
    "edit: grid": ("edit MODEL grid.png --remove 1", "without --grid), or crop the image that you mean"),
    "decompose: grid": ("decompose MODEL grid.png", "got grid.png, which energycomp wrote to show 4 images at once"),
    "recombine: grid": ("recombine MODEL grid.png --take 0", "wrote to show 4 images at once"),
    "traverse: grid": ("traverse MODEL grid.png --part 0", "wrote to show 4 images at once"),
    "sample: parent is a file": ("sample MODEL -o file/scene.png", "got -o file"),
    "sample: model": ("sample nobody", "Known models: cells"),
    "sample: folder": ("sample ./nobody", "no folder"),
    "sample: scheduler": ("sample MODEL --sampler Eular", "EulerDiscreteScheduler"),
    "sample: steps": ("sample MODEL --steps 0", "Invalid value for '--steps'"),
    "sample: cuda": ("sample MODEL --device cuda:99", "got --device 'cuda:99', which cannot be used"),
    "sample: device": ("sample MODEL --device quantum", "expected cpu, cuda, cuda:0 or mps"),
    "infer: nothing": ("infer MODEL nothing.png", "nothing.png, which does not exist"),
    "infer: empty folder": ("infer MODEL empty", "empty without an image"),
    "infer: no picture": ("infer MODEL file", "cannot identify image file"),
    "infer: range": ("infer MODEL picture.png --count 5-2", "got the range '5-2'"),
    "infer: solver": ("infer MODEL picture.png --solver nobody", "Known solvers"),
    "infer: other solver": ("infer MODEL picture.png --solver enumerate", "continuous slots"),
    "infer: out holds them": ("infer MODEL picture.png -o .", "expected another folder"),
    "infer: out is a file": ("infer MODEL picture.png -o file", "got -o file"),
    "edit: nothing": ("edit MODEL picture.png", "nothing to change"),
    "edit: no picture": ("edit MODEL file --remove 1", "cannot identify image file"),
    "edit: an address": (
        "edit MODEL https://a.org/b.png --remove 1",
        "the address https://a.org/b.png; expected a file",
    ),
    "edit: missing": ("edit MODEL nothing.png --remove 1", "nothing.png, which is no file"),
    "edit: object": ("edit MODEL picture.png --remove 9 --count 1", "got object 9 of an image in which at most 1"),
    "edit: object 0": ("edit MODEL picture.png --remove 0 --count 0", "expected one of none"),
    "edit: move without place": ("edit MODEL picture.png --move 2", "an object's number and its new value"),
    "edit: move to words": ("edit MODEL picture.png --move 1:left,top", "got --move 'left,top'"),
    "edit: moved twice": ("edit MODEL picture.png --move 1:0,0 --move 1:1,1", "got --move 1 twice"),
    "edit: outside": ("edit MODEL picture.png --add 0.3,1.5 --count 0", "two numbers x, y in [0, 1]"),
    "edit: no png": ("edit MODEL picture.png --add 0.3,0.5 -o out.jpg", "a PNG file"),
    "edit: parent is a file": ("edit MODEL picture.png --add 0.3,0.5 -o file/out.png", "got -o file"),
    "evaluate: dataset": ("evaluate MODEL --data synthetic", "Known datasets"),
    "evaluate: range": ("evaluate MODEL --source clevr --data synthetic:9-1", "got the range '9-1'"),
    "evaluate: folder": ("evaluate MODEL --source clevr --data empty", "expected the layout of CLEVR"),
    "evaluate: count": ("evaluate MODEL --source clevr --data synthetic --count few", "got the range 'few'"),
    "evaluate: out is a file": ("evaluate MODEL --source clevr --data synthetic:1 -n 1 -o file", "got -o file"),
    "train: recipe": ("train nobody", "Known recipes: clevr"),
    "train: data": ("train clevr --data nobody", "got --data nobody"),
    "train: no scenes": ("train clevr --data empty", "expected the layout of CLEVR"),
    "train: start": ("train clevr --data empty --init ./nobody", "no folder"),
    "train: option": (
        "train lit --option covarianc=1",
        "got the option 'covarianc'; expected one of parts, width, size; the recipe itself has kl, swap, covariance",
    ),
    "train: precision": ("train clevr --precision fp8", "Invalid value for '--precision'"),
    "data: dataset": ("data nobody -o new", "Known datasets: cells"),
    "data: there already": ("data clevr -o .", "there already"),
    "data: objects": ("data clevr -o new --objects few", "got the range 'few'"),
    "data: parent is a file": ("data clevr -o file/new", "got -o file"),
    "data: none": ("data clevr -o new -n 0", "Invalid value for '-n'"),
}


@pytest.mark.parametrize(("command", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_in_one_line_with_nothing_left_behind(run: Run, model: Path, command: str, reason: str) -> None:
    save_image(Image.new("RGB", (16, 16)), Path("picture.png"))
    save_image(Image.new("RGB", (32, 32)), Path("grid.png"), cells=4)
    Path("file").write_text("no picture")
    Path("empty").mkdir()
    code, out, err = run(*(str(model) if word == "MODEL" else word for word in shlex.split(command)))
    assert (code, out) == (2, "")
    assert reason in err
    if not re.match("Invalid value", reason):
        assert err.startswith("energycomp: ")
        assert len(re.findall(r"^(?!energycomp: (?:loading|warning)).*$", err.rstrip("\n"), flags=re.MULTILINE)) == 1
    assert {path.name for path in Path().iterdir()} == {"picture.png", "grid.png", "file", "empty"}


@pytest.mark.parametrize(
    "options",
    [
        "--option dtype=float16", "'0,0 @ left'", "'0,0 @ file'", "'0,0 @ 2-3'", "'0,0 * b'", "--guidance apgg",
        "--sampler nobody", "--guidance apg --sampler smc", "'1,1 @ 0-0.4' --best-of 2",
    ],
)  # fmt: skip
def test_what_needs_no_model_is_refused_before_it_is_loaded(run: Run, monkeypatch: Any, options: str) -> None:
    monkeypatch.setattr("energycomp.models.load", lambda *_, **__: pytest.fail("the model was loaded"))
    Path("file").write_text("no picture")
    code, out, err = run("sample", "clevr", "0,0", *shlex.split(options))
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("energycomp: ")


@pytest.mark.parametrize(
    "command",
    [
        "sample MODEL 0.3,0.5 0.3,red", "sample MODEL 0.3,0.5 --not '0.3,red * 2'",
        "rank MODEL picture.png --component 0.3,red", "explain MODEL picture.png --component 0.3,red",
        "edit MODEL picture.png --move 1:0.3,red", "edit MODEL picture.png --add 0.3,red",
    ],
)  # fmt: skip
def test_a_component_is_refused_before_weights_are_loaded(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("energycomp.models.folder.fill_weights", lambda *_: pytest.fail("weights are loaded"))
    Image.new("RGB", (16, 16)).save("picture.png")
    code, _, err = run(*(str(model) if word == "MODEL" else word for word in shlex.split(command)))
    assert code == 2
    assert "'0.3,red', which is not a component of tiny" in err


MISSING = {
    "infer clevr picture.png": "energycomp-clevr",
    "infer clevr-small picture.png": "energycomp-solvers",
    "infer MODEL picture.png --solver sgd": "energycomp-solvers",
    "edit MODEL picture.png --remove 1": "energycomp-solvers",
    "sample text hello": "energycomp-text",
    "sample MODEL 0,0 --sampler smc": "energycomp-samplers",
    "decompose slots picture.png": "energycomp-slots",
    "evaluate MODEL --source clevr": "energycomp-datasets",
    "train faces": "energycomp-faces",
    "data decomp -o new": "energycomp-datasets",
    "studio": "energycomp-studio",
}


@pytest.mark.parametrize(("command", "distribution"), MISSING.items(), ids=MISSING.keys())
def test_a_package_that_is_not_installed_is_named(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, command: str, distribution: str
) -> None:
    others = tuple(plugin for plugin in registry._discover() if plugin.info.distribution != distribution)
    monkeypatch.setattr(registry, "_discover", lambda: others)
    Image.new("RGB", (16, 16)).save("picture.png")
    code, out, err = run(*(str(model) if word == "MODEL" else word for word in command.split()))
    assert (code, out) == (2, "")
    assert err.endswith(f" Not installed: {distribution}; pip install {distribution}, or 'energycomp[all]'\n")
    assert [path.name for path in Path().iterdir()] == ["picture.png"]


def test_a_package_that_is_switched_off_is_named(run: Run) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENERGYCOMP_PLUGINS", "energycomp-solvers")
        reload()
        code, _, err = run("sample", "clevr")
    reload()
    assert code == 2
    assert "switched off" in err
    assert re.search(r"energycomp-clevr \S+\): ENERGYCOMP_PLUGINS", err)
    assert "pip install" not in err


def test_a_folder_that_cannot_be_written(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, _, err = run("sample", model, "-n", 2, "-o", "new/scene.png")
    expected = f"expected a PNG, JPEG or WebP file in a folder that can be written; {Path.cwd()} is not\n"
    assert (code, err) == (2, f"energycomp: got -o new/scene.png; {expected}")
