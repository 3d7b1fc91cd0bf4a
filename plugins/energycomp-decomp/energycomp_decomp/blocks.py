"""Blocks of the encoders and of the network of decomposition."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.denoisers import GroupNorm
from energycomp.errors import InputError


class CrossAttention(nn.Module):
    """Cross-attention of latents (B, K, D) to maps (B, C, h, w), initialized to an output of zero.

    >>> attention = CrossAttention(4, 8, side=2)
    >>> attention(torch.rand(1, 3, 4), torch.rand(1, 8, 2, 2)).abs().max().item()
    0.0
    """

    def __init__(self, token_width: int, channels: int, side: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Sequential(nn.Linear(token_width, channels), nn.SiLU(), nn.Linear(channels, channels))
        self.norm = GroupNorm(8, channels)
        self.place = nn.Parameter(nn.init.normal_(torch.empty(side * side, channels), std=0.3))
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        last = nn.Linear(channels, token_width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.out = nn.Sequential(nn.Linear(channels, channels), nn.SiLU(), last)

    def forward(self, latents: Tensor, maps: Tensor) -> Tensor:
        cells = self.norm(maps).flatten(2).mT + self.place
        split = (self.query(latents), self.key(cells), self.value(cells))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in split)
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        out: Tensor = self.out(attended)
        return out


class Residual(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            GroupNorm(8, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.block(h)
        return out


def convolutions(
    sample_channels: int, size: int, channels: Sequence[int], fold: int, *, last: bool = True
) -> tuple[nn.Sequential, int]:
    """Convolutions over samples whose `fold` x `fold` blocks are folded into channels, and the size of their output."""
    shrunk = fold * 2 ** (len(channels) - 1)
    check_size(size, shrunk)
    layers: list[nn.Module] = [nn.Conv2d(fold**2 * sample_channels, channels[0], 3, padding=1)]
    for wide, wider in pairwise(channels):
        layers += [Residual(wide), nn.Conv2d(wide, wider, 3, stride=2, padding=1)]
    if last:
        layers.append(Residual(channels[-1]))
    layers.append(GroupNorm(8, channels[-1]))
    return nn.Sequential(*layers), channels[-1] * (size // shrunk) ** 2


def check_size(size: int, multiple: int) -> None:
    if size < 1 or size % multiple:
        raise InputError(f"got sample_size {size}; expected a multiple of {multiple}")
