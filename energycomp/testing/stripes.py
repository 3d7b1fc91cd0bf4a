"""Models in closed form that decompose images of vertical stripes exactly."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor, nn

from energycomp.components.condition import Condition
from energycomp.components.conditioning import Latents
from energycomp.components.rules import Rule, identifies_null
from energycomp.components.space import cosine_schedule
from energycomp.decomposition.decomposer import Parts
from energycomp.denoisers.denoiser import Denoiser
from energycomp.images import ImageProcessor
from energycomp.models.defaults import Defaults
from energycomp.models.model import Model
from energycomp.testing.models import BACKGROUND, SIZE


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
        """Latents (B, K, 4)."""
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
        """Predictions (R, 3, H, W)."""
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
    denoiser = Denoiser(
        network=Stripes(parts=parts, leak=leak),
        alphas_cumprod=cosine_schedule(),
        prediction_type="sample",
        rule=rule,
        sample_shape=(3, SIZE, SIZE),
        token_shape=(1, 4),
        null_trained=identifies_null(rule),
    )
    return Model(
        name="stripes",
        denoiser=denoiser,
        conditioner=Latents(4),
        processor=ImageProcessor(size=(SIZE, SIZE)),
        network_name="stripes",
        conditioner_name="latents",
        defaults=Defaults(num_inference_steps=10),
        encoder=StripesEncoder(parts=parts),
        encoder_name="stripes",
    )


def striped(colours: Tensor) -> Tensor:
    """Images (B, 3, H, W) of vertical stripes of colours (B, K, 3).

    >>> striped(torch.rand(2, 4, 3)).shape
    torch.Size([2, 3, 16, 16])
    """
    return colours.transpose(1, 2).repeat_interleave(SIZE // colours.shape[1], 2)[:, :, None].expand(-1, -1, SIZE, -1)


class StripesPainter:
    """A decomposer without noise and steps, which also generates scenes: a latent is the colour of a stripe."""

    parts_of_image = 4

    def encode(self, images: Any, **_: Any) -> Tensor:
        """Colours (B, 4, 3)."""
        colours: Tensor = images.unflatten(3, (self.parts_of_image, -1)).mean((2, 4)).transpose(1, 2)
        return colours

    def decode(self, latents: Tensor, **_: Any) -> Tensor:
        """Images (B, 3, H, W)."""
        return striped(latents).clamp(-1, 1)

    def parts(self, latents: Tensor, **_: Any) -> Parts:
        """Each stripe alone, on grey."""
        count = latents.shape[1]
        alone = torch.stack([self.decode(latents * (torch.arange(count) == k)[:, None]) for k in range(count)], dim=1)
        return Parts(alone, self.masks.expand(len(latents), -1, -1, -1), self.decode(latents))

    @property
    def masks(self) -> Tensor:
        """The pixels of each stripe, (4, H, W)."""
        stripe = torch.arange(SIZE) * self.parts_of_image // SIZE
        return (stripe == torch.arange(self.parts_of_image)[:, None])[:, None].expand(-1, SIZE, -1)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Images of random stripes."""
        return striped(torch.rand(n, self.parts_of_image, 3, generator=generator))


def painted_model() -> Model:
    """A model without encoder that names the decomposer "painter", to be registered as a `StripesPainter`."""
    return attrs.evolve(stripes_model(), name="painted", encoder=None, encoder_name=None, decomposer_name="painter")
