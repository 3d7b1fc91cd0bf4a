"""Small networks in plain torch, each in the way of another library."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def waves(time: Tensor, width: int) -> Tensor:
    """Sinusoids (R, width) of a time of any scale up to 1000."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    angles = time.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)


class Told(nn.Module):
    """An embedding of time, scaled to what sinusoids resolve, and of the label."""

    def __init__(self, width: int, labels: int, scale: float) -> None:
        super().__init__()
        self.scale, self.width = scale, width
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(labels, width) if labels else None

    def forward(self, t: Tensor, label: Tensor | None) -> Tensor:
        told = self.time(waves(self.scale * t, self.width))
        return told if self.label is None or label is None else told + self.label(label)


class Block(nn.Module):
    """A block of a DiT (Peebles and Xie, 2023)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.modulation = nn.Linear(width, 6 * width)

    def forward(self, tokens: Tensor, told: Tensor) -> Tensor:
        a, b, c, d, e, f = self.modulation(functional.silu(told))[:, None].chunk(6, 2)
        x = self.first(tokens) * (1 + a) + b
        tokens = tokens + c * self.attention(x, x, x, need_weights=False)[0]
        return tokens + f * self.mlp(self.second(tokens) * (1 + d) + e)


class DiT(nn.Module):
    """A transformer over the 2x2 patches of grey images (1, 8, 8)."""

    def __init__(self, labels: int, scale: float = 1.0, width: int = 48, depth: int = 2) -> None:
        super().__init__()
        self.told, self.patches = Told(width, labels, scale), nn.Linear(4, width)
        self.place = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told, tokens = self.told(t, label), self.patches(functional.pixel_unshuffle(x, 2).flatten(2).mT) + self.place
        for block in self.blocks:
            tokens = block(tokens, told)
        return functional.pixel_shuffle(self.out(tokens).mT.unflatten(2, (4, 4)), 2)


class Residual(nn.Module):
    def __init__(self, width: int, told: int, dropout: float) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(2))
        self.told, self.dropout = nn.Linear(told, width), nn.Dropout(dropout)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        y = self.first(functional.silu(self.norms[0](x))) + self.told(told)[..., None, None]
        return x + self.second(self.dropout(functional.silu(self.norms[1](y))))


class UNet(nn.Module):
    """Two resolutions with a skip connection, for grey images (1, 8, 8)."""

    def __init__(self, labels: int, scale: float = 1.0, width: int = 24, dropout: float = 0.0) -> None:
        super().__init__()
        self.told, self.enter = Told(64, labels, scale), nn.Conv2d(1, width, 3, padding=1)
        self.blocks = nn.ModuleList(Residual(width, 64, dropout) for _ in range(4))
        self.down, self.up = nn.Conv2d(width, width, 3, 2, 1), nn.ConvTranspose2d(width, width, 2, 2)
        self.out = nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told = self.told(t, label)
        wide = self.blocks[0](self.enter(x), told)
        deep = self.blocks[2](self.blocks[1](self.down(wide), told), told)
        return self.out(self.blocks[3](wide + self.up(deep), told))


class MLP(nn.Module):
    """For rows of numbers."""

    def __init__(self, numbers: int, labels: int, scale: float = 1.0, width: int = 192, dropout: float = 0.0) -> None:
        super().__init__()
        self.told, self.enter, self.out = Told(64, labels, scale), nn.Linear(numbers, width), nn.Linear(width, numbers)
        self.skip = nn.Linear(64, numbers)
        self.layers = nn.ModuleList(nn.Linear(width + 64, width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told, h = self.told(t, label), self.enter(x)
        for layer in self.layers:
            h = h + self.dropout(functional.silu(layer(torch.cat([h, told], 1))))
        return self.out(h) + self.skip(told) * x


class Mixer(nn.Module):
    """Layers over the 2x2 patches of images (C, 8, 8), and over their channels (Tolstikhin et al., 2021)."""

    def __init__(self, channels: int, labels: int, scale: float = 1.0, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self.told, self.enter, self.out = (
            Told(width, labels, scale),
            nn.Linear(4 * channels, width),
            nn.Linear(width, 4 * channels),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.across = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(depth)
        )
        self.along = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told, h = self.told(t, label)[:, None], self.enter(functional.pixel_unshuffle(x, 2).flatten(2).mT)
        for first, second, across, along in zip(
            self.norms[::2], self.norms[1::2], self.across, self.along, strict=True
        ):
            h = h + across((first(h) + told).mT).mT
            h = h + along(second(h) + told)
        return functional.pixel_shuffle(self.out(h).mT.unflatten(2, (4, 4)), 2)


class Plain(nn.Module):
    """Dilated convolutions at one resolution, whose channels are scaled and moved (Perez et al., 2018)."""

    def __init__(self, channels: int, labels: int, scale: float, width: int = 32) -> None:
        super().__init__()
        self.told = Told(64, labels, scale)
        self.enter, self.out = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=n, dilation=n) for n in (1, 2, 4, 2, 1))
        self.films = nn.ModuleList(nn.Linear(64, 2 * width) for _ in self.layers)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        told, h = self.told(t, label), self.enter(x)
        for layer, film in zip(self.layers, self.films, strict=True):
            a, b = film(told)[..., None, None].chunk(2, 1)
            h = h + functional.silu(layer(h) * (1 + a) + b)
        return self.out(h)


class Row(nn.Module):
    """A transformer over the numbers of a row."""

    def __init__(self, numbers: int, labels: int, width: int = 48) -> None:
        super().__init__()
        self.told = Told(width, labels, 1.0)
        self.of, self.place = (nn.Parameter(0.3 * torch.randn(numbers, width)) for _ in range(2))
        layer = nn.TransformerEncoderLayer(width, 4, 96, batch_first=True, norm_first=True)
        self.layers, self.out = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(width, 1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        tokens = torch.cat([self.told(t, label)[:, None], x[..., None] * self.of + self.place], 1)
        return self.out(self.layers(tokens))[:, 1:, 0]
