"""A small residual network with outputs in [0, 1]: places of all objects, or whether attributes hold."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.denoisers import GroupNorm

__all__ = ["ResNet"]


class ResNet(nn.Module):
    """Four stages of basic blocks (He et al., 2016) over 64x64 pictures, then one linear layer and a sigmoid.

    The last 4x4 map is flattened and not averaged: averages lose places.

    Args:
        outputs: the shape of what it puts out.
        channels: of each stage.
        blocks: of each stage.

    >>> ResNet((8, 2))(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 8, 2])
    """

    def __init__(self, outputs: Sequence[int], channels: Sequence[int] = (32, 64, 128, 256), blocks: int = 1) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.stem = nn.Sequential(nn.Conv2d(3, channels[0], 5, stride=2, padding=2), nn.ReLU())
        layers: list[nn.Module] = []
        width = channels[0]
        for level, wanted in enumerate(channels):
            for block in range(blocks):
                layers.append(BasicBlock(width, wanted, stride=2 if level and not block else 1))
                width = wanted
        self.stages = nn.Sequential(*layers)
        self.out = nn.Linear(width * 16, math.prod(self.outputs))

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:  # noqa: ARG002 - needs none
        """Pictures (B, 3, 64, 64) to (B, *outputs) in [0, 1]."""
        h = self.stages(self.stem(images)).flatten(1)
        return self.out(h).float().sigmoid().view(-1, *self.outputs)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a short cut; GroupNorm, since averaged weights have no batch statistics."""

    def __init__(self, given: int, wanted: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, wanted, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(wanted, wanted, 3, padding=1, bias=False)
        self.norm1, self.norm2 = GroupNorm(8, wanted), GroupNorm(8, wanted)
        same = stride == 1 and given == wanted
        self.short = nn.Identity() if same else nn.Conv2d(given, wanted, 1, stride=stride, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """Maps (B, given, h, w) to (B, wanted, h / stride, w / stride)."""
        out = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(h)))))
        return F.relu(out + self.short(h))
