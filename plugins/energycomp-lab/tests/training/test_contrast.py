"""The contrastive loss against its definition, written out for every sample and rival."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from energycomp.components.prediction import error_scale, target
from energycomp.components.space import log_snr, signal_noise, stratified_timesteps
from energycomp.denoisers import compose_rows, count_rows, trunk
from energycomp.errors import InputError
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp.testing import tiny_model
from energycomp_lab.training import Rivals, contrastive_loss, denoising_loss


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
def test_no_object_and_no_rival() -> None:
    model, samples = tiny_model(), torch.zeros(2, 3, 16, 16)
    nobody, empty = torch.zeros(0, dtype=torch.long), model.conditioner(torch.zeros(0, 2))
    none = Rivals(empty, nobody, nobody, nobody)
    assert contrastive_loss(model.denoiser, samples, empty, nobody, none, generator=0).isfinite()


def test_other_rules_are_refused() -> None:
    model = tiny_model(rule="mean")
    row, owner = model.conditioner(torch.rand(1, 2)), torch.zeros(1, dtype=torch.long)
    with pytest.raises(InputError, match="expected 'product'"):
        contrastive_loss(model.denoiser, torch.zeros(1, 3, 16, 16), row, owner, Rivals(row, owner, owner, owner))
