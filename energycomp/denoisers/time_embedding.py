"""What a network is told of a timestep, as in UNets of diffusers: importing theirs takes as long as loading a model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Timesteps(nn.Module):
    """Timesteps (B,) to the cosines and sines (B, width) of width / 2 frequencies from 1 to 1/10000, in float32.

    >>> Timesteps(4)(torch.tensor([0.0])).tolist()
    [[1.0, 1.0, 0.0, 0.0]]
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, timestep: Tensor) -> Tensor:
        half = self.width // 2
        exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=timestep.device) / half
        angle = timestep[:, None].float() * exponent.exp()
        return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """Two linear layers with SiLU between them, (B, width) to (B, out); their weights have the names of diffusers."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, out)
        self.act = nn.SiLU()
        self.linear_2 = nn.Linear(out, out)

    def forward(self, sinusoids: Tensor) -> Tensor:
        embedding: Tensor = self.linear_2(self.act(self.linear_1(sinusoids)))
        return embedding
