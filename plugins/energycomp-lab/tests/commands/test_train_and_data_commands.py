"""`energycomp train` and `energycomp data` on a tiny model."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from energycomp import load
from energycomp_datasets.clevr.layout import read, write

Run = Callable[..., tuple[int, str, str]]


def test_train_ends_with_a_model_that_infer_takes(run: Run, model: Path, scenes: Path) -> None:
    command = ["train", "clevr-places", "--data", scenes, "--init", model, "--steps", 4, "--option", "batch_size=8"]
    command += ["-o", "runs/new", "--option", "sample_every=2", "--option", "save_every=2"]
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
    assert run("infer", "runs/new/model", next((scenes / "images").rglob("*.png")), "--count", "1")[0] == 0
    saved = Path("runs/new/model/model.safetensors").read_bytes()
    assert run(*command)[0] == 0  # a finished run ends at once, with the same model
    assert Path("runs/new/model/model.safetensors").read_bytes() == saved


def test_train_goes_on_from_another_run_and_logs_it(run: Run, model: Path, scenes: Path) -> None:
    command = ["train", "clevr-places", "--data", scenes, "--steps", 2, "--option", "batch_size=8", "--precision", "no"]
    command += ["--option", "sample_every=0", "--option", "save_every=1"]
    code, out, _ = run(*command, "--resume-from", model, "-o", "one")  # a model: its weights
    assert code == 0
    assert re.match(r"2 steps, loss \S+, \S+ images/s, \S+ network evaluations/s, model in one/model\n", out)
    Path("half").mkdir()
    Path("one/checkpoint-000001.safetensors").rename("half/checkpoint-000001.safetensors")
    code, out, err = run(*command, "--resume-from", "half", "-o", "two")
    assert code == 2
    assert "checkpoint-000001.safetensors holds other tensors than the module" in err  # that model is a smaller one
    assert (run(*command, "--init", model, "--resume-from", "half")[0], Path("runs").exists()) == (2, False)
    code, _, err = run(*command, "--option", "log_with=neptune")
    assert (code, "got log_with='neptune'; expected trackers of accelerate" in err) == (2, True)


def test_train_says_how_to_go_on_after_ctrl_c(
    run: Run, model: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("energycomp_lab.commands.train._sampler", lambda *_: stop)
    command = ["train", "clevr-places", "--data", scenes, "--init", model, "--steps", 2, "-o", "new"]
    code, _, err = run(*command, "--option", "batch_size=8", "--option", "sample_every=1")
    assert code == 130
    assert "run the same command again" in err
    assert not Path("new/model").exists()


def test_data_writes_what_evaluate_reads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(folder: Path, count: int, **options: Any) -> None:
        write(folder, count, **{**options, "size": (16, 16)})

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
