"""Networks that regress places or labels: a ResNet, Slot Attention, and the padding of their places (thesis 5.6.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.denoisers import GroupNorm
from energycomp.errors import InputError

OUTPUTS = 8
EMPTY = 0.2  # an output this near to (1, 1) is none; the nearest object of the training scenes is at 0.4


def padded(values: Tensor, owner: Tensor, batch: int) -> Tensor:
    """Flat places (R, 2) of the pictures owner (R,), in ascending order, filled up with (1, 1): (batch, OUTPUTS, 2).

    >>> padded(torch.tensor([[0.2, 0.3]]), torch.tensor([1]), 2)[:, 0].tolist()
    [[1.0, 1.0], [0.20000000298023224, 0.30000001192092896]]
    """
    count = torch.bincount(owner, minlength=batch)
    if len(count) and int(count.max()) > OUTPUTS:
        raise InputError(f"got {int(count.max())} places of one picture; expected at most {OUTPUTS}, what is put out")
    rank = torch.arange(len(owner)) - (count.cumsum(0) - count)[owner]
    return values.new_ones(batch, OUTPUTS, 2).index_put((owner, rank), values)


def matched_error(predicted: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared error of outputs (B, N, 2) and padded places (B, N, 2) in their best order: a scalar.

    >>> places = torch.rand(1, 8, 2)
    >>> matched_error(places.flip(1), places).item()
    0.0
    """
    predicted = predicted.float()
    with torch.no_grad():
        cost = (predicted[:, :, None] - wanted[:, None]).square().sum(3)
    pairs = [linear_sum_assignment(c) for c in cost.cpu().numpy()]
    order = torch.stack([torch.as_tensor(columns) for _, columns in pairs])  # rows are 0, 1, ... of a square matrix
    return (predicted - wanted.gather(1, order[..., None].expand(-1, -1, 2))).square().mean()


def kept(predicted: Tensor, count: int | None = None) -> Tensor:
    """The outputs (N, 2) that are objects (K, 2).

    Args:
        count: K where it is known, at most N: the outputs farthest from (1, 1) stay.

    >>> kept(torch.tensor([[0.99, 0.98], [0.2, 0.5]])).tolist()
    [[0.20000000298023224, 0.5]]
    """
    distance = (1 - predicted).norm(dim=1)
    if count is None:
        return predicted[distance > EMPTY]
    return predicted[distance.argsort(descending=True)[:count].sort().values]


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
