"""How well a scene was read: functions, and torchmetrics around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics import Metric

from energycomp.errors import InputError
from energycomp.evaluation.mask_metrics import (
    ForegroundARI,
    MaskIoU,
    MaskRecall,
    SlotsUsed,
    adjusted_rand_index,
    match_masks,
)

__all__ = [
    "CountAccuracy",
    "EstimationError",
    "ForegroundARI",
    "MaskIoU",
    "MaskRecall",
    "PerceptionRate",
    "Precision",
    "SlotsUsed",
    "adjusted_rand_index",
    "match",
    "match_masks",
]

THRESHOLD = 0.002


def match(found: Tensor, true: Tensor) -> Tensor:
    """Mean squared differences of optimally matched values (min(K, K'),): the Hungarian algorithm over all pairs.

    Args:
        found: (K', D).
        true: (K, D).

    >>> match(torch.tensor([[0.5, 0.5], [0.0, 0.0]]), torch.tensor([[0.1, 0.0]]))
    tensor([0.0050])
    """
    if found.ndim != 2 or true.ndim != 2 or found.shape[1] != true.shape[1]:
        raise InputError(f"got values {tuple(found.shape)} and {tuple(true.shape)}; expected (K', D) and (K, D)")
    cost = (found[:, None] - true[None]).square().mean(2)
    rows, columns = linear_sum_assignment(cost.detach().cpu().numpy())
    return cost[torch.as_tensor(rows, dtype=torch.long), torch.as_tensor(columns, dtype=torch.long)]


class _Matched(Metric):
    """Sums over the matched pairs of all pictures; what is divided by what is the subclass' one line."""

    full_state_update = False
    found_count: Tensor
    true_count: Tensor
    hits: Tensor
    pairs: Tensor
    error: Tensor

    def __init__(self, threshold: float = THRESHOLD) -> None:
        super().__init__()
        self.threshold = threshold
        for name in ("found_count", "true_count", "hits", "pairs", "error"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
        """Adds pictures: found (K', D) and true (K, D) values of each."""
        for f, t in zip(found, true, strict=True):
            errors = match(f, t)
            self.found_count += len(f)
            self.true_count += len(t)
            self.pairs += len(errors)
            self.hits += (errors < self.threshold).sum()
            self.error += errors.double().sum()


class PerceptionRate(_Matched):
    """True objects matched within the threshold, over all true objects of all pictures (thesis 5.4.1).

    >>> rate = PerceptionRate()
    >>> rate.update([torch.tensor([[0.5, 0.5]])], [torch.tensor([[0.51, 0.5], [0.1, 0.1]])])
    >>> rate.compute().item()
    0.5
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """In [0, 1]; NaN without true objects."""
        return self.hits / self.true_count


class Precision(_Matched):
    """Found objects matched within the threshold, over all found objects."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """In [0, 1]; NaN where nothing was found."""
        return self.hits / self.found_count


class EstimationError(_Matched):
    """Mean of (dx^2 + dy^2) / 2 over all matched pairs (thesis 5.4.1)."""

    higher_is_better = False

    def compute(self) -> Tensor:
        """At least 0; NaN without pairs."""
        return self.error / self.pairs


class CountAccuracy(Metric):
    """Pictures whose number of objects is right, over all pictures.

    >>> accuracy = CountAccuracy()
    >>> accuracy.update([torch.zeros(2, 2), torch.zeros(1, 2)], [torch.zeros(2, 2), torch.zeros(3, 2)])
    >>> accuracy.compute().item()
    0.5
    """

    full_state_update = False
    higher_is_better = True
    right: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
        """Adds pictures: found (K', D) and true (K, D) values of each."""
        for f, t in zip(found, true, strict=True):
            self.right += len(f) == len(t)
            self.total += 1

    def compute(self) -> Tensor:
        """In [0, 1]."""
        return self.right / self.total
