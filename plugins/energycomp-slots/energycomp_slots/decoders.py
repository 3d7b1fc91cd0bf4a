"""Decoders: slots to images and masks, and global latents to feature maps (section 3.6.3 of Wang, 2026)."""

from __future__ import annotations

import math
from itertools import pairwise

import attrs
import torch
from torch import Tensor, nn


@attrs.frozen(eq=False)
class Drawn:
    """Decoded slots: images (B, K, 3, H, W), approximately in [-1, 1], and log masks (B, K, 1, H, W)."""

    images: Tensor
    log_masks: Tensor

    @property
    def whole(self) -> Tensor:
        """The mixture of all slots, (B, 3, H, W) (eq. 3.3 of Wang, 2026)."""
        return (self.log_masks.exp() * self.images).sum(1)


class SlotDecoder(nn.Module):
    """Slots to images and masks: broadcast to 8x8 with positions, then convolutions."""

    def __init__(self, sample_size: int, width: int, channels: int, *, shuffle: bool) -> None:
        super().__init__()
        grid = min(8, sample_size // 2)
        doublings = int(math.log2(sample_size // grid))
        self.place = nn.Linear(4, width)
        layers: list[nn.Module] = []
        if shuffle:
            layers += [nn.Conv2d(width, channels, 3, padding=1), nn.ReLU()]
            for _ in range(doublings - 1):
                layers += [nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 16, 3, padding=1)]
            layers += [nn.PixelShuffle(2)]
        else:
            sizes = (width, *(channels for _ in range(doublings)))
            for a, b in pairwise(sizes):
                layers += [nn.ConvTranspose2d(a, b, 5, stride=2, padding=2, output_padding=1), nn.ReLU()]
            layers += [nn.Conv2d(sizes[-1], 4, 3, padding=1)]
        self.layers = nn.Sequential(*layers)
        self.side = grid
        self.register_buffer("grid", places(grid), persistent=False)

    def forward(self, latents: Tensor) -> Drawn:
        batch, count, width = latents.shape
        placed = self.place(self.grid).t().view(1, width, self.side, self.side)
        x = latents.reshape(batch * count, width, 1, 1) + placed
        made = self.layers(x.contiguous(memory_format=torch.channels_last)).unflatten(0, (batch, count))
        return Drawn(made[:, :, :3], made[:, :, 3:].log_softmax(dim=1))


class Deconvolutions(nn.Module):
    """A global latent to a feature map."""

    def __init__(self, side: int, width: int, channels: int, hidden: int) -> None:
        super().__init__()
        self.start = max(side // 4 if side <= 32 else 8, 1)
        self.hidden = 2 * channels
        self.enter = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, self.hidden * self.start**2), nn.ReLU()
        )
        layers: list[nn.Module] = []
        for _ in range(int(math.log2(side // self.start))):
            layers += [nn.ConvTranspose2d(self.hidden, self.hidden, 4, stride=2, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(self.hidden, channels, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z_g: Tensor) -> Tensor:
        x = self.enter(z_g).unflatten(1, (self.hidden, self.start, self.start))
        made: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return made


def places(side: int) -> Tensor:
    """x, y, 1 - x, 1 - y of the cells of a grid, (side * side, 4)."""
    axis = (torch.arange(side) + 0.5) / side
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([u, v, 1 - u, 1 - v], dim=2).flatten(0, 1)
