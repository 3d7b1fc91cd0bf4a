"""What a network may predict: eps, x0, v or a flow. From one to another, and their errors on one scale.

Notation: variable -> symbol
    signal, noise   s, sigma: a variance-preserving sample is x = s x0 + sigma eps with s^2 + sigma^2 = 1
    "v_prediction"  s eps - sigma x0 (Salimans and Ho, 2022)
    "flow"          eps - x0, the velocity of the rectified flow (1 - t) x0 + t eps (Liu et al., 2023), which is
                    x / (s + sigma) at t = sigma / (s + sigma)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import attrs
import torch
from torch import Tensor

from energycomp.components.space import log_snr, signal_noise

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow"]
PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)


@attrs.frozen
class _Kind:
    """All that a prediction type is."""

    # the prediction as a x0 + b eps: a, b and the determinant a sigma - b s of its equation and that of the sample
    combined: Callable[[Any, Any], tuple[Any, Any, Any]]
    error_scale: Callable[[Tensor], Tensor]  # what turns a squared error into one of eps, from the log-SNR
    norm: Callable[[Tensor, Tensor], Tensor] | None = None  # see `input_norm`
    gamma: float | None = None  # see `default_gamma`
    scheduled_as: PredictionType | None = None


_KINDS: dict[PredictionType, _Kind] = {
    "epsilon": _Kind(lambda s, _: (0.0, 1.0, -s), torch.ones_like),
    "sample": _Kind(lambda _, sigma: (1.0, 0.0, sigma), torch.exp, gamma=1.0),
    "v_prediction": _Kind(lambda s, sigma: (-sigma, s, -1.0), torch.sigmoid),
    "flow": _Kind(
        lambda s, sigma: (-1.0, 1.0, -(s + sigma)),
        lambda snr: torch.sigmoid(snr / 2).square(),
        norm=lambda s, sigma: s + sigma,
        scheduled_as="v_prediction",
    ),
}


def convert(
    prediction: Tensor, sample: Tensor, signal: Tensor, noise: Tensor, *, source: PredictionType, target: PredictionType
) -> Tensor:
    """One prediction type from another. The prediction and the sample are two equations in x0 and eps.

    Args:
        prediction, sample: (B, ...), of the type `source` at the variance-preserving sample.
        signal, noise: what `signal_noise` gives for the timesteps.

    >>> x0, eps, a, s = torch.tensor(2.0), torch.tensor(-1.0), torch.tensor(0.6), torch.tensor(0.8)
    >>> convert(x0, a * x0 + s * eps, a, s, source="sample", target="epsilon").item()
    -1.0
    >>> convert(eps - x0, a * x0 + s * eps, a, s, source="flow", target="sample").item()
    2.0
    """
    if source == target:
        return prediction
    (a, b, divisor), (c, d, factor) = (_KINDS[kind].combined(signal, noise) for kind in (source, target))
    return (factor * prediction + (a * d - b * c) * sample) / divisor


def target(
    x0: Tensor, noise: Tensor, alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The prediction of the given type that has no error, for clean samples x0 and their noise, (B, ...)."""
    a, b, _ = _KINDS[prediction_type].combined(*signal_noise(alphas_cumprod, timestep, noise.dtype, noise.ndim))
    return a * x0 + b * noise


def error_scale(alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType) -> Tensor:
    """The factor (S,) that turns a squared error of a prediction type into one of eps, at mass 1.

    |eps - eps_hat|^2 = SNR |x0 - x0_hat|^2 = |v - v_hat|^2 alpha_bar, and (1 - t)^2 times the squared error of a flow,
    with 1 - t = s / (s + sigma).
    """
    return _KINDS[prediction_type].error_scale(log_snr(alphas_cumprod, timestep))


def input_norm(
    alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType, sample: Tensor
) -> Tensor | None:
    """What variance-preserving samples (B, ...) are divided by before a network sees them: s + sigma for a flow, else
    None.
    """
    norm = _KINDS[prediction_type].norm
    return None if norm is None else norm(*signal_noise(alphas_cumprod, timestep, sample.dtype, sample.ndim))


def default_gamma(prediction_type: PredictionType) -> float | None:
    """Gamma of the weights min(1, gamma / SNR) of draws that read an image: 1 for x0; None for the weight 1.

    >>> default_gamma("sample"), default_gamma("epsilon")
    (1.0, None)
    """
    return _KINDS[prediction_type].gamma


def scheduled_as(prediction_type: PredictionType) -> PredictionType:
    """The type that schedulers of variance-preserving samples are asked to take: itself, or v for a flow."""
    return _KINDS[prediction_type].scheduled_as or prediction_type
