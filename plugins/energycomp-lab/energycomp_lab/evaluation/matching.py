"""The matching of inferred values with true ones, without torchmetrics, whose import takes seconds."""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp.errors import InputError

FOUND_WITHIN = 0.002  # mean squared difference below which an object counts as found (thesis 5.4.1)


def match(found: Tensor, true: Tensor) -> Tensor:
    """Mean squared differences (min(K, K'),) of the matched values; the matching has the least sum over all pairs.

    Values are (K', D) and (K, D).

    >>> match(torch.tensor([[0.5, 0.5], [0.0, 0.0]]), torch.tensor([[0.1, 0.0]]))
    tensor([0.0050])
    """
    cost = _differences(found, true)
    return cost[_assign(cost)]


def near_pairs(found: Tensor, true: Tensor, within: float = FOUND_WITHIN) -> tuple[Tensor, Tensor]:
    """Which found values are which true ones: the rows (M,) of both, of as many near pairs as possible.

    Of several matchings of as many pairs it is the one with the least sum.

    Args:
        within: the mean squared difference below which a pair is near.

    >>> rows, columns = near_pairs(torch.tensor([[0.5, 0.5], [0.0, 0.0]]), torch.tensor([[0.01, 0.0], [0.9, 0.9]]))
    >>> rows.tolist(), columns.tolist()
    ([1], [0])
    """
    cost = _differences(found, true)
    # One more near pair outweighs the differences of all others; far pairs cost nothing, so they pull at no near one
    near = cost < within
    rows, columns = _assign(torch.where(near, cost.double() - within * (1 + min(cost.shape)), 0.0))
    near = near[rows, columns]
    return rows[near], columns[near]


def _differences(found: Tensor, true: Tensor) -> Tensor:
    """Mean squared differences (K', K) of all pairs."""
    if found.ndim != 2 or true.ndim != 2 or found.shape[1] != true.shape[1]:
        raise InputError(f"got values {tuple(found.shape)} and {tuple(true.shape)}; expected (K', D) and (K, D)")
    if not bool(found.isfinite().all() and true.isfinite().all()):
        raise InputError("got found or true values that are not finite; expected numbers; leave such images out")
    return (found[:, None] - true[None]).square().mean(2)


def _assign(cost: Tensor) -> tuple[Tensor, Tensor]:
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
    return torch.as_tensor(rows, dtype=torch.long), torch.as_tensor(columns, dtype=torch.long)
