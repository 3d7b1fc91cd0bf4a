"""`energycomp evaluate` on a tiny model."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from energycomp.inference import Solution, read_image
from energycomp.models import save_pretrained
from energycomp.testing import Fixed, tiny_model

Run = Callable[..., tuple[int, str, str]]


def test_evaluate_reports_every_number(run: Run, model: Path, scenes: Path) -> None:
    arguments = ["--data", f"{scenes}:2-3", "-n", 3, "--source", "clevr", "--count", "true", "-o", "out"]
    code, out, _ = run("evaluate", model, *arguments)
    assert code == 0
    for shown in ("perception rate", "95 % interval", "seconds per image", "3 images", "count accuracy    │ 1"):
        assert shown in out
    report = json.loads(run("evaluate", model, *arguments, "--json")[1])
    names = {"perception_rate", "precision", "estimation_error", "count_accuracy"}
    assert names | {"rows_per_image", "seconds_per_image", "images", "intervals"} <= report.keys()
    assert report["intervals"].keys() == names
    assert (report["images"], report["count_accuracy"]) == (3, 1.0)


def test_evaluate_takes_rendered_scenes_and_another_solver(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle = partial(Fixed, torch.full((3, 2), 0.5))
    monkeypatch.setattr("energycomp.plugins.find", finder(solvers={"middle": middle}))
    arguments = ["--data", "synthetic:3", "-n", 2, "--source", "clevr", "--solver", "middle", "--json"]
    code, out, _ = run("evaluate", model, *arguments)
    assert code == 0
    assert (json.loads(out)["solver"], json.loads(out)["count_accuracy"]) == ("Fixed", 1.0)


def finder(**added: dict[str, Any]) -> Callable[[str, str], Any]:
    from energycomp.plugins import find

    return lambda kind, name: added.get(kind, {}).get(name) or find(kind, name)


def test_evaluate_goes_on_where_it_was_interrupted(
    run: Run, model: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["evaluate", model, "--data", scenes, "-n", 4, "--source", "clevr", "--count", "1"]
    assert run(*command, "-o", "whole")[0] == 0
    calls: list[Any] = []

    def stopped(*arguments: Any, **options: Any) -> Solution:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read_image(*arguments, **options)

    monkeypatch.setattr("energycomp_lab.evaluation.tasks.read_image", stopped)
    code, out, err = run(*command, "-o", "out")
    assert (code, out) == (130, "")
    records = Path("out/evaluation.jsonl")
    assert len(records.read_text().splitlines()) == 1 + 2  # the settings, and two images
    assert not Path("out/report.json").exists()
    with records.open("a") as file:
        file.write('{"index": 2, "con')
    code, out, err = run(*command, "-o", "out")
    assert code == 0, err
    assert out.endswith("out/report.json\n")
    assert len(calls) == 3 + 2
    whole, continued = (json.loads(Path(folder, "report.json").read_text()) for folder in ("whole", "out"))
    for report in (whole, continued):
        del report["seconds_per_image"]
    assert continued == whole
    printed = json.loads(run(*command, "-o", "out", "--json")[1])
    assert printed == json.loads(Path("out/report.json").read_text())
    assert len(calls) == 5
    more, fewer = (run(*command, "-o", "out", "-n", n, "--json") for n in (5, 2))
    assert (more[0], fewer[0], len(calls)) == (0, 0, 6)  # the fifth image alone is read
    assert (json.loads(more[1])["images"], json.loads(fewer[1])["images"]) == (5, 2)


def test_evaluate_refuses_a_folder_of_other_settings(run: Run, tmp_path: Path, scenes: Path) -> None:
    save_pretrained(tiny_model(solver="pursuit"), tmp_path / "model")
    command = ["evaluate", "./model", "--data", scenes, "-n", 1, "--source", "clevr", "-o", "out"]
    assert run(*command)[0] == 0
    kept = Path("out/evaluation.jsonl").read_bytes()
    for change, named in (
        (["--seed", "1"], "seed"),
        (["--count", "1"], "count"),
        (["--solver", "sgd"], "solver"),
        (["--data", "synthetic:1"], "data"),
        ([], "weights"),
    ):
        if named == "weights":
            save_pretrained(tiny_model(solver="pursuit", seed=1), tmp_path / "model")
        code, out, err = run(*command, *change)
        assert (code, out) == (2, "")
        expected = f"energycomp: got -o out, which holds an evaluation with other settings ({named}); expected the same"
        assert err.splitlines()[-1].startswith(f"{expected} ones")
        assert Path("out/evaluation.jsonl").read_bytes() == kept


def test_a_run_that_was_refused_before_its_first_image_is_corrected_in_its_folder(run: Run, tmp_path: Path) -> None:
    save_pretrained(tiny_model(solver="pursuit"), tmp_path / "model")
    command = ["evaluate", "./model", "--data", "synthetic", "-n", "1", "--count", "1", "-o", "out"]
    code, _, _ = run(*command, "--source", "faces")
    assert code == 2
    assert Path("out/evaluation.jsonl").read_text().count("\n") == 1  # its settings
    code, _, err = run(*command, "--source", "clevr")
    assert code == 0, err


def test_shards_of_an_evaluation_give_its_report(run: Run, model: Path, scenes: Path) -> None:
    command = ["evaluate", model, "--data", scenes, "-n", 5, "--source", "clevr", "--count", "0"]
    assert run(*command, "-o", "whole")[0] == 0
    for shard in ("3/3", "1/3"):
        code, out, err = run(*command, "-o", "out", "--shard", shard)
        assert (code, out) == (0, "")
        assert f"shard {shard}. Once all shards have ended, the same command without --shard" in err
    assert not Path("out/report.json").exists()
    assert run(*command, "-o", "out")[0] == 0
    whole, sharded = (json.loads(Path(folder, "report.json").read_text()) for folder in ("whole", "out"))
    for report in (whole, sharded):
        del report["seconds_per_image"]
    assert whole == sharded
    lines = [len(file.read_text().splitlines()) for file in sorted(Path("out").glob("*.jsonl"))]
    assert lines == [1 + 2, 1 + 1, 1 + 2]  # shards 1 and 3, and what was missing
    code, _, err = run(*command, "--shard", "1/2")
    assert (code, "got shard 1/2 without -o" in err) == (2, True)
