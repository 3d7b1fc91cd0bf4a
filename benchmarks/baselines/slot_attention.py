"""Slot Attention (Locatello et al., 2020), supervised: each slot is decoded to a place."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.baselines.padding import OUTPUTS

__all__ = ["SlotAttention"]


class SlotAttention(nn.Module):
    """A CNN with a soft position embedding, slots that compete for its 16x16 cells, and an MLP from slot to place.

    The MLP moves the centre of what a slot attends to, and each slot starts from a mean of its own: without these two
    it learns no places in the steps that it has here.

    >>> SlotAttention()(torch.zeros(2, 3, 64, 64)).shape
    torch.Size([2, 8, 2])
    """

    def __init__(self, width: int = 64, slots: int = OUTPUTS, iterations: int = 3, grid: int = 16) -> None:
        super().__init__()
        self.slots, self.iterations = slots, iterations
        strides, kernels, given = (2, 2, 1, 1), (5, 5, 3, 3), 3
        layers: list[nn.Module] = []
        for stride, kernel in zip(strides, kernels, strict=True):
            layers += [nn.Conv2d(given, width, kernel, stride=stride, padding=kernel // 2), nn.ReLU()]
            given = width
        self.encoder = nn.Sequential(*layers)
        self.position = nn.Linear(4, width)
        self.register_buffer("cells", position_grid(grid), persistent=False)
        self.inputs = nn.Sequential(nn.LayerNorm(width), _mlp(width, width, width), nn.LayerNorm(width))
        self.mean, self.log_sigma = nn.Parameter(torch.randn(slots, width)), nn.Parameter(torch.zeros(slots, width) - 1)
        self.key, self.value, self.query = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.norm, self.norm_residual = nn.LayerNorm(width), nn.LayerNorm(width)
        self.update = nn.GRUCell(width, width)
        self.residual = _mlp(width, 2 * width, width)
        self.place = _mlp(width, 2 * width, 2)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Pictures (B, 3, 64, 64) to places (B, slots, 2) in [0, 1]; `generator` draws the first slots."""
        h = self.encoder(images).flatten(2).transpose(1, 2) + self.position(self.cells)  # (B, cells, width)
        h = self.inputs(h)
        keys, values = self.key(h), self.value(h)
        noise = torch.randn(len(images), self.slots, h.shape[2], generator=generator)
        slots = self.mean + self.log_sigma.exp() * noise
        for _ in range(self.iterations):
            logits = keys @ self.query(self.norm(slots)).transpose(1, 2) / h.shape[2] ** 0.5  # (B, cells, slots)
            share = logits.float().softmax(2) + 1e-8  # slots compete for a cell
            attention = (share / share.sum(1, keepdim=True)).transpose(1, 2)  # (B, slots, cells)
            taken = attention @ values.float()
            slots = self.update(taken.flatten(0, 1), slots.flatten(0, 1)).view_as(slots)
            slots = slots + self.residual(self.norm_residual(slots))
        centre = attention @ self.cells[:, :2]
        return (centre.logit(eps=1e-2) + self.place(slots).float()).sigmoid()


def position_grid(side: int) -> Tensor:
    """(x, y, 1 - x, 1 - y) of the cells of a square grid, row by row: (side^2, 4)."""
    ticks = (torch.arange(side) + 0.5) / side
    y, x = torch.cartesian_prod(ticks, ticks).unbind(1)
    return torch.stack([x, y, 1 - x, 1 - y], dim=1)


def _mlp(given: int, hidden: int, wanted: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(given, hidden), nn.ReLU(), nn.Linear(hidden, wanted))
