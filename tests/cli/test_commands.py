"""The commands on a tiny model: what each is for, and each input that it must refuse in one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from energycomp import Composer, cli, load
from energycomp.cli.files import save_png
from energycomp.inference import Problem, Solution
from energycomp.models import save_pretrained
from energycomp.plugins import registry, reload
from energycomp.sampling import SamplingReport
from energycomp.testing import tiny_model
from energycomp_datasets.clevr.layout import read, write

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_pretrained(tiny_model(solver="pursuit", num_inference_steps=3), folder)
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write(folder, 36, objects=(1, 3), size=(16, 16))
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command line in an empty folder: exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["energycomp", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two folders that hold a picture of the same name, and one more."""
    for number, name in enumerate(["a/one.png", "a/two.jpg", "b/one.png"]):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (24, 16), (60 * number, 100, 200)).save(path)
    return tmp_path / "pictures"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def fake_infer(monkeypatch: pytest.MonkeyPatch, *, fail_at: int | None = None, foreign: bool = False) -> list[Any]:
    """Replaces `infer` by one that finds an object in the middle; returns the list of its calls."""
    calls: list[Any] = []

    def infer(image: Any, model: Any, **options: Any) -> Solution:
        calls.append(image)
        if len(calls) == fail_at:
            raise KeyboardInterrupt
        return Solution(
            torch.tensor([[0.5, 0.25]]),
            1,
            error=1.0,
            stderr=float("inf"),
            rows=10,
            runner_up=torch.zeros(0, 2),
            p_value=0.01,
            fit=0.75,
            out_of_distribution=foreign,
            component_gain=torch.tensor([2.5]),
        )

    monkeypatch.setattr("energycomp.inference.infer", infer)
    return calls


def test_every_command_is_light_until_it_runs() -> None:
    code = (
        "import sys, energycomp.cli.app, energycomp.viz, energycomp.cli.output\n"
        "print(sorted({'torch', 'diffusers', 'matplotlib', 'PIL', 'tqdm', 'torchmetrics'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["sample", "infer", "rank", "edit", "evaluate", "train", "data"])
def test_help_shows_how_to_call_it(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert f"energycomp {name} clevr" in out


# sample


def test_sample_writes_a_file_per_sample_or_a_grid_and_says_what_was_composed(run: Run, model: Path) -> None:
    command = ["sample", model, "--at", "0.3,0.5", "--at", "0.7, 0.6", "-n", 3, "-o", "new/scene.png"]
    code, out, _ = run(*command)
    names = ["new/scene-1.png", "new/scene-2.png", "new/scene-3.png"]
    assert (code, out) == (0, "\n".join(["-u + tiny(0.3, 0.5) + tiny(0.7, 0.6)", *names, ""]))
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
    assert out == "-u + tiny(0.3, 0.5) + tiny(0.7, 0.6)\nnew/scene.png\n"
    with Image.open("new/scene.png") as image:
        assert image.size == (2 * 130 + 2, 2 * 130 + 2)
    assert [path.name for path in Path("new").iterdir()] == ["scene.png"]


def test_sample_of_one_is_what_the_composer_samples(run: Run, model: Path) -> None:
    code, out, _ = run(
        "sample",
        model,
        "--at",
        "0.3,0.5",
        "--steps",
        4,
        "--seed",
        5,
        "--scheduler",
        "pndm",
        "--precision",
        "bf16",
        "--json",
    )
    assert code == 0
    assert json.loads(out) == {"path": "sample.png", "composition": "tiny(0.3, 0.5)", "n": 1, "seed": 5}
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
    chosen = ["--not", "0.7,0.6", "--sampler", sampler, "--steps", "2", "--report", "--json"]
    code, out, err = run("sample", model, "0.3,0.5", *chosen)
    assert code == 0, err
    assert json.loads(out)["report"]["drawn"] == (None if sampler == "perpendicular" else 1)


@pytest.mark.parametrize("sampler", [None, "scheduler", "smc"])
def test_sample_reports_what_the_sampler_reports(run: Run, model: Path, sampler: str | None) -> None:
    chosen = [] if sampler is None else ["--sampler", sampler]
    command = ["sample", model, "0.3,0.5", "0.7,0.6", "-n", 2, "--steps", 4, "--seed", 5, *chosen]
    code, out, err = run(*command, "--json", "--report")
    report = json.loads(out)["report"]
    assert (code, report["evaluations"]) == (0, 3 * 4 * 2), err
    assert (report["ess"] != []) == (sampler == "smc")
    assert isinstance(report["warnings"], list)
    assert json.loads(run(*command, "--report")[1].splitlines()[1]) == report
    assert "report" not in json.loads(run(*command, "--json")[1])
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
        (["0.7,0.6", "--at", "0.3,0.5"], "-u + tiny(0.7, 0.6) + tiny(0.3, 0.5)"),
        (["--at", "0.3,0.5", "--not", "0.7,0.6"], "u + tiny(0.3, 0.5) - tiny(0.7, 0.6)"),
        (["--at", "0.3,0.5", "--weight", "2"], "-u + 2 tiny(0.3, 0.5)"),
        (["--at", "0.3,0.5", "--at", "0,1", "--weight", "2", "--weight", "-1"], "2 tiny(0.3, 0.5) - tiny(0, 1)"),
    ],
)
def test_sample_composes(run: Run, model: Path, arguments: list[str], composition: str) -> None:
    code, out, _ = run("sample", model, "--json", *arguments)
    assert (code, json.loads(out)["composition"]) == (0, composition)


@pytest.mark.parametrize(
    ("arguments", "composition"),
    [
        (["smiling", "black_hair=false"], "-u + faces(smiling) + faces(black_hair=false)"),
        (["--with", "smiling", "--without", "black_hair"], "-u + faces(smiling) + faces(black_hair=false)"),
        (["--with", "smiling=yes", "--not", "eyeglasses"], "u + faces(smiling=yes) - faces(eyeglasses)"),
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


# infer


def test_infer_prints_the_table_and_says_how_to_keep_it(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_infer(monkeypatch)
    code, out, err = run("infer", model, pictures / "a/one.png")
    assert code == 0
    for expected in ("one.png", "0.5", "0.25", "2.5", "1 object, fit 0.750, next best answer of 0: p = 0.01"):
        assert expected in out
    assert "-o" in err
    assert {path.name for path in Path().iterdir()} == {"pictures"}


def test_infer_of_a_picture_agrees_with_the_function(run: Run, model: Path, pictures: Path) -> None:
    from energycomp import infer

    code, out, _ = run("infer", model, pictures / "a/one.png", "--count", "2", "--seed", 3, "--json")
    assert code == 0
    expected = infer(pictures / "a/one.png", load(model), count=2, generator=torch.Generator().manual_seed(3))
    record = json.loads(out)
    assert record["count"] == 2
    places = torch.tensor([[entry["x"], entry["y"]] for entry in record["objects"]])
    torch.testing.assert_close(places, expected.conditions, atol=1e-4, rtol=0)
    assert record["rows"] == expected.rows
    assert record["fit"] == pytest.approx(expected.fit)


def test_infer_keeps_pictures_of_one_name_apart(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_infer(monkeypatch)
    code, out, _ = run("infer", model, pictures / "a", pictures / "b", "-o", "new/out")
    assert code == 0
    assert {path.name for path in Path("new/out").iterdir()} == {"one.png", "one-2.png", "two.png", "results.jsonl"}
    records = lines(Path("new/out/results.jsonl"))
    assert [record["picture"] for record in records] == ["one.png", "two.png", "one-2.png"]
    assert records[0]["stderr"] is None  # JSON knows no infinity
    assert "new/out/one-2.png" in out
    with Image.open("new/out/one.png") as marked:
        assert marked.size == (720, 480)


def test_infer_goes_on_where_it_was_interrupted(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_infer(monkeypatch, fail_at=3)
    code, _, err = run("infer", model, pictures / "a", pictures / "b", "-o", "out")
    assert code == 130
    assert "interrupted" in err
    results = Path("out/results.jsonl")
    assert len(lines(results)) == 2
    with results.open("a") as file:
        file.write('{"image": "half')
    calls = fake_infer(monkeypatch)
    assert run("infer", model, pictures / "a", pictures / "b", "-o", "out")[0] == 0
    assert len(calls) == 1
    assert [record["picture"] for record in lines(results)] == ["one.png", "two.png", "one-2.png"]
    code, out, _ = run("infer", model, pictures / "a", pictures / "b", "-o", "out", "--json")
    assert len(calls) == 1
    assert [json.loads(line) for line in out.splitlines()] == lines(results)


@pytest.mark.parametrize("change", ["seed", "count", "weights", "picture"])
def test_infer_reads_again_what_has_changed(
    run: Run, model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    calls = fake_infer(monkeypatch)
    save_pretrained(load(model), tmp_path / "model")
    command: list[object] = ["infer", tmp_path / "model", pictures / "a/one.png", "-o", "out"]
    run(*command)
    if change == "seed":
        command += ["--seed", 1]
    elif change == "count":
        command += ["--count", "1-2"]
    elif change == "weights":
        save_pretrained(tiny_model(solver="pursuit", seed=1), tmp_path / "model")
    else:
        Image.new("RGB", (24, 16), "red").save(pictures / "a/one.png")
    run(*command)
    run(*command)
    assert len(calls) == 2
    assert [record["picture"] for record in lines(Path("out/results.jsonl"))] == ["one.png"] * 2


def test_infer_reports_a_broken_picture_and_reads_the_rest(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_infer(monkeypatch)
    whole = (pictures / "a/one.png").read_bytes()
    (pictures / "a/broken.png").write_bytes(whole[: len(whole) // 2])
    code, out, err = run("infer", model, pictures / "a", "-o", "out", "--json")
    assert code == 1
    assert "broken.png, which cannot be decoded" in err
    assert "1 of 3 images could not be read" in err
    assert ["failed" in json.loads(line) for line in out.splitlines()] == [True, False, False]
    assert len(lines(Path("out/results.jsonl"))) == 2
    code, out, err = run("infer", model, pictures / "a/broken.png")
    assert (code, out) == (2, "")


def test_infer_leaves_out_a_grid_among_pictures(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_infer(monkeypatch)
    save_png(Image.new("RGB", (32, 32)), pictures / "a" / "grid.png", cells=4)
    code, out, err = run("infer", model, pictures / "a", "--json")
    assert code == 1
    assert "1 of 3 images could not be read" in err
    assert [("failed" in line) for line in map(json.loads, out.splitlines())] == [True, False, False]


def test_a_folder_that_cannot_be_written(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, _, err = run("sample", model, "-n", 2, "-o", "new/scene.png")
    expected = f"expected a PNG, JPEG or WebP file in a folder that can be written; {Path.cwd()} is not\n"
    assert (code, err) == (2, f"energycomp: got -o new/scene.png; {expected}")


def test_infer_warns_of_foreign_pictures(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_infer(monkeypatch, foreign=True)
    code, out, err = run("infer", model, pictures / "b/one.png", "--json")
    assert code == 0
    assert "b/one.png: the image is out of distribution" in err
    assert json.loads(out)["out_of_distribution"] is True


def test_infer_of_an_empty_scene_has_no_rows(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run("infer", model, pictures / "b/one.png", "--count", "0")
    assert code == 0
    assert "0 objects" in out


# edit


def test_edit_changes_the_objects_that_infer_numbers(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_infer(monkeypatch)
    arguments = ["--move", "1:0.5,0.75", "--add", "0.1,0.2", "--steps", 2, "-o", "new/out.png", "--strip", "strip.png"]
    code, out, _ = run("edit", model, pictures / "a/one.png", *arguments)
    assert code == 0
    assert re.fullmatch(r"1 object before, 2 after; \d+% of the image repainted\nnew/out.png\nstrip.png\n", out)
    assert "strip.png, which energycomp wrote to show 2 images" in run("infer", model, "strip.png")[2]
    with Image.open("new/out.png") as edited, Image.open("strip.png") as strip:
        assert edited.size == (24, 16)
        assert strip.size[0] > 2 * strip.size[1]


def test_edit_reports_as_json_and_warns_of_foreign_pictures(
    run: Run, model: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_infer(monkeypatch, foreign=True)
    code, out, err = run("edit", model, pictures / "a/one.png", "--remove", 1, "--steps", 2, "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["before"], report["after"]) == ([{"x": 0.5, "y": 0.25}], [])
    assert (report["path"], report["out_of_distribution"]) == ("edited.png", True)
    assert 0 < report["repainted"] <= 1
    assert "one.png: the image is out of distribution" in err


# evaluate


@pytest.mark.parametrize("as_json", [False, True])
def test_evaluate_reports_every_number(run: Run, model: Path, scenes: Path, as_json: bool) -> None:
    arguments = ["--data", f"{scenes}:2-3", "-n", 3, "--source", "clevr", "--count", "true"]
    code, out, _ = run("evaluate", model, *arguments, *(["--json"] if as_json else []))
    assert code == 0
    if not as_json:
        for shown in ("perception rate", "95 % interval", "seconds per image", "3 images", "count accuracy    │ 1"):
            assert shown in out
        return
    report = json.loads(out)
    names = {"perception_rate", "precision", "estimation_error", "count_accuracy"}
    assert names | {"rows_per_image", "seconds_per_image", "images", "intervals"} <= report.keys()
    assert report["intervals"].keys() == names
    assert (report["images"], report["count_accuracy"]) == (3, 1.0)


def test_evaluate_takes_rendered_scenes_and_another_solver(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Middle:
        needs = None

        def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
            return Solution(torch.full((3, 2), 0.5), 3, error=0.0, stderr=0.0, rows=0)

    monkeypatch.setattr("energycomp.plugins.find", finder(solvers={"middle": Middle}))
    arguments = ["--data", "synthetic:3", "-n", 2, "--source", "clevr", "--solver", "middle", "--json"]
    code, out, _ = run("evaluate", model, *arguments)
    assert code == 0
    assert (json.loads(out)["solver"], json.loads(out)["count_accuracy"]) == ("Middle", 1.0)


def finder(**added: dict[str, Any]) -> Callable[[str, str], Any]:
    from energycomp.plugins import find

    return lambda kind, name: added.get(kind, {}).get(name) or find(kind, name)  # type: ignore[arg-type]


# train and data


def test_train_ends_with_a_model_that_infer_takes(run: Run, model: Path, scenes: Path, pictures: Path) -> None:
    command = ["train", "clevr-places", "--data", scenes, "--init", model, "--steps", 4, "--batch-size", 8]
    command += ["-o", "runs/new", "--sample-every", 2, "--save-every", 2]
    command += ["--precision", "no", "--learning-rate", 1e-3, "--half"]
    code, out, _ = run(*command)
    assert code == 0
    assert out.endswith("energycomp infer runs/new/model IMAGE -o out\n")
    assert {path.name for path in Path("runs/new/samples").iterdir()} == {"step-000002.png", "step-000004.png"}
    with Image.open("runs/new/samples/step-000002.png") as grid:
        assert grid.height == 4 * 130 + 2
        assert grid.width > 4 * 130 + 2  # each row has its number of components at the left
    trained = load(Path("runs/new/model"))
    before, after = load(model).denoiser.network.state_dict(), trained.denoiser.network.state_dict()
    assert any(not torch.equal(before[name].half().float(), after[name]) for name in before)
    assert run("infer", "runs/new/model", pictures / "b/one.png", "--count", "1")[0] == 0
    saved = Path("runs/new/model/model.safetensors").read_bytes()
    assert run(*command)[0] == 0  # a finished run ends at once, with the same model
    assert Path("runs/new/model/model.safetensors").read_bytes() == saved


def test_train_says_how_to_go_on_after_ctrl_c(
    run: Run, model: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("energycomp.cli.train._sampler", lambda *_: stop)
    command = ["train", "clevr-places", "--data", scenes, "--init", model, "--steps", 2, "--batch-size", 8, "-o", "new"]
    code, _, err = run(*command, "--sample-every", 1)
    assert code == 130
    assert "run the same command again" in err
    assert not Path("new/model").exists()


def test_data_writes_what_evaluate_reads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(folder: Path, count: int, **options: Any) -> None:
        write(folder, count, size=(16, 16), **options)

    monkeypatch.setattr("energycomp_datasets.clevr.source.write", small)
    code, out, _ = run("data", "clevr", "-n", 3, "--objects", "2-4", "--seed", 1, "-o", "new/scenes")
    assert (code, out) == (0, "new/scenes\n")
    records = read("new/scenes")
    assert len(records) == 3
    assert all(2 <= record.count <= 4 for record in records)
    assert [path.name for path in Path("new").iterdir()] == ["scenes"]


def test_data_leaves_nothing_of_a_run_that_failed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, *_: Any, **__: Any) -> None:
        (folder / "part.png").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("energycomp_datasets.clevr.source.write", full)
    code, _, err = run("data", "clevr", "-n", 3, "-o", "scenes")
    assert code == 2
    assert "No space left" in err
    assert list(Path().iterdir()) == []


# what is refused

REFUSED = {
    "sample: one number": ("sample MODEL --at 0.3", "two numbers x, y"),
    "sample: outside": ("sample MODEL --at 0.3,1.5", "two numbers x, y"),
    "sample: NaN": ("sample MODEL --at nan,0.5", "got --at 'nan,0.5'"),
    "sample: words": ("sample MODEL --not left,top", "got --not 'left,top'"),
    "sample: component": ("sample MODEL 0.3,0.5 0.3,1.5", "got the component '0.3,1.5'"),
    "sample: no component": ("sample MODEL 0.3,,0.5", "got the component '0.3,,0.5'"),
    "sample: option": ("sample MODEL --option model", "got --option 'model'; expected NAME=VALUE"),
    "sample: option of a folder": ("sample MODEL --option preset=paper", "got preset with"),
    "sample: weights": ("sample MODEL --at 0,0 --weight 1 --weight 2", "2 --weight for 1 components"),
    "sample: weight NaN": ("sample MODEL --at 0,0 --weight nan", "got --weight 'nan'"),
    "sample: sampler": ("sample MODEL 0,0 --sampler nobody", "Known samplers"),
    "sample: sampler and scheduler": ("sample MODEL 0,0 --sampler smc --scheduler ddim", "expected one of them"),
    "sample: no png": ("sample MODEL -o scene.gif", "a PNG, JPEG or WebP file"),
    "sample: no ending": ("sample MODEL -o new/scene", "the name of a PNG, JPEG or WebP file, such as new/scene.png"),
    "sample: stdout": ("sample MODEL -o -", "the name of a PNG, JPEG or WebP file, such as image.png"),
    "sample: folder as file": (
        "sample MODEL -o empty",
        "got -o empty, a folder; expected a PNG, JPEG or WebP file, such as empty/",
    ),
    "sample: long name": (f"sample MODEL -n 2 -o {'x' * 250}.png", "which cannot be a file"),
    "sample: grid of one": ("sample MODEL --grid", "got --grid with one sample; expected several, such as -n 4"),
    "infer: grid": ("infer MODEL grid.png", "got grid.png, which energycomp wrote to show 4 images at once"),
    "edit: grid": ("edit MODEL grid.png --remove 1", "without --grid), or crop the image that you mean"),
    "decompose: grid": ("decompose MODEL grid.png", "got grid.png, which energycomp wrote to show 4 images at once"),
    "recombine: grid": ("recombine MODEL grid.png --take 0", "wrote to show 4 images at once"),
    "traverse: grid": ("traverse MODEL grid.png --part 0", "wrote to show 4 images at once"),
    "sample: parent is a file": ("sample MODEL -o file/scene.png", "got -o file"),
    "sample: model": ("sample nobody", "Known models: clevr"),
    "sample: folder": ("sample ./nobody", "no folder"),
    "sample: scheduler": ("sample MODEL --scheduler nobody", "DDIMScheduler"),
    "sample: steps": ("sample MODEL --steps 0", "Invalid value for '--steps'"),
    "sample: cuda": ("sample MODEL --device cuda:99", "got --device cuda:99"),
    "sample: device": ("sample MODEL --device quantum", "got --device 'quantum'; expected cpu"),
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
    "edit: missing": ("edit MODEL nothing.png --remove 1", "nothing.png, which is no file"),
    "edit: object": ("edit MODEL picture.png --remove 9 --count 1", "got object 9 of an image in which 1 were found"),
    "edit: object 0": ("edit MODEL picture.png --remove 0 --count 0", "expected one of none"),
    "edit: move without place": ("edit MODEL picture.png --move 2", "an object's number and its new value"),
    "edit: move to words": ("edit MODEL picture.png --move 1:left,top", "got --move 'left,top'"),
    "edit: moved twice": ("edit MODEL picture.png --move 1:0,0 --move 1:1,1", "got --move 1 twice"),
    "edit: outside": ("edit MODEL picture.png --add 0.3,1.5 --count 0", "two numbers x, y in [0, 1]"),
    "edit: strength": ("edit MODEL picture.png --add 0.3,0.5 --count 0 --strength 2", "got strength=2"),
    "edit: no png": ("edit MODEL picture.png --add 0.3,0.5 -o out.jpg", "a PNG file"),
    "edit: parent is a file": ("edit MODEL picture.png --add 0.3,0.5 -o file/out.png", "got -o file"),
    "evaluate: dataset": ("evaluate MODEL --data synthetic", "Known datasets"),
    "evaluate: range": ("evaluate MODEL --source clevr --data synthetic:9-1", "got the range '9-1'"),
    "evaluate: folder": ("evaluate MODEL --source clevr --data empty", "expected the layout of CLEVR"),
    "evaluate: count": ("evaluate MODEL --source clevr --data synthetic --count few", "got the range 'few'"),
    "train: recipe": ("train nobody", "Known recipes: clevr"),
    "train: data": ("train clevr --data nobody", "got --data nobody"),
    "train: no scenes": ("train clevr --data empty", "expected the layout of CLEVR"),
    "train: start": ("train clevr --data empty --init ./nobody", "no folder"),
    "train: precision": ("train clevr --precision fp8", "Invalid value for '--precision'"),
    "data: dataset": ("data nobody -o new", "Known datasets: clevr"),
    "data: there already": ("data clevr -o .", "there already"),
    "data: objects": ("data clevr -o new --objects few", "got the range 'few'"),
    "data: parent is a file": ("data clevr -o file/new", "got -o file"),
    "data: none": ("data clevr -o new -n 0", "Invalid value for '-n'"),
}


@pytest.mark.parametrize(("command", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_in_one_line_with_nothing_left_behind(run: Run, model: Path, command: str, reason: str) -> None:
    save_png(Image.new("RGB", (16, 16)), Path("picture.png"))
    save_png(Image.new("RGB", (32, 32)), Path("grid.png"), cells=4)
    Path("file").write_text("no picture")
    Path("empty").mkdir()
    code, out, err = run(*(str(model) if word == "MODEL" else word for word in command.split()))
    assert (code, out) == (2, "")
    assert reason in err
    if "Invalid value" not in reason:
        assert err.startswith("energycomp: ")
        assert re.sub(r"^energycomp: loading \S+ \.\.\.\n", "", err).count("\n") == 1
    allowed = {"picture.png", "grid.png", "file", "empty", *(["runs"] if command.startswith("train") else [])}
    assert {path.name for path in Path().iterdir()} <= allowed


MISSING = {
    "infer clevr picture.png": "energycomp-clevr",
    "infer clevr picture.png --seed 1": "energycomp-solvers",
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
    assert err.endswith(f" is in a package that is not installed: pip install {distribution}\n")
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
