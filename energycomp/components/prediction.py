"""What a network may predict, from one to another, and their errors on one scale.

Notation: variable -> symbol
    signal, noise   s, sigma: a sample is s x0 + sigma eps; s^2 + sigma^2 = 1 where it is variance-preserving
    "v_prediction"  s eps - sigma x0 (Salimans and Ho, 2022)
    "flow"          eps - x0, the velocity of the rectified flow (1 - t) x0 + t eps (Liu et al., 2023), which is
                    x / (s + sigma) at t = sigma / (s + sigma); "flow_to_data" has the other sign
    "score"         -eps / sigma, the gradient of log p at the sample (Song and Ermon, 2019)
    "edm"           F, of which x0 is (d / r)^2 x / s + (sigma / s) (d / r) F with r^2 = (sigma / s)^2 + d^2; d is the
                    deviation of the data (Karras et al., 2022)
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
AnyPrediction = PredictionType | Literal["flow_to_data", "score", "edm"]  # those of networks that are adopted, too
SIGMA_DATA = 0.5  # d of EDM


@attrs.frozen
class _Kind:
    """All that a prediction type is. Functions take s, sigma and the d of EDM."""

    # the prediction as a x0 + b eps: a, b and the determinant a sigma - b s of its equation and that of the sample
    combined: Callable[[Any, Any, float], tuple[Any, Any, Any]]
    norm: Callable[[Any, Any, float], Any] | None = None  # see `input_norm`
    gamma: float | None = None  # see `default_gamma`
    scheduled_as: PredictionType | None = None
    is_noise: bool = False  # whether it is a multiple of the noise, whatever the data


def _root(s: Any, sigma: Any, d: float) -> Any:
    """r of EDM."""
    return ((sigma / s) ** 2 + d**2) ** 0.5


_KINDS: dict[AnyPrediction, _Kind] = {
    "epsilon": _Kind(lambda s, _, __: (0.0, 1.0, -s), is_noise=True),
    "sample": _Kind(lambda _, sigma, __: (1.0, 0.0, sigma), gamma=1.0),
    "v_prediction": _Kind(lambda s, sigma, _: (-sigma, s, -1.0)),
    "flow": _Kind(
        lambda s, sigma, _: (-1.0, 1.0, -(s + sigma)), norm=lambda s, sigma, _: s + sigma, scheduled_as="v_prediction"
    ),
    "flow_to_data": _Kind(lambda s, sigma, _: (1.0, -1.0, s + sigma), norm=lambda s, sigma, _: s + sigma),
    "score": _Kind(lambda s, sigma, _: (0.0, -1 / sigma, s / sigma), is_noise=True),
    "edm": _Kind(
        lambda s, sigma, d: (sigma / (s * d * _root(s, sigma, d)), -d / _root(s, sigma, d), s * _root(s, sigma, d) / d),
        norm=lambda s, sigma, d: s * _root(s, sigma, d),
    ),
}


def convert(
    prediction: Tensor,
    sample: Tensor,
    signal: Tensor,
    noise: Tensor,
    *,
    source: AnyPrediction,
    target: AnyPrediction,
    sigma_data: float = SIGMA_DATA,
) -> Tensor:
    """One prediction type from another. The prediction and the sample are two equations in x0 and eps.

    Args:
        prediction, sample: (B, ...), of the type `source` at the sample; "v_prediction" of a variance-preserving one.
        signal, noise: the amplitudes of x0 and eps in the sample, such as `signal_noise` gives for the timesteps.
        sigma_data: d of "edm".

    >>> x0, eps, a, s = torch.tensor(2.0), torch.tensor(-1.0), torch.tensor(0.6), torch.tensor(0.8)
    >>> convert(x0, a * x0 + s * eps, a, s, source="sample", target="epsilon").item()
    -1.0
    >>> convert(eps - x0, a * x0 + s * eps, a, s, source="flow", target="sample").item()
    2.0
    >>> round(convert(-eps / s, a * x0 + s * eps, a, s, source="score", target="epsilon").item(), 6)
    -1.0
    """
    if source == target:
        return prediction
    a, b, divisor = _KINDS[source].combined(signal, noise, sigma_data)
    c, d, factor = _KINDS[target].combined(signal, noise, sigma_data)
    return (factor * prediction + (a * d - b * c) * sample) / divisor


def target(
    x0: Tensor, noise: Tensor, alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType
) -> Tensor:
    """The prediction of the given type that has no error, for clean samples x0 and their noise, (B, ...).

    >>> x0, noise, schedule = torch.ones(1, 1), torch.full((1, 1), -1.0), torch.tensor([0.64, 0.36])
    >>> target(x0, noise, schedule, torch.tensor([1.0]), "v_prediction")  # 0.6 eps - 0.8 x0
    tensor([[-1.4000]])
    """
    amplitudes = signal_noise(alphas_cumprod, timestep, noise.dtype, noise.ndim)
    a, b, _ = _KINDS[prediction_type].combined(*amplitudes, SIGMA_DATA)
    return a * x0 + b * noise


def error_scale(alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType) -> Tensor:
    """The factor (S,) that turns a squared error of a prediction type into one of eps, at mass 1.

    For one sample, eps_hat moves by s / (a sigma - b s) times what the prediction moves by: |eps - eps_hat|^2 =
    SNR |x0 - x0_hat|^2 = |v - v_hat|^2 alpha_bar, and (1 - t)^2 times the squared error of a flow, with 1 - t =
    s / (s + sigma).
    """
    snr = log_snr(alphas_cumprod, timestep)
    signal = torch.sigmoid(snr).sqrt()
    _, _, determinant = _KINDS[prediction_type].combined(signal, torch.sigmoid(-snr).sqrt(), SIGMA_DATA)
    return (signal / determinant).square()


def input_norm(
    alphas_cumprod: Tensor, timestep: Tensor, prediction_type: PredictionType, sample: Tensor
) -> Tensor | None:
    """What variance-preserving samples are divided by before a network sees them: s + sigma for a flow, else None."""
    return norm_at(prediction_type, *signal_noise(alphas_cumprod, timestep, sample.dtype, sample.ndim))


def norm_at(prediction_type: AnyPrediction, signal: Any, noise: Any, sigma_data: float = SIGMA_DATA) -> Any:
    """What samples s x0 + sigma eps are divided by before a network of this type sees them; None for a type that does
    not say.

    >>> norm_at("flow", 1.0, 0.25), norm_at("sample", 1.0, 0.25)
    (1.25, None)
    """
    norm = _KINDS[prediction_type].norm
    return None if norm is None else norm(signal, noise, sigma_data)


def is_noise(prediction_type: AnyPrediction) -> bool:
    """Whether a prediction is a multiple of the noise, so that it does not depend on how the data are shifted."""
    return _KINDS[prediction_type].is_noise


def default_gamma(prediction_type: PredictionType) -> float | None:
    """Gamma of the weights min(1, gamma / SNR) of draws that read an image: 1 for x0; None for the weight 1."""
    return _KINDS[prediction_type].gamma


def scheduled_as(prediction_type: PredictionType) -> PredictionType:
    """The type that schedulers of variance-preserving samples are asked to take: itself, or v for a flow."""
    return _KINDS[prediction_type].scheduled_as or prediction_type
