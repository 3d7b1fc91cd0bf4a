"""The denoising loss of compositions, of any number of components."""

from __future__ import annotations

import attrs
import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from energycomp.components import Condition, error_scale, log_snr, signal_noise, stratified_timesteps, target
from energycomp.denoisers import Denoiser, Trunk, compose_rows, trunk
from energycomp.errors import InputError
from energycomp.seeds import as_generator


def denoising_loss(
    denoiser: Denoiser,
    samples: Tensor,
    condition: Condition,
    owner: Tensor,
    *,
    module: nn.Module | None = None,
    gamma: float | None = 4.0,
    floor: float = 0.02,
    timesteps: tuple[float, float] | None = None,
    timestep_power: float = 1.0,
    generator: int | torch.Generator | None = None,
) -> Tensor:
    """The denoising error of compositions, each of its own number of components (thesis alg. 3).

    The squared error of the network's own prediction is weighted as min(SNR, gamma) on x0 (Hang et al., 2023).

    Args:
        denoiser: its rule composes the rows.
        samples: x0, (B, C, H, W).
        condition: R flat rows over all samples.
        owner: (R,) the sample that each row belongs to.
        module: the network to call in place of the denoiser's own.
        gamma: the clamp; None for an unweighted error of eps.
        floor: least weight, such that the noisiest timesteps are learned too.
        timesteps: range [low, high); all when left out. They are stratified over the batch.
        timestep_power: they are low + (high - low) U^power, U uniform: below 1 the noisy ones, at which conditions
            matter most, come more often.
        generator: draws timesteps and noise.

    Returns:
        A scalar, mean over samples and numbers. Costs R rows, and under the product rule one for each sample whose
        number of components is not 1.

    >>> from energycomp.testing import tiny_model
    >>> model = tiny_model()
    >>> rows, owner = model.conditioner(torch.rand(3, 2)), torch.tensor([0, 0, 1])
    >>> denoising_loss(model.denoiser, torch.zeros(2, 3, 16, 16), rows, owner).ndim
    0
    """
    if samples.ndim < 2 or len(condition) != len(owner):
        raise InputError(
            f"got samples {tuple(samples.shape)}, {len(condition)} rows and {len(owner)} owners; expected samples "
            "(B, ...) and one owner a row"
        )
    denoiser = denoiser if module is None else attrs.evolve(denoiser, network=module)
    shared, goal, timestep = make_trunk(denoiser, samples, timesteps, timestep_power, generator)
    error = (compose_rows(denoiser, shared, condition, owner) - goal).square().flatten(1).mean(1)
    weight = error_weight(denoiser, timestep, gamma)
    weight = weight if gamma is None else weight.clamp(min=floor)
    return (error * weight.to(error.dtype)).mean()


def make_trunk(
    denoiser: Denoiser,
    samples: Tensor,
    timesteps: tuple[float, float] | None,
    power: float,
    generator: int | torch.Generator | None,
) -> tuple[Trunk, Tensor, Tensor]:
    """The trunk of samples with noise, what the network should predict of each, and their timesteps (B,)."""
    generator = as_generator(generator)
    schedule = denoiser.alphas_cumprod.to(samples.device)
    low, high = timesteps or (0.0, float(len(schedule)))
    timestep = stratified_timesteps(len(samples), low, high, power=power, generator=generator).to(samples.device)
    noise = randn_tensor(samples.shape, generator=generator, device=samples.device)
    signal, sigma = signal_noise(schedule, timestep, samples.dtype, samples.ndim)
    shared = trunk(denoiser, signal * samples + sigma * noise, timestep)
    return shared, target(samples, noise, schedule, timestep, denoiser.prediction_type), timestep


def error_weight(denoiser: Denoiser, timestep: Tensor, gamma: float | None) -> Tensor:
    """The factors (B,) of squared errors of the network's own prediction: min(SNR, gamma) on x0; 1 on eps for None."""
    schedule = denoiser.alphas_cumprod.to(timestep.device)
    scale = error_scale(schedule, timestep, denoiser.prediction_type)
    return scale if gamma is None else scale * (gamma * torch.exp(-log_snr(schedule, timestep))).clamp(max=1.0)
