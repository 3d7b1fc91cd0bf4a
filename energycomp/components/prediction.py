"""What a network may predict: eps, x0 or v. From one to another, and their errors on one scale."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from energycomp.components.space import log_snr, signal_noise

__all__ = ["PredictionType", "convert", "error_scale", "target"]

PredictionType = Literal["epsilon", "sample", "v_prediction"]


def convert(
    prediction: Tensor, sample: Tensor, signal: Tensor, noise: Tensor, *, source: PredictionType, target: PredictionType
) -> Tensor:
    """One prediction type from another, with x_t = signal x0 + noise eps and v = signal eps - noise x0.

    Args:
        prediction, sample: (B, C, H, W), of the type `source` at the noised sample x_t.
        signal, noise: what `signal_noise` gives for the timesteps.

    >>> x0, eps, a, s = torch.tensor(2.0), torch.tensor(-1.0), torch.tensor(0.6), torch.tensor(0.8)
    >>> convert(x0, a * x0 + s * eps, a, s, source="sample", target="epsilon").item()
    -1.0
    """
    if source == target:
        return prediction
    if target == "v_prediction":
        if source == "epsilon":
            return (prediction - noise * sample) / signal
        return (signal * sample - prediction) / noise
    if target == "epsilon":
        if source == "sample":
            return (sample - signal * prediction) / noise
        return noise * sample + signal * prediction
    if source == "epsilon":
        return (sample - noise * prediction) / signal
    return signal * sample - noise * prediction


def target(
    x0: Tensor, noise: Tensor, alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The prediction of the given type that has no error, for clean samples x0 and their noise, (B, C, H, W)."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return x0.expand_as(noise)
    a, s = signal_noise(alphas_cumprod, timestep, noise.dtype)
    return a * noise - s * x0


def error_scale(alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType) -> Tensor:
    """The factor (S,) that turns a squared error of a prediction type into one of eps, at mass 1.

    |eps - eps_hat|^2 = SNR |x0 - x0_hat|^2 = |v - v_hat|^2 alpha_bar.
    """
    snr = log_snr(alphas_cumprod, timestep)
    if prediction_type == "epsilon":
        return torch.ones_like(snr)
    return torch.exp(snr) if prediction_type == "sample" else torch.sigmoid(snr)
