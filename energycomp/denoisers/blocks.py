"""Building blocks of the networks: residual blocks under an embedding, normalisation, maps of places."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Stage(nn.ModuleList):
    """Blocks one after the other under one embedding."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Maps (R, channels, h, w) under embeddings (R, width) to the same shape."""
        for block in self:
            h = block(h, embedding)
        return h


class FiLMBlock(nn.Module):
    """A residual block of two 3x3 convolutions, scaled and shifted by an embedding (Perez et al., 2018)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(8, channels), GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Maps (R, channels, h, w) under embeddings (R, width) to the same shape."""
        scale, shift = self.film(F.silu(embedding))[..., None, None].chunk(2, dim=1)
        out = self.conv1(F.silu(self.norm1(h)))
        out = self.conv2(F.silu(self.norm2(out) * (1 + scale) + shift))
        return h + out


class GroupNorm(nn.GroupNorm):
    """In the type of its weights: under autocast maps arrive in bfloat16, where a CPU norms slowly."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Maps (R, channels, h, w) to the same shape."""
        return super().forward(input.to(self.weight.dtype))


def place_maps(place: Tensor, grid: Sequence[int], widths: Sequence[float]) -> Tensor:
    """Offsets, squared distance and Gaussian bumps around places (R, 2) on a grid: (R, 3 + len(widths), h, w)."""
    h, w = grid
    v = (torch.arange(h, device=place.device, dtype=place.dtype) + 0.5) / h
    u = (torch.arange(w, device=place.device, dtype=place.dtype) + 0.5) / w
    dx = (u - place[:, :1])[:, None, :].expand(-1, h, -1)
    dy = (v - place[:, 1:])[:, :, None].expand(-1, -1, w)
    square = dx**2 + dy**2
    return torch.stack([dx, dy, square, *(torch.exp(-square / (2 * s**2)) for s in widths)], dim=1)
