"""Models in closed form that decompose images of vertical stripes exactly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from energycomp.components.condition import Condition
from energycomp.components.conditioning import Latents
from energycomp.components.rules import Rule, identifies_null
from energycomp.models.model import Model
from energycomp.testing.models import BACKGROUND, SIZE, built


class StripesEncoder(nn.Module):
    """Maps images of vertical stripes to latents (B, K, 4): the index of a stripe, and its colour minus `BACKGROUND`.

    >>> StripesEncoder(parts=2)(torch.full((1, 3, 16, 16), 0.8)).shape
    torch.Size([1, 2, 4])
    """

    def __init__(self, *, parts: int = 4, sample_channels: int = 3, sample_size: int = SIZE) -> None:
        super().__init__()
        self.config = {"parts": parts, "sample_channels": sample_channels, "sample_size": sample_size}
        self.parts = parts
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, samples: Tensor) -> Tensor:
        colour = samples.unflatten(3, (self.parts, -1)).mean((2, 4)).transpose(1, 2) - BACKGROUND
        index = torch.arange(self.parts, device=samples.device, dtype=samples.dtype)
        return torch.cat([index.expand(len(samples), -1)[..., None], colour], dim=2) * self.scale


class Stripes(nn.Module):
    """The decoder of `StripesEncoder`: a latent paints its stripe on `BACKGROUND`.

    With a `leak`, the colour also depends on the noised sample, so that the prediction changes along a chain.
    """

    def __init__(self, *, parts: int = 4, leak: float = 0.0) -> None:
        super().__init__()
        self.config = {"parts": parts, "leak": leak}
        self.parts, self.leak = parts, leak
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor]:
        """The sample, scaled by the leak, which decreases with the timestep."""
        return (self.leak * sample / (1 + timestep[:, None, None, None] / 100),)

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        sample, token = features[0][owner], condition.rows[:, 0]
        stripe = torch.arange(sample.shape[3], device=sample.device) * self.parts // sample.shape[3]
        mine = (stripe == token[:, :1].round())[:, None, None] & ~condition.null[:, None, None, None]
        return BACKGROUND + mine * (token[:, 1:, None, None] + sample) * self.scale


def stripes_model(*, parts: int = 4, rule: Rule = "product", leak: float = 0.0) -> Model:
    """A model that decomposes images of vertical stripes exactly if `leak` is 0.

    >>> model = stripes_model(parts=2)
    >>> model.encoder(torch.full((1, 3, 16, 16), 0.8)).shape
    torch.Size([1, 2, 4])
    """
    return built(
        Stripes(parts=parts, leak=leak),
        Latents(4),
        rule,
        "sample",
        {"num_inference_steps": 10},
        name="stripes",
        null_trained=identifies_null(rule),
        conditioner_name="latents",
        encoder=StripesEncoder(parts=parts),
        encoder_name="stripes",
    )
