"""What a network may predict: eps, x0, v or a flow. From one to another, and their errors on one scale.

Notation: variable -> symbol
    signal, noise   s, sigma: a variance-preserving sample is x = s x0 + sigma eps with s^2 + sigma^2 = 1
    "v_prediction"  s eps - sigma x0 (Salimans and Ho, 2022)
    "flow"          eps - x0, the velocity of the rectified flow (1 - t) x0 + t eps (Liu et al., 2023), which is
                    x / (s + sigma) at t = sigma / (s + sigma)
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from energycomp.components.space import log_snr, signal_noise

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow"]
PREDICTION_TYPES: tuple[PredictionType, ...] = ("epsilon", "sample", "v_prediction", "flow")


def convert(
    prediction: Tensor, sample: Tensor, signal: Tensor, noise: Tensor, *, source: PredictionType, target: PredictionType
) -> Tensor:
    """One prediction type from another. The prediction and the sample are two equations in x0 and eps.

    Args:
        prediction, sample: (B, C, H, W), of the type `source` at the variance-preserving sample.
        signal, noise: what `signal_noise` gives for the timesteps.

    >>> x0, eps, a, s = torch.tensor(2.0), torch.tensor(-1.0), torch.tensor(0.6), torch.tensor(0.8)
    >>> convert(x0, a * x0 + s * eps, a, s, source="sample", target="epsilon").item()
    -1.0
    >>> convert(eps - x0, a * x0 + s * eps, a, s, source="flow", target="sample").item()
    2.0
    """
    if source == target:
        return prediction
    (a, b, divisor), (c, d, factor) = _combination(source, signal, noise), _combination(target, signal, noise)
    return (factor * prediction + (a * d - b * c) * sample) / divisor


def _combination(kind: PredictionType, signal: Tensor, noise: Tensor) -> tuple[Any, Any, Any]:
    """A prediction as a x0 + b eps: a, b and the determinant a sigma - b s of the equations."""
    if kind == "epsilon":
        return 0.0, 1.0, -signal
    if kind == "sample":
        return 1.0, 0.0, noise
    if kind == "v_prediction":
        return -noise, signal, -1.0
    return -1.0, 1.0, -(signal + noise)


def target(
    x0: Tensor, noise: Tensor, alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The prediction of the given type that has no error, for clean samples x0 and their noise, (B, C, H, W)."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return x0.expand_as(noise)
    if prediction_type == "flow":
        return noise - x0
    a, s = signal_noise(alphas_cumprod, timestep, noise.dtype)
    return a * noise - s * x0


def error_scale(alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType) -> Tensor:
    """The factor (S,) that turns a squared error of a prediction type into one of eps, at mass 1.

    |eps - eps_hat|^2 = SNR |x0 - x0_hat|^2 = |v - v_hat|^2 alpha_bar, and (1 - t)^2 times the squared error of a flow,
    with 1 - t = s / (s + sigma).
    """
    snr = log_snr(alphas_cumprod, timestep)
    if prediction_type == "epsilon":
        return torch.ones_like(snr)
    if prediction_type == "flow":
        return torch.sigmoid(snr / 2).square()
    return torch.exp(snr) if prediction_type == "sample" else torch.sigmoid(snr)
