"""Trackers of accelerate, throughput, and runs that go on from checkpoints of another folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from PIL import Image
from torch import nn

from energycomp.denoisers import count_rows
from energycomp.errors import CheckpointError, InputError, NotFoundError
from energycomp.testing import tiny_model
from energycomp_lab.training import FitConfig, denoising_loss, fit
from energycomp_lab.training.resume import copy_checkpoints
from energycomp_lab.training.trackers import tracker_names

DATA = torch.linspace(-1, 1, 16 * 3 * 16 * 16).view(16, 3, 16, 16)


def run(out: Path, *, on_sample: Any = None, **changes: Any) -> Any:
    """Four steps of a linear layer."""
    torch.manual_seed(0)
    settings = {"steps": 4, "batch_size": 8, "learning_rate": 1e-2, "save_every": 2, **changes}

    def loss(module: nn.Module, batch: Any, _step: Any) -> Any:
        return (module(batch.flatten(1)[:, :2]) - 1).square().mean()

    config = FitConfig(**settings)
    return fit(nn.Linear(2, 2), loss, DATA, config, out=out, on_sample=on_sample, progress=False)


def test_tensorboard_gets_numbers_and_samples(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    picture = Image.new("RGB", (6, 4), "red")
    found = run(tmp_path, on_sample=lambda *_: picture, sample_every=2, log_with="tensorboard")
    seen = EventAccumulator(str(tmp_path / "energycomp"))
    seen.Reload()
    for tag in ("loss", "lr", "images_per_second", "rows_per_second"):
        assert [event.step for event in seen.Scalars(tag)] == [1, 2, 3, 4]
    assert seen.Scalars("loss")[-1].value == pytest.approx(found.loss)
    assert [(event.step, event.width, event.height) for event in seen.Images("samples")] == [(2, 6, 4), (4, 6, 4)]


def test_a_tracker_changes_no_weight_and_may_be_added_to_a_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    alone = run(tmp_path / "alone")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "tracked", sample_every=2, on_sample=_interrupt)
    tracked = run(tmp_path / "tracked", log_with="tensorboard")
    assert all(torch.equal(alone.ema_state[name], tracked.ema_state[name]) for name in alone.ema_state)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_trackers_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got log_with='neptune'; expected trackers of accelerate: .*wandb"):
        run(tmp_path, log_with="neptune")
    with pytest.raises(InputError, match=r"'aim', whose package is not installed; .*pip install aim, or leave it out"):
        tracker_names("aim")
    assert not list(tmp_path.iterdir())


def test_throughput_counts_images_and_network_evaluations(tmp_path: Path) -> None:
    model = tiny_model()

    def loss(module: nn.Module, batch: Any, step: Any) -> Any:
        rows = model.conditioner(torch.full((len(batch), 2), 0.5))
        owner = torch.arange(len(batch))
        return denoising_loss(model.denoiser, batch, rows, owner, module=module, generator=step.generator)

    config = FitConfig(steps=3, batch_size=8, learning_rate=1e-3)
    with count_rows() as spent:
        result = fit(model.denoiser.network, loss, DATA, config, out=tmp_path, progress=False)
    images, rows = result.throughput["images_per_second"], result.throughput["rows_per_second"]
    assert rows / images == pytest.approx(spent.rows / 24)
    seconds = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["seconds"]
    assert images == pytest.approx(24 / seconds, rel=0.2)
    assert fit(model.denoiser.network, loss, DATA, config, out=tmp_path, progress=False).throughput == {}


def test_a_run_goes_on_in_another_folder(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "half/part", on_sample=_interrupt, sample_every=2)
    assert copy_checkpoints(str(tmp_path / "half"), tmp_path / "new")
    assert [path.name for path in (tmp_path / "new/part").iterdir()] == ["checkpoint-000002.safetensors"]
    found = run(tmp_path / "new/part")
    assert all(torch.equal(whole.ema_state[name], found.ema_state[name]) for name in whole.ema_state)
    assert copy_checkpoints(str(tmp_path / "half"), tmp_path / "new")  # the run in it stays
    assert "checkpoint-000004.safetensors" in {path.name for path in (tmp_path / "new/part").iterdir()}
    checkpoint = tmp_path / "half/part/checkpoint-000002.safetensors"
    assert copy_checkpoints(str(checkpoint), tmp_path / "file")
    assert (tmp_path / "file" / checkpoint.name).read_bytes() == checkpoint.read_bytes()


def test_sources_without_checkpoints(tmp_path: Path) -> None:
    assert not copy_checkpoints(str(tmp_path), tmp_path / "new")
    for name, message in (("a.png", "a file that is no checkpoint"), ("checkpoint-000001.safetensors", "Cannot read")):
        (tmp_path / name).write_bytes(b"no tensors")
        with pytest.raises((NotFoundError, CheckpointError), match=message):
            copy_checkpoints(str(tmp_path / name), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(NotFoundError, match=r"got './absent', which does not exist; expected the folder of a run"):
        copy_checkpoints("./absent", tmp_path / "new")
    assert PartialState().num_processes == 1
