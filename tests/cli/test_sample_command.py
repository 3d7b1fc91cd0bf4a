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


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_sample_writes_a_file_per_sample_or_a_grid_and_says_what_was_composed(run: Run, model: Path) -> None:
    command = ["sample", model, "0.3,0.5", "0.7, 0.6", "-n", 3, "--raw", "-o", "new/scene.png"]
    code, out, _ = run(*command)
    names = ["new/scene-1.png", "new/scene-2.png", "new/scene-3.png"]
    said = ["-u + tiny(0.3, 0.5) + tiny(0.7, 0.6)", "27 network evaluations"]
    assert (code, out.splitlines()) == (0, [*said, *names])
    assert sorted(map(str, Path("new").iterdir())) == names
    tiny, generator = load(model), torch.Generator().manual_seed(0)
    expected = Composer([tiny(0.3, 0.5), tiny(0.7, 0.6)]).sample(3, generator=generator, num_inference_steps=3)
    for name, image in zip(names, expected, strict=True):
        assert Image.open(name).tobytes() == image.tobytes()
    assert json.loads(run(*command, "--json")[1])["paths"] == names
    assert run("infer", model, names[0])[0] == 0
    shutil.rmtree("new")
    code, out, _ = run(*command, "--grid")
    assert code == 0
    assert "got new/scene.png, which energycomp wrote to show 3 images at once" in run("infer", model, "new")[2]
    assert out.splitlines() == [*said, "new/scene.png"]
    with Image.open("new/scene.png") as image:
        assert image.size == (2 * 130 + 2, 2 * 130 + 2)
    assert [path.name for path in Path("new").iterdir()] == ["scene.png"]


def test_sample_says_that_there_are_more_components_than_the_model_knows(run: Run, model: Path) -> None:
    code, _, err = run("sample", model, *(f"0.{place},0.5" for place in range(1, 5)), "--steps", 1)
    said = "energycomp: warning: got 4 components, more than the 3 that tiny knows, so some may be missing"
    assert (code, err.count(said)) == (0, 1)


def test_sample_of_one_is_what_the_composer_samples(run: Run, model: Path) -> None:
    chosen = ["--steps", 4, "--seed", 5, "--sampler", "pndm", "--precision", "bf16", "--raw", "--json"]
    code, out, _ = run("sample", model, "0.3,0.5", *chosen)
    assert code == 0
    report = json.loads(out)
    assert report.pop("report")["warnings"] == []
    assert report == {"path": "sample.png", "composition": "tiny(0.3, 0.5)", "n": 1, "seed": 5}
    expected = Composer([load(model)(0.3, 0.5)]).sample(
        generator=torch.Generator().manual_seed(5),
        num_inference_steps=4,
        scheduler="PNDMScheduler",
        mixed_precision="bf16",
        progress=False,
    )
    with Image.open("sample.png") as image:
        assert image.tobytes() == expected[0].tobytes()


@pytest.mark.parametrize("sampler", ["perpendicular", "rejection"])
def test_sample_without_a_component(run: Run, model: Path, sampler: str) -> None:
    chosen = ["--not", "0.7,0.6", "--sampler", sampler, "--steps", "2", "--json"]
    code, out, err = run("sample", model, "0.3,0.5", *chosen)
    assert code == 0, err
    assert json.loads(out)["report"]["drawn"] == (None if sampler == "perpendicular" else 1)


@pytest.mark.parametrize("sampler", [None, "scheduler", "smc"])
def test_sample_reports_what_the_sampler_reports(run: Run, model: Path, sampler: str | None) -> None:
    chosen = [] if sampler is None else ["--sampler", sampler]
    command = ["sample", model, "0.3,0.5", "0.7,0.6", "-n", 2, "--steps", 4, "--seed", 5, "--raw", *chosen]
    code, out, err = run(*command, "--json")
    report = json.loads(out)["report"]
    assert (code, report["evaluations"]) == (0, 3 * 4 * 2), err
    assert (report["ess"] != []) == (sampler == "smc")
    assert isinstance(report["warnings"], list)
    said = run(*command)[1].splitlines()[1]
    assert re.fullmatch(r"24 network evaluations(, effective sample size at least \d+% of the particles)?", said)
    assert ("effective" in said) == (sampler == "smc")
    tiny = load(model)
    expected = Composer([tiny(0.3, 0.5), tiny(0.7, 0.6)]).sample(
        2, generator=torch.Generator().manual_seed(5), num_inference_steps=4, sampler=sampler, progress=False
    )
    with Image.open("sample-2.png") as image:
        assert image.tobytes() == expected[1].tobytes()


@pytest.mark.parametrize(
    ("arguments", "composition"),
    [
        ([], "u"),
        (["0.3,0.5", "0.7, 0.6"], "-u + tiny(0.3, 0.5) + tiny(0.7, 0.6)"),
        (["0.3,0.5", "--not", "0.7,0.6"], "u + tiny(0.3, 0.5) - tiny(0.7, 0.6)"),
        (["0.3,0.5 * 2"], "-u + 2 tiny(0.3, 0.5)"),
        (["0.3,0.5*2", "0,1 * -1"], "2 tiny(0.3, 0.5) - tiny(0, 1)"),
        (["0.3,0.5", "--not", "0,1*2"], "2 u + tiny(0.3, 0.5) - 2 tiny(0, 1)"),
        (
            ["0,0 * 2 @ left half", "1,1 * 2 @ 0.5,0,1,1"],
            "(1 - 2 [left half] - 2 [right half]) u + 2 [left half] tiny(0, 0) + 2 [right half] tiny(1, 1)",
        ),
        (["0,0", "--not", "1,1 @ 0-0.4"], "[0 to 0.4] u + tiny(0, 0) - [0 to 0.4] tiny(1, 1)"),
        (["0,0 @ mask.png, 0.2-0.6"], "(1 - [0.2 to 0.6] [mask 4x2]) u + [0.2 to 0.6] [mask 4x2] tiny(0, 0)"),
        (["0,0 @ mask.png", "1,1 @ mask.png"], "(1 - 2 [mask 4x2]) u + [mask 4x2] tiny(0, 0) + [mask 4x2] tiny(1, 1)"),
        (["0,0 @ all, 0-1"], "tiny(0, 0)"),
    ],
)
def test_sample_composes(run: Run, model: Path, arguments: list[str], composition: str) -> None:
    Image.new("L", (4, 2), 128).save("mask.png")
    code, out, _ = run("sample", model, "--json", *arguments)
    assert (code, json.loads(out)["composition"]) == (0, composition)


@pytest.mark.parametrize(
    ("arguments", "composition"),
    [
        (["smiling", "black_hair=false"], "-u + faces(smiling) + faces(black_hair=false)"),
        (["smiling=yes", "--not", "eyeglasses"], "u + faces(smiling=yes) - faces(eyeglasses)"),
    ],
)
def test_sample_reads_labels(run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], composition: str) -> None:
    given: list[Any] = []

    def sampled(composer: Any, *_: Any, report: Any, **__: Any) -> list[Image.Image]:
        given.extend(composer.composition.terms)
        report(SamplingReport(0))
        return [Image.new("RGB", (8, 8))]

    monkeypatch.setattr("energycomp.sampling.Composer.sample", sampled)
    code, out, err = run("sample", "faces", *arguments, "--json")
    assert (code, json.loads(out)["composition"]) == (0, composition), err
    conditioner = load("faces").conditioner
    expected = [conditioner(conditioner.parse(**pair)).rows for pair in PAIRS[composition]]
    found = [leaf.condition.rows for leaf in given if not bool(leaf.condition.null.any())]
    torch.testing.assert_close(torch.cat(found), torch.cat(expected))


PAIRS: dict[str, list[dict[str, Any]]] = {
    "-u + faces(smiling) + faces(black_hair=false)": [{"smiling": True}, {"black_hair": False}],
    "u + faces(smiling=yes) - faces(eyeglasses)": [{"smiling": "yes"}, {"eyeglasses": True}],
}


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


def test_guidance_by_name_is_that_of_the_composer(run: Run, model: Path) -> None:
    tiny = load(model)
    command = ["sample", model, "0.3,0.5", "0.7,0.6", "--steps", 4, "--raw", "-o", "guided.png"]
    for options, guidance in (
        (["--guidance", "apg=2"], {"guidance": "apg"}),
        (["--guidance", "cfg=2"], {}),
    ):
        code, out, _ = run(*command, *options, "--json")
        written = json.loads(out)
        name = guidance.get("guidance", "cfg")
        assert (code, written["guidance"], written["guidance_scale"]) == (0, name, 2.0)
        expected = Composer([tiny(0.3, 0.5), tiny(0.7, 0.6)]).sample(
            generator=0, num_inference_steps=4, guidance_scale=2.0, scheduler=tiny.defaults.scheduler, **guidance
        )
        assert Image.open("guided.png").tobytes() == expected[0].tobytes()


def test_the_guidance_is_said(run: Run, model: Path) -> None:
    code, out, _ = run("sample", model, "0.3,0.5", "--steps", 2, "--guidance", "apg=2")
    assert (code, out) == (0, "tiny(0.3, 0.5)\nguidance apg, scale 2\n4 network evaluations\nsample.png\n")


def test_compositions_are_sampled_in_one_batch(run: Run, model: Path) -> None:
    tiny = load(model)
    a, b, c = tiny(0.3, 0.5), tiny(0.7, 0.6), tiny(0.1, 0.1)
    command = ["sample", model, "0.3,0.5", "0.7,0.6*2", "/", "0.1,0.1", "--not", "0.9,0.9", "--steps", 4, "-n", 2]
    code, out, _ = run(*command, "--raw", "-o", "set.png")
    assert code == 0
    assert out.splitlines()[:2] == [
        "-u + tiny(0.3, 0.5) + 2 tiny(0.7, 0.6) - tiny(0.9, 0.9)",
        "u + tiny(0.1, 0.1) - tiny(0.9, 0.9)",
    ]
    d = tiny(0.9, 0.9)
    expected = Composer(per_sample([a & 2 * b & ~d, c & ~d])).sample(
        4, generator=0, num_inference_steps=4, scheduler=tiny.defaults.scheduler
    )
    for number, image in enumerate(expected, 1):
        assert Image.open(f"set-{number}.png").tobytes() == image.tobytes()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["0.3,0.5", "--guidance", "apgg=3"], "Did you mean 'apg'"),
        (["0.3,0.5", "--guidance", "apgg"], "Did you mean 'apg'"),
        (["0.3,0.5", "--guidance", "apg"], "at the scale 1, which changes nothing"),
        (["0.3,0.5", "--guidance", "apg=nan"], "expected a finite number"),
        (
            ["0.3,0.5", "--guidance", "apg=3", "--sampler", "smc"],
            "expected one that is a composition, such as",
        ),
        (["0.3,0.5", "/"], "expected components before and after each '/'"),
        (["/", "0.1,0.2"], "expected components before and after each '/'"),
        (["0.3,0.5", "/", "0.1,0.2", "--best-of", "2"], "got --best-of with several compositions"),
    ],
)
def test_guidance_and_sets_that_cannot_be(run: Run, model: Path, options: list[str], text: str) -> None:
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--guidance", "cfg=2"], "got --forecast with --guidance or --best-of"),
        (["--best-of", 2], "got --forecast with --guidance or --best-of"),
        (["--sampler", "scheduler"], "expected one that forecasts, such as smc"),
    ],
)
def test_what_a_forecast_refuses(run: Run, model: Path, options: list[Any], said: str) -> None:
    code, _, err = run("sample", model, "0.3,0.5", "--forecast", *options)
    assert code != 0
    assert said in err
