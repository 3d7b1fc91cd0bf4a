"""The padding protocol of thesis 5.6.5: a fixed number of outputs, those without an object at (1, 1)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from energycomp.errors import InputError

__all__ = ["OUTPUTS", "kept", "matched_error", "padded"]

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
