"""A decomposer in closed form that also generates scenes: stripes, without noise and steps."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.decomposition import Parts
from energycomp.models import Model
from energycomp.testing import stripes_model

SIZE = 16


def paint_stripes(colours: Tensor) -> Tensor:
    """Paints images (B, 3, H, W) of vertical stripes of colours (B, K, 3)."""
    return colours.transpose(1, 2).repeat_interleave(SIZE // colours.shape[1], 2)[:, :, None].expand(-1, -1, SIZE, -1)


class StripesPainter:
    """A decomposer whose latents are the colours of stripes."""

    parts_of_image = 4

    def encode(self, images: Any, **_: Any) -> Tensor:
        colours: Tensor = images.unflatten(3, (self.parts_of_image, -1)).mean((2, 4)).transpose(1, 2)
        return colours

    def decode(self, latents: Tensor, **_: Any) -> Tensor:
        return paint_stripes(latents).clamp(-1, 1)

    def parts(self, latents: Tensor, **_: Any) -> Parts:
        """Each stripe alone, on grey."""
        count = latents.shape[1]
        alone = torch.stack([self.decode(latents * (torch.arange(count) == k)[:, None]) for k in range(count)], dim=1)
        return Parts(alone, self.masks.expand(len(latents), -1, -1, -1), self.decode(latents))

    @property
    def masks(self) -> Tensor:
        stripe = torch.arange(SIZE) * self.parts_of_image // SIZE
        return (stripe == torch.arange(self.parts_of_image)[:, None])[:, None].expand(-1, SIZE, -1)

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        return paint_stripes(torch.rand(n, self.parts_of_image, 3, generator=generator))


def painted_model() -> Model:
    """A model without encoder that names the decomposer "painter", to be registered as a `StripesPainter`."""
    return attrs.evolve(stripes_model(), name="painted", encoder=None, encoder_name=None, decomposer_name="painter")
