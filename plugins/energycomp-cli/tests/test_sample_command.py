"""`energycomp sample` on a tiny model."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from PIL import Image

from energycomp import Composer, load, per_sample
from energycomp.sampling import SamplingReport

Run = Callable[..., tuple[int, str, str]]


A, B, C, D = "0.3,0.5", "0.7,0.6", "0.1,0.1", "0.9,0.9"
BOTH = "-u + tiny(0.3, 0.5) + tiny(0.7, 0.6)"
FOUR: dict[str, Any] = {"num_inference_steps": 4}
# The words of a command, what it composes of leaves at these places, and what Python says for its options.
DRAWN: dict[str, tuple[list[Any], Callable[..., Any], dict[str, Any]]] = {
    "defaults": ([A, "0.7, 0.6", "-n", 3], lambda a, b, c, d: a & b, {"n": 3, "num_inference_steps": 3}),
    "one, by a scheduler": (
        [A, "--steps", 4, "--seed", 5, "--sampler", "pndm", "--precision", "bf16"],
        lambda a, b, c, d: a,
        {"generator": 5, "scheduler": "PNDMScheduler", "mixed_precision": "bf16", **FOUR},
    ),
    "a sampler": (
        [A, B, "-n", 2, "--steps", 4, "--sampler", "smc"],
        lambda a, b, c, d: a & b,
        {"n": 2, "sampler": "smc", **FOUR},
    ),
    "without a component": (
        [A, "--not", B, "--steps", 4, "--sampler", "rejection"],
        lambda a, b, c, d: a & ~b,
        {"sampler": "rejection", **FOUR},
    ),
    "guidance": (
        [A, B, "--steps", 4, "--guidance", "apg=2"],
        lambda a, b, c, d: a & b,
        {"guidance": "apg", "guidance_scale": 2.0, **FOUR},
    ),
    "several compositions in one batch": (
        [A, f"{B}*2", "/", C, "--not", D, "--steps", 4, "-n", 2],
        lambda a, b, c, d: per_sample([a & 2 * b & ~d, c & ~d]),
        {"n": 4, **FOUR},
    ),
}


@pytest.mark.parametrize("case", DRAWN)
def test_what_is_written_is_what_the_composer_samples(run: Run, model: Path, case: str) -> None:
    words, composed, options = DRAWN[case]
    code, out, err = run("sample", model, *words, "--raw", "--json")
    assert code == 0, err
    said, tiny = json.loads(out), load(model)
    composition = composed(*(tiny(*map(float, place.split(","))) for place in (A, B, C, D)))
    reports: list[SamplingReport] = []
    images = Composer(composition).sample(**{"generator": 0, "report": reports.append, "progress": False, **options})
    paths = said["paths"] if len(images) > 1 else [said["path"]]
    assert len(paths) == len(images)
    for path, image in zip(paths, images, strict=True):
        assert Image.open(path).tobytes() == image.tobytes()
    assert (said["report"]["evaluations"], said["report"]["drawn"]) == (reports[0].evaluations, reports[0].drawn)
    assert said["report"]["ess"] == pytest.approx(list(reports[0].ess))


def test_sample_writes_a_file_per_sample_or_a_grid_and_says_what_was_composed(run: Run, model: Path) -> None:
    command = ["sample", model, A, B, "-n", 3, "--raw", "-o", "new/scene.png"]
    code, out, _ = run(*command)
    names = ["new/scene-1.png", "new/scene-2.png", "new/scene-3.png"]
    said = [BOTH, "27 network evaluations"]
    assert (code, out.splitlines()) == (0, [*said, *names])
    assert sorted(map(str, Path("new").iterdir())) == names
    assert json.loads(run(*command, "--json")[1])["paths"] == names
    assert run("infer", model, names[0])[0] == 0
    shutil.rmtree("new")
    code, out, _ = run(*command, "--grid")
    assert (code, out.splitlines()) == (0, [*said, "new/scene.png"])
    assert "got new/scene.png, which energycomp wrote to show 3 images at once" in run("infer", model, "new")[2]
    with Image.open("new/scene.png") as image:
        assert image.size == (2 * 130 + 2, 2 * 130 + 2)
    assert [path.name for path in Path("new").iterdir()] == ["scene.png"]


def test_what_is_said_of_guidance_samplers_and_several_compositions(run: Run, model: Path) -> None:
    guided = run("sample", model, A, "--steps", 2, "--guidance", "apg=2")
    assert guided[:2] == (0, "tiny(0.3, 0.5)\nguidance apg, scale 2\n4 network evaluations\nsample.png\n")
    weighed = run("sample", model, A, B, "-n", 2, "--steps", 4, "--sampler", "smc")[1].splitlines()[1]
    assert re.fullmatch(r"24 network evaluations, effective sample size at least \d+% of the particles", weighed)
    two = run("sample", model, A, f"{B}*2", "/", C, "--not", D, "--steps", 1, "-o", "set.png")[1]
    assert two.splitlines()[:2] == [
        "-u + tiny(0.3, 0.5) + 2 tiny(0.7, 0.6) - tiny(0.9, 0.9)",
        "u + tiny(0.1, 0.1) - tiny(0.9, 0.9)",
    ]
    report = json.loads(run("sample", model, A, "--steps", 1, "--seed", 5, "--json")[1])
    assert report.pop("report")["warnings"] == []
    assert report == {"path": "sample.png", "composition": "tiny(0.3, 0.5)", "n": 1, "seed": 5}
    guided = json.loads(run("sample", model, A, "--steps", 1, "--guidance", "cfg=2", "--json")[1])
    assert (guided["guidance"], guided["guidance_scale"]) == ("cfg", 2.0)


def test_sample_says_that_there_are_more_components_than_the_model_knows(run: Run, model: Path) -> None:
    code, _, err = run("sample", model, *(f"0.{place},0.5" for place in range(1, 5)), "--steps", 1)
    said = "energycomp: warning: got 4 components, more than the 3 that tiny knows, so some may be missing"
    assert (code, err.count(said)) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "composition"),
    [
        ([], "u"),
        ([A, "0.7, 0.6"], BOTH),
        ([A, "--not", B], "u + tiny(0.3, 0.5) - tiny(0.7, 0.6)"),
        (["0.3,0.5 * 2"], "-u + 2 tiny(0.3, 0.5)"),
        (["0.3,0.5*2", "0,1 * -1"], "2 tiny(0.3, 0.5) - tiny(0, 1)"),
        ([A, "--not", "0,1*2"], "2 u + tiny(0.3, 0.5) - 2 tiny(0, 1)"),
        (["0,0 * 2 @ left half", "1,1 * 2 @ 0.5,0,1,1"],
         "(1 - 2 [left half] - 2 [right half]) u + 2 [left half] tiny(0, 0) + 2 [right half] tiny(1, 1)"),
        (["0,0", "--not", "1,1 @ 0-0.4"], "[0 to 0.4] u + tiny(0, 0) - [0 to 0.4] tiny(1, 1)"),
        (["0,0 @ mask.png, 0.2-0.6"], "(1 - [0.2 to 0.6] [mask 4x2]) u + [0.2 to 0.6] [mask 4x2] tiny(0, 0)"),
        (["0,0 @ mask.png", "1,1 @ mask.png"],
         "(1 - 2 [mask 4x2]) u + [mask 4x2] tiny(0, 0) + [mask 4x2] tiny(1, 1)"),
        (["0,0 @ all, 0-1"], "tiny(0, 0)"),
    ],
)  # fmt: skip
def test_sample_composes(run: Run, model: Path, arguments: list[str], composition: str) -> None:
    Image.new("L", (4, 2), 128).save("mask.png")
    code, out, _ = run("sample", model, "--json", "--steps", 1, *arguments)
    assert (code, json.loads(out)["composition"]) == (0, composition)


LABELS: dict[str, tuple[list[str], list[dict[str, Any]]]] = {
    "-u + faces(smiling) + faces(black_hair=false)": (
        ["smiling", "black_hair=false"],
        [{"smiling": True}, {"black_hair": False}],
    ),
    "u + faces(smiling=yes) - faces(eyeglasses)": (
        ["smiling=yes", "--not", "eyeglasses"],
        [{"smiling": "yes"}, {"eyeglasses": True}],
    ),
}


@pytest.mark.parametrize("composition", LABELS)
def test_sample_reads_labels(run: Run, monkeypatch: pytest.MonkeyPatch, composition: str) -> None:
    words, pairs = LABELS[composition]
    given: list[Any] = []

    def sampled(composer: Any, *_: Any, report: Any, **__: Any) -> list[Image.Image]:
        given.extend(composer.composition.terms)
        report(SamplingReport(0))
        return [Image.new("RGB", (8, 8))]

    monkeypatch.setattr("energycomp.sampling.Composer.sample", sampled)
    code, out, err = run("sample", "faces", *words, "--json")
    assert (code, json.loads(out)["composition"]) == (0, composition), err
    conditioner = load("faces").conditioner
    expected = [conditioner(conditioner.parse(**pair)).rows for pair in pairs]
    found = [leaf.condition.rows for leaf in given if not bool(leaf.condition.null.any())]
    torch.testing.assert_close(torch.cat(found), torch.cat(expected))


def test_images_are_enlarged_and_have_the_shape_of_the_frame(run: Run, model: Path) -> None:
    wide = load(model)
    attrs.evolve(wide, defaults=attrs.evolve(wide.defaults, aspect=1.5)).save_pretrained("wide")
    sizes = {}
    for name, more in {"wide": (), "raw": ("--raw",), "grid": ("-n", 2, "--grid")}.items():
        assert run("sample", "./wide", "0.3,0.5", *more, "-o", f"{name}.png")[0] == 0
        sizes[name] = Image.open(f"{name}.png").size
    assert sizes == {"wide": (480, 320), "raw": (16, 16), "grid": (2 * 194 + 2, 132)}


def test_sample_takes_a_mask_of_a_file(run: Run, model: Path) -> None:
    mask = Image.new("L", (16, 16))
    mask.paste(255, (0, 0, 8, 16))
    mask.save("left.png")
    for where, out in (("left.png", "one.png"), ("left half", "two.png")):
        assert run("sample", model, f"0,0 * 3 @ {where}", f"1,1 * 3 @ {where}", "--no-metadata", "-o", out)[0] == 0
    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


SLASH = "expected components before and after each '/'"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([A, "--guidance", "apgg=3"], "Did you mean 'apg'"), ([A, "--guidance", "apgg"], "Did you mean 'apg'"),
        ([A, "--guidance", "apg"], "at the scale 1, which changes nothing"),
        ([A, "--guidance", "apg=nan"], "expected a finite number"),
        ([A, "--guidance", "apg=3", "--sampler", "smc"], "expected one that is a composition, such as"),
        ([A, "/"], SLASH), (["/", C], SLASH),
        ([A, "/", C, "--best-of", "2"], "got --best-of with several compositions"),
        ([A, "--forecast", "--guidance", "cfg=2"], "got --forecast with --guidance, --sampler or --best-of"),
        ([A, "--forecast", "--best-of", 2], "got --forecast with --guidance, --sampler or --best-of"),
        ([A, "--forecast", "--sampler", "scheduler"], "got --forecast with --guidance, --sampler or --best-of"),
    ],
)  # fmt: skip
def test_guidance_sets_and_forecasts_that_cannot_be(run: Run, model: Path, options: list[Any], text: str) -> None:
    code, _, err = run("sample", model, *options, "--steps", 2)
    assert code != 0
    assert text in " ".join(err.split())


def test_a_forecast_is_that_of_python_and_writes_no_file(run: Run, model: Path) -> None:
    forecasts = pytest.importorskip("energycomp_samplers")
    command = ["sample", model, "0.3,0.5", "0.7,0.6", "/", "0.3,0.5", "--forecast"]
    code, out, _ = run(*command)
    tiny = load(model)
    expected = [forecasts.forecast(Composer([tiny(0.3, 0.5), tiny(0.7, 0.6)])), forecasts.forecast(tiny(0.3, 0.5))]
    named = ["-u + tiny(0.3, 0.5) + tiny(0.7, 0.6)", "tiny(0.3, 0.5)"]
    assert (code, out.splitlines()) == (0, [f"{name}: {one}" for name, one in zip(named, expected, strict=True)])
    assert not list(Path().glob("*.png"))
    records = json.loads(run(*command, "--json")[1])["forecasts"]
    assert [record["composition"] for record in records] == named
    assert [record["verdict"] for record in records] == [one.verdict for one in expected]
