"""How well a scene was read: functions, and torchmetrics around them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics import Metric

from energycomp.errors import InputError

__all__ = [
    "CountAccuracy",
    "EstimationError",
    "MaskIoU",
    "MaskRecall",
    "PerceptionRate",
    "Precision",
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


def match_masks(found: Tensor, true: Tensor) -> Tensor:
    """Intersection over union (K,) of each true mask with the found one that it is matched to, 0 without one.

    The Hungarian algorithm over all pairs takes the matching of the greatest sum.

    Args:
        found: (K', H, W), bool.
        true: (K, H, W), bool.

    >>> left = torch.tensor([[True, True, False, False]])
    >>> match_masks(torch.stack([left.flip(1), left]), torch.stack([torch.tensor([[True, False, False, False]])]))
    tensor([0.5000])
    """
    if found.ndim != 3 or true.ndim != 3 or (len(found) and len(true) and found.shape[1:] != true.shape[1:]):
        raise InputError(f"got masks {tuple(found.shape)} and {tuple(true.shape)}; expected (K', H, W) and (K, H, W)")
    iou = torch.zeros(len(true))
    if len(found) and len(true):
        f, t = found.bool().flatten(1).float(), true.bool().flatten(1).float()
        shared = f @ t.T
        pairs = shared / (f.sum(1)[:, None] + t.sum(1) - shared).clamp(min=1)
        rows, columns = linear_sum_assignment(pairs.cpu().numpy(), maximize=True)
        iou[torch.as_tensor(columns)] = pairs[torch.as_tensor(rows), torch.as_tensor(columns)].cpu()
    return iou


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


class MaskIoU(Metric):
    """Mean intersection over union of the true objects with the parts they are matched to, over all pictures.

    >>> iou = MaskIoU()
    >>> whole = torch.ones(1, 2, 2, dtype=torch.bool)
    >>> iou.update([whole], [torch.cat([whole, whole])])
    >>> iou.compute().item()
    0.5
    """

    full_state_update = False
    higher_is_better = True
    hits: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("hits", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
        """Adds pictures: found (K', H, W) and true (K, H, W) masks of each."""
        for f, t in zip(found, true, strict=True):
            self.hits += self.scored(match_masks(f, t)).double().sum()
            self.total += len(t)

    def scored(self, iou: Tensor) -> Tensor:
        """What each true object counts, (K,)."""
        return iou

    def compute(self) -> Tensor:
        """In [0, 1]; NaN without true objects."""
        return self.hits / self.total


class MaskRecall(MaskIoU):
    """True objects matched at an intersection over union of 0.5 or more, over all true objects of all pictures.

    >>> recall = MaskRecall()
    >>> whole = torch.ones(1, 2, 2, dtype=torch.bool)
    >>> recall.update([whole], [torch.cat([whole, whole])])
    >>> recall.compute().item()
    0.5
    """

    threshold = 0.5

    def scored(self, iou: Tensor) -> Tensor:
        """1 for an object that is found."""
        return iou >= self.threshold
