"""The contrast of labels against its definition: both compositions run on their own."""

import pytest
import torch
from torch.nn import functional

from energycomp.components import combine, log_snr, predict, signal_noise
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp.testing import tiny_model
from energycomp_faces.contrast import contrast_loss
from energycomp_faces.model import default


@torch.no_grad()
def test_it_is_the_likelihood_of_each_label_given_the_others() -> None:
    torch.manual_seed(0)
    model = default(attributes=("smiling", "beard"))
    for parameter in model.denoiser.network.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape))
    samples, values = torch.randn(1, 3, 64, 64), torch.tensor([1, 2])
    owner = torch.zeros(2, dtype=torch.long)

    def loss(weight: float) -> float:
        return float(
            contrast_loss(
                model.denoiser, model.conditioner, samples, values, owner, weight=weight, beta=1e-3, generator=seeded(0)
            )
        )

    generator, schedule = seeded(0), model.denoiser.alphas_cumprod
    timestep = 1000 * (torch.randperm(1, generator=generator) + torch.rand(1, generator=generator)).sqrt()
    noise = torch.randn(samples.shape, generator=generator)
    signal, sigma = signal_noise(schedule, timestep, samples.dtype)
    noised, snr = signal * samples + sigma * noise, torch.exp(log_snr(schedule, timestep)).float()

    def error(given: list[int]) -> torch.Tensor:
        composition = combine([model.leaf(torch.tensor([v])) for v in given], "product")
        return (samples - predict(composition, noised, timestep, prediction_type="sample")).square().flatten(1).sum(1)

    true = error([1, 2])
    gaps = torch.stack([error(flipped) - true for flipped in ([0, 2], [1, 3])]) * snr.clamp(max=4.0)
    assert loss(0.0) == pytest.approx(float(true * snr.clamp(0.5, 1.0)) / samples.numel(), rel=1e-4)
    assert loss(1.0) - loss(0.0) == pytest.approx(float(functional.softplus(-1e-3 * gaps).mean()), rel=1e-3)


@torch.no_grad()
def test_rows_are_both_values_of_each_label_and_one_for_a_sample() -> None:
    model = default(attributes=("smiling", "beard"))
    owner = torch.tensor([0, 0, 1])
    with count_rows() as spent:
        contrast_loss(
            model.denoiser, model.conditioner, torch.zeros(2, 3, 64, 64), torch.tensor([1, 2, 0]), owner, weight=1.0
        )
    assert (spent.rows, spent.trunks) == (8, 2)


def test_other_kinds_of_model_are_refused() -> None:
    model = tiny_model(rule="mean")
    with pytest.raises(InputError, match="contrast=0"):
        contrast_loss(
            model.denoiser, model.conditioner, torch.zeros(1, 3, 16, 16), torch.tensor([0]), torch.tensor([0]), weight=1
        )
