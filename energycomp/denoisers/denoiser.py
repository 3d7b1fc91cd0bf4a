"""Denoiser: a network with its noise schedule, prediction type, rule and sample space. Data: it calls nothing."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, Literal, Protocol

import attrs
import torch
from torch import Tensor, nn

from energycomp.components.component import Conditional, Rule
from energycomp.components.conditioning import Condition
from energycomp.errors import CompositionError, InputError

__all__ = ["Codec", "Denoiser", "PredictionType", "convert", "log_snr", "signal_noise"]

PredictionType = Literal["epsilon", "sample", "v_prediction"]

MAX_NUMBERS = 100_000_000  # in a sample or a condition row: beyond any that memory is taken for


class Codec(Protocol):
    """Images to the latents that are diffused, and back (a diffusers VAE: `energycomp.models.VAECodec`)."""

    @property
    def identity(self) -> str:
        """Latents of codecs of the same identity can be composed."""
        ...

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, h, w)."""
        ...

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to the posterior mean of their scaled latents (B, C, h, w)."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) to images (B, 3, H, W)."""
        ...

    def config(self) -> dict[str, Any]:
        """Where the codec comes from, as JSON."""
        ...


def _check_shape(_: Any, attribute: Any, value: Any) -> None:
    dimensions = {"sample_shape": "(C, H, W)", "token_shape": "(L, D)"}[attribute.name]
    legal = isinstance(value, tuple) and len(value) == dimensions.count(",") + 1
    if not legal or not all(type(n) is int and n >= 1 for n in value) or math.prod(value) > MAX_NUMBERS:
        raise InputError(
            f"got {attribute.name} {value!r}; expected {dimensions}, positive integers whose product is at most "
            f"{MAX_NUMBERS:,}; take it from the network"
        )


@attrs.define(eq=False, frozen=True, slots=False)
class Denoiser:
    """What a leaf is evaluated with.

    Args:
        network: an `energycomp.denoisers.Network` or `TwoStage` module.
        alphas_cumprod: the noise schedule, shape (T,), falling, in (0, 1).
        prediction_type: what the network predicts: "epsilon", "sample" (x0) or "v_prediction".
        rule: the rule under which it was trained to be composed; "sum" goes with "epsilon" only.
        sample_shape: (C, H, W) of one sample.
        token_shape: (L, D) of one condition row.
        null_trained: whether the unconditional row was trained; without it `&`, `~` and guidance raise.
        codec: of latents; pixels when left out.

    Raises:
        InputError: when the schedule, the rule or a shape cannot be.
    """

    network: nn.Module
    alphas_cumprod: Tensor = attrs.field()
    prediction_type: PredictionType = attrs.field(validator=attrs.validators.in_(("epsilon", "sample", "v_prediction")))
    rule: Rule = attrs.field(validator=attrs.validators.in_(("sum", "mean", "product")))
    sample_shape: tuple[int, int, int] = attrs.field(validator=_check_shape)
    token_shape: tuple[int, int] = attrs.field(validator=_check_shape)
    null_trained: bool = attrs.field(default=True, validator=attrs.validators.instance_of(bool))
    codec: Codec | None = None

    @alphas_cumprod.validator
    def _check_schedule(self, _: Any, value: Tensor) -> None:
        good = value.ndim == 1 and len(value) > 1 and bool(((value > 0) & (value < 1)).all())
        if not good or not bool((value.diff() <= 0).all()):
            between = f" between {value.min():g} and {value.max():g}" if value.numel() else ""
            raise InputError(
                f"got alphas_cumprod of shape {tuple(value.shape)}{between}; "
                "expected (T,) falling values inside (0, 1); take them from a diffusers scheduler"
            )

    @rule.validator
    def _check_rule(self, _: Any, value: Rule) -> None:
        if value == "sum" and self.prediction_type != "epsilon":
            raise InputError(
                f"got rule 'sum' with prediction type {self.prediction_type!r}; expected 'epsilon', since a sum of "
                "x0 or v predictions is none; use the rule 'mean' or 'product'"
            )

    @property
    def space(self) -> str:
        """The identity of the codec, or "pixels"."""
        return "pixels" if self.codec is None else self.codec.identity

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    @cached_property
    def unconditional(self) -> Conditional:
        """The one unconditional leaf of this denoiser, so that it merges and cancels in sums."""
        if not self.null_trained:
            raise CompositionError(
                "got `&`, `~` or guidance on a denoiser that never trained its unconditional row; expected "
                "null_trained; compose with `+`, or train with the empty composition among the examples"
            )
        null = Condition.unconditional(*self.token_shape, device=self.device)
        return Conditional(self, null, name="u")

    def to(self, device: torch.device | str) -> Denoiser:
        """A denoiser on that device (the network is moved in place)."""
        return attrs.evolve(self, network=self.network.to(device), alphas_cumprod=self.alphas_cumprod.to(device))


def log_snr(alphas_cumprod: Tensor, timestep: Tensor) -> Tensor:
    """log(alpha_bar / (1 - alpha_bar)) at real timesteps in [0, T], interpolated linearly, in float64.

    >>> alphas = torch.tensor([0.9, 0.5, 0.1])
    >>> torch.sigmoid(log_snr(alphas, torch.tensor([1.0]))).item()
    0.5
    """
    table = torch.logit(alphas_cumprod.to(device=timestep.device, dtype=torch.float64))
    t = timestep.to(torch.float64).clamp(0, len(table) - 1)
    low = t.floor().long().clamp(max=len(table) - 2)
    return torch.lerp(table[low], table[low + 1], t - low)


def signal_noise(alphas_cumprod: Tensor, timestep: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar) at timesteps (B,), each (B, 1, 1, 1)."""
    snr = log_snr(alphas_cumprod, timestep)[:, None, None, None]
    return torch.sigmoid(snr).sqrt().to(dtype), torch.sigmoid(-snr).sqrt().to(dtype)


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
