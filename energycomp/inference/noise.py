"""The draws (timestep, noise) over which denoising errors are averaged, and the error of each draw."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from energycomp.components import by_sample, error_scale, log_snr, signal_noise, stratified_timesteps, target
from energycomp.denoisers import Denoiser, Trunk, trunk
from energycomp.errors import InputError
from energycomp.fields import is_number, is_whole
from energycomp.seeds import as_generator


@attrs.frozen(eq=False)
class NoiseBank:
    """S draws. Candidates that are compared see the same draws, so their differences are paired.

    `draw_bank` draws them in the order of their timesteps: `energycomp.inference.standard_error` relies on it.

    >>> bank = draw_bank(4, (3, 8, 8), torch.linspace(0.999, 0.001, 1000), generator=0)
    >>> len(bank), len(bank[:2]), bank.noised(torch.zeros(1, 3, 8, 8), torch.linspace(0.999, 0.001, 1000)).shape
    (4, 2, torch.Size([4, 3, 8, 8]))
    """

    timestep: Tensor  # (S,) real numbers in [0, T]
    noise: Tensor  # (S, C, H, W), standard normal
    weight: Tensor  # (S,), the lambda that multiplies |eps - eps_hat|^2 of a draw

    def __len__(self) -> int:
        return len(self.timestep)

    def __getitem__(self, index: Tensor | slice) -> NoiseBank:
        return NoiseBank(self.timestep[index], self.noise[index], self.weight[index])

    def noised(self, observation: Tensor, alphas_cumprod: Tensor) -> Tensor:
        """x_t of one observation (1, ...) for every draw: (S, ...)."""
        signal, noise = signal_noise(alphas_cumprod, self.timestep, observation.dtype, observation.ndim)
        return signal * observation + noise * self.noise


def draw_bank(
    draws: int,
    sample_shape: tuple[int, ...],
    alphas_cumprod: Tensor,
    *,
    timesteps: tuple[float, float] | None = None,
    gamma: float | None = None,
    generator: int | torch.Generator | None = None,
) -> NoiseBank:
    """Draws a bank, stratified in the timestep: one draw falls in each of `draws` equal parts of the range, in order.

    Args:
        draws: S, at least 1.
        sample_shape, alphas_cumprod: that of one sample, and the noise schedule (T,).
        timesteps: range [low, high) of the timesteps; all of them when left out.
        gamma: above 0; weights are lambda = min(1, gamma / SNR), for denoisers trained on x0. They are 1 without it.
        generator: or a seed, makes the draws repeatable; they are made on its device and moved to that of the schedule.

    Raises:
        InputError: no draws, a range outside the schedule, or a gamma that is not above 0.

    >>> bank = draw_bank(4, (3, 8, 8), torch.linspace(0.999, 0.001, 1000), timesteps=(200, 600))
    >>> (bank.timestep / 100).floor().tolist()
    [2.0, 3.0, 4.0, 5.0]
    """
    generator = as_generator(generator)
    T = len(alphas_cumprod)
    low, high = timesteps or (0.0, float(T))
    if not is_whole(draws) or draws < 1 or not 0 <= low < high <= T:
        got = f"got {draws} draws over timesteps [{low}, {high})"
        raise InputError(f"{got}; expected at least 1 draw and 0 <= low < high <= {T}; choose them so")
    if gamma is not None and not (is_number(gamma) and gamma > 0):
        raise InputError(f"got gamma={gamma!r}; expected a number above 0, or None for weights of 1")
    device = generator.device if generator is not None else torch.device("cpu")
    # One timestep in each stratum, in order: `standard_error` takes neighbours for neighbours
    timestep, order = stratified_timesteps(draws, low, high, generator=generator).sort()
    # One noise for each, drawn on the device of the generator, so that a seed means the same everywhere
    noise = torch.randn(draws, *sample_shape, generator=generator, device=device)[order]
    timestep = timestep.to(alphas_cumprod.device)
    noise = noise.to(alphas_cumprod.device)
    # lambda = min(1, gamma / SNR) (Hang et al., 2023), for a denoiser of x0
    weight = torch.ones_like(timestep)
    if gamma is not None:
        weight = (gamma * torch.exp(-log_snr(alphas_cumprod, timestep))).clamp(max=1.0).to(timestep.dtype)
    return NoiseBank(timestep, noise, weight)


def noised_trunk(denoiser: Denoiser, observation: Tensor, bank: NoiseBank) -> Trunk:
    """The trunk of one observation (1, C, H, W) under every draw of a bank. Costs S trunk passes."""
    return trunk(denoiser, bank.noised(observation, denoiser.alphas_cumprod), bank.timestep)


def wanted(denoiser: Denoiser, observation: Tensor, bank: NoiseBank) -> tuple[Tensor, Tensor]:
    """The predictions without error (S, C, H, W), and what squared errors are multiplied by (S,)."""
    kind = denoiser.prediction_type
    alphas_cumprod = denoiser.alphas_cumprod
    scale = bank.weight * error_scale(alphas_cumprod, bank.timestep, kind)
    return target(observation, bank.noise, alphas_cumprod, bank.timestep, kind), scale


def residual_errors(denoiser: Denoiser, observation: Tensor, bank: NoiseBank, predictions: Tensor) -> Tensor:
    """lambda_s |eps_s - eps_hat_s|^2 of composed predictions (N, S, C, H, W) in the network's type: (N, S)."""
    # Errors of a prediction of x0, v or noise, times what makes them errors of noise
    best, scale = wanted(denoiser, observation, bank)
    return (predictions - best).flatten(2).square().sum(2) * scale.to(predictions.dtype)


def residuals(denoiser: Denoiser, observation: Tensor, bank: NoiseBank, predictions: Tensor) -> Tensor:
    """sqrt(lambda_s) (eps_s - eps_hat_s) of predictions (S, C, H, W); the error of a draw is its squared sum."""
    best, scale = wanted(denoiser, observation, bank)
    return (best - predictions) * by_sample(scale.sqrt().to(predictions.dtype), predictions.ndim)
