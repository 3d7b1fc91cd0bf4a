"""Inner products of long rows, accumulated in float64: a Gram matrix is a difference of large sums."""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp.components import widen

SLICE = 2048  # numbers of a row widened to float64 at a time: a slice of a dictionary stays in the cache


def inner_products(left: Tensor, right: Tensor) -> Tensor:
    """Inner products (M, m) of the rows of (M, P) and (m, P)."""
    total = widen(left.new_zeros(len(left), len(right)))
    for a, b in zip(left.split(SLICE, 1), right.split(SLICE, 1), strict=True):
        total.addmm_(widen(a), widen(b).T)
    return total


def squared_norms(rows: Tensor) -> Tensor:
    """Squared norms (M,) of rows (M, P)."""
    return torch.stack([widen(part).square().sum(1) for part in rows.split(SLICE, 1)]).sum(0)
