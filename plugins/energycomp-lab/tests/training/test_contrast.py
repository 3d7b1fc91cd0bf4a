"""The contrastive loss against its definition, written out for every sample and rival."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import PartialState
from PIL import Image
from torch import nn
from torch.nn import functional as F

from energycomp.components.prediction import error_scale, target
from energycomp.components.space import log_snr, signal_noise, stratified_timesteps
from energycomp.denoisers import compose_rows, count_rows, trunk
from energycomp.errors import CheckpointError, InputError, NotFoundError
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp.testing import tiny_model
from energycomp_lab.training import FitConfig, Rivals, contrastive_loss, denoising_loss, fit
from energycomp_lab.training.resume import copy_checkpoints
from energycomp_lab.training.trackers import tracker_names


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Samples, places and owners of scenes with 2, 0 and 1 objects."""
    return torch.rand(3, 3, 16, 16, generator=seeded(1)) * 2 - 1, torch.rand(3, 2), torch.tensor([0, 0, 2])


def rivals(model: Model) -> tuple[Rivals, torch.Tensor]:
    """One object moved, one left out, one too many in an empty scene and in another."""
    added = torch.rand(3, 2, generator=seeded(2))
    owner, dropped, used = torch.tensor([0, 2, 1, 0]), torch.tensor([1, 2, -1, -1]), torch.tensor([0, -1, 1, 2])
    return Rivals(model.conditioner(added), owner, dropped, used), added


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction", "flow"])
@torch.no_grad()
def test_against_the_definition(kind: Any, batch: Any) -> None:
    model = tiny_model(prediction_type=kind)
    denoiser, (samples, places, owner), beta = model.denoiser, batch, 0.05
    others, added = rivals(model)
    with count_rows() as spent:
        got = contrastive_loss(
            denoiser, samples, model.conditioner(places), owner, others, weight=3.0, beta=beta, generator=seeded(0)
        )
    assert spent.rows == 3 + 3 + 3  # the true rows, those of the rivals, and u of each sample

    generator, schedule = seeded(0), denoiser.alphas_cumprod
    timestep = stratified_timesteps(3, 0.0, 1000.0, generator=generator)
    noise = torch.randn(samples.shape, generator=generator)
    signal, sigma = signal_noise(schedule, timestep, samples.dtype)
    shared = trunk(denoiser, signal * samples + sigma * noise, timestep)
    weight = error_scale(schedule, timestep, denoiser.prediction_type)
    weight = weight * (4.0 * torch.exp(-log_snr(schedule, timestep))).clamp(max=1.0)

    def error(scene: int, values: torch.Tensor) -> torch.Tensor:
        where = torch.full((len(values),), scene)
        predicted = compose_rows(denoiser, shared, model.conditioner(values), where)[scene]
        wanted = target(samples, noise, schedule, timestep, denoiser.prediction_type)[scene]
        return (predicted - wanted).square().sum() * weight[scene]

    sets = [
        (0, torch.stack([places[0], added[0]])),
        (2, places[:0]),
        (1, added[1:2]),
        (0, torch.cat([places[:2], added[2:]])),
    ]
    margins = [error(scene, values) - error(scene, places[owner == scene]) for scene, values in sets]
    penalty = torch.stack([F.softplus(-beta * margin) for margin in margins]).sum().to(samples)
    plain = denoising_loss(denoiser, samples, model.conditioner(places), owner, generator=seeded(0))
    assert torch.allclose(got, plain + 3.0 * penalty / samples.numel(), rtol=1e-4)


def test_without_weight_it_is_the_denoising_loss(batch: Any) -> None:
    model, (samples, places, owner) = tiny_model(), batch
    args = (model.denoiser, samples, model.conditioner(places), owner)
    got = contrastive_loss(*args, rivals(model)[0], weight=0.0, generator=seeded(0))
    assert torch.allclose(got, denoising_loss(*args, generator=seeded(0)), rtol=1e-5)


def test_training_moves_rivals_away(batch: Any) -> None:
    """A few steps on the penalty alone: the rivals explain the samples worse than before."""
    model, (samples, places, owner) = tiny_model(), batch
    network, others = model.denoiser.network.train(), rivals(model)[0]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    penalties = []
    for _ in range(15):
        args = (model.denoiser, samples, model.conditioner(places), owner, others)
        with_rivals, without = (contrastive_loss(*args, weight=w, beta=0.1, generator=seeded(0)) for w in (1.0, 0.0))
        optimizer.zero_grad()
        penalty = with_rivals - without.detach()
        penalties.append(float(penalty.detach()))
        penalty.backward()
        optimizer.step()
    assert penalties[-1] < 0.9 * penalties[0]


@torch.no_grad()
def test_no_object_and_no_rival_and_other_rules() -> None:
    model, samples, nobody = tiny_model(), torch.zeros(2, 3, 16, 16), torch.zeros(0, dtype=torch.long)
    empty = model.conditioner(torch.zeros(0, 2))
    none = Rivals(empty, nobody, nobody, nobody)
    assert contrastive_loss(model.denoiser, samples, empty, nobody, none, generator=0).isfinite()
    with pytest.raises(InputError, match="expected 'product'"):
        contrastive_loss(tiny_model(rule="mean").denoiser, samples, empty, nobody, none)


IMAGES = torch.linspace(-1, 1, 16 * 3 * 16 * 16).view(16, 3, 16, 16)


def train_layer(out: Path, *, on_sample: Any = None, **changes: Any) -> Any:
    """Four steps of a linear layer."""
    torch.manual_seed(0)
    settings = {"steps": 4, "batch_size": 8, "learning_rate": 1e-2, "save_every": 2, **changes}

    def loss(module: nn.Module, batch: Any, _step: Any) -> Any:
        return (module(batch.flatten(1)[:, :2]) - 1).square().mean()

    config = FitConfig(**settings)
    return fit(nn.Linear(2, 2), loss, IMAGES, config, out=out, on_sample=on_sample, progress=False)


def test_tensorboard_gets_numbers_and_samples(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    picture = Image.new("RGB", (6, 4), "red")
    found = train_layer(tmp_path, on_sample=lambda *_: picture, sample_every=2, log_with="tensorboard")
    seen = EventAccumulator(str(tmp_path / "energycomp"))
    seen.Reload()
    for tag in ("loss", "lr", "images_per_second", "rows_per_second"):
        assert [event.step for event in seen.Scalars(tag)] == [1, 2, 3, 4]
    assert seen.Scalars("loss")[-1].value == pytest.approx(found.loss)
    assert [(event.step, event.width, event.height) for event in seen.Images("samples")] == [(2, 6, 4), (4, 6, 4)]


def test_a_tracker_changes_no_weight_and_may_be_added_to_a_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    alone = train_layer(tmp_path / "alone")
    with pytest.raises(KeyboardInterrupt):
        train_layer(tmp_path / "tracked", sample_every=2, on_sample=_interrupt)
    tracked = train_layer(tmp_path / "tracked", log_with="tensorboard")
    assert all(torch.equal(alone.ema_state[name], tracked.ema_state[name]) for name in alone.ema_state)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_trackers_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got log_with='neptune'; expected trackers of accelerate: .*wandb"):
        train_layer(tmp_path, log_with="neptune")
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
        result = fit(model.denoiser.network, loss, IMAGES, config, out=tmp_path, progress=False)
    images, rows = result.throughput["images_per_second"], result.throughput["rows_per_second"]
    assert rows / images == pytest.approx(spent.rows / 24)
    seconds = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])["seconds"]
    assert images == pytest.approx(24 / seconds, rel=0.2)
    assert fit(model.denoiser.network, loss, IMAGES, config, out=tmp_path, progress=False).throughput == {}


def test_a_run_goes_on_in_another_folder(tmp_path: Path) -> None:
    whole = train_layer(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_layer(tmp_path / "half/part", on_sample=_interrupt, sample_every=2)
    assert copy_checkpoints(str(tmp_path / "half"), tmp_path / "new")
    assert [path.name for path in (tmp_path / "new/part").iterdir()] == ["checkpoint-000002.safetensors"]
    found = train_layer(tmp_path / "new/part")
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
