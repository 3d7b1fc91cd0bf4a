"""How well the parts of pictures cover their objects: functions of masks, and torchmetrics around them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics import Metric

from energycomp.errors import InputError

__all__ = ["ForegroundARI", "MaskIoU", "MaskRecall", "SlotsUsed", "adjusted_rand_index", "match_masks"]


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
    _check(found, true)
    iou = torch.zeros(len(true))
    if len(found) and len(true):
        f, t = found.bool().flatten(1).float(), true.bool().flatten(1).float()
        shared = f @ t.T
        pairs = shared / (f.sum(1)[:, None] + t.sum(1) - shared).clamp(min=1)
        rows, columns = linear_sum_assignment(pairs.cpu().numpy(), maximize=True)
        iou[torch.as_tensor(columns)] = pairs[torch.as_tensor(rows), torch.as_tensor(columns)].cpu()
    return iou


def adjusted_rand_index(found: Tensor, true: Tensor) -> Tensor:
    """Adjusted Rand index (Hubert and Arabie, 1985) of the pixels that objects cover, a float64 scalar, at most 1.

    1 where two such pixels lie in one part if and only if they lie in one object, about 0 for parts at random. Pixels
    of no object are left out (the foreground index of Greff et al., 2019). NaN where there are none but those.

    Args:
        found: (K', H, W), bool; a pixel of several belongs to the first, and the pixels of none are one part more.
        true: (K, H, W), bool; a pixel of several belongs to the first.

    >>> true = torch.tensor([[[True, True, False, False, False]], [[False, False, True, True, False]]])
    >>> adjusted_rand_index(true.flip(0), true).item()
    1.0
    >>> adjusted_rand_index(true.any(0, keepdim=True), true).item()
    0.0
    """
    _check(found, true)
    covered = true.bool().flatten(1).cpu()
    foreground = covered.any(0)
    count = int(foreground.sum())
    if not count:
        return torch.full((), torch.nan, dtype=torch.float64)
    parts = found.bool().flatten(1).cpu()[:, foreground] if len(found) else torch.zeros(0, count, dtype=torch.bool)
    pairs = _first(parts) * len(true) + _first(covered[:, foreground])
    table = pairs.bincount(minlength=(len(found) + 1) * len(true)).view(-1, len(true)).double()
    # Ordered pairs of pixels that lie together: in both partitions, in one part, in one object.
    both, by_part, by_object = (counts.square().sum() - count for counts in (table, table.sum(1), table.sum(0)))
    if by_part == both == by_object:
        return torch.ones((), dtype=torch.float64)  # where all lie together, or none do, the formula is 0 / 0
    chance = by_part * by_object / (count * (count - 1))
    return (both - chance) / ((by_part + by_object) / 2 - chance)


def _first(masks: Tensor) -> Tensor:
    """The index of the first of masks (K, N) that holds a pixel, (N,); K where none does."""
    return torch.cat([masks, masks.new_ones(1, masks.shape[1])]).int().argmax(0)


def _check(found: Tensor, true: Tensor) -> None:
    if found.ndim != 3 or true.ndim != 3 or (len(found) and len(true) and found.shape[1:] != true.shape[1:]):
        raise InputError(f"got masks {tuple(found.shape)} and {tuple(true.shape)}; expected (K', H, W) and (K, H, W)")


class _Mean(Metric):
    """A mean over all pictures; what of a picture is averaged is the subclass' one line."""

    full_state_update = False
    higher_is_better: bool | None = True
    hits: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("hits", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
        """Adds pictures: found (K', H, W) and true (K, H, W) masks of each."""
        for f, t in zip(found, true, strict=True):
            scored = self.scored(f, t)
            self.hits += scored.double().sum()
            self.total += len(scored)

    @abstractmethod
    def scored(self, found: Tensor, true: Tensor) -> Tensor:
        """The numbers (N,) that a picture adds to the mean."""

    def compute(self) -> Tensor:
        """NaN where no picture added a number."""
        return self.hits / self.total


class MaskIoU(_Mean):
    """Mean intersection over union of the true objects with the parts they are matched to, over all pictures.

    >>> iou = MaskIoU()
    >>> whole = torch.ones(1, 2, 2, dtype=torch.bool)
    >>> iou.update([whole], [torch.cat([whole, whole])])
    >>> iou.compute().item()
    0.5
    """

    def scored(self, found: Tensor, true: Tensor) -> Tensor:
        """In [0, 1], of each object."""
        return match_masks(found, true)


class MaskRecall(_Mean):
    """True objects matched at an intersection over union of 0.5 or more, over all true objects of all pictures.

    >>> recall = MaskRecall()
    >>> whole = torch.ones(1, 2, 2, dtype=torch.bool)
    >>> recall.update([whole], [torch.cat([whole, whole])])
    >>> recall.compute().item()
    0.5
    """

    threshold = 0.5

    def scored(self, found: Tensor, true: Tensor) -> Tensor:
        """1 for an object that is found."""
        return match_masks(found, true) >= self.threshold


class ForegroundARI(_Mean):
    """Mean of `adjusted_rand_index` over the pictures with at least one pixel of an object.

    >>> index = ForegroundARI()
    >>> top = torch.tensor([[True, True], [False, False]])
    >>> objects = torch.stack([top, ~top])
    >>> index.update([objects, objects[:0]], [objects, objects])
    >>> index.compute().item()
    0.5
    """

    def scored(self, found: Tensor, true: Tensor) -> Tensor:
        """At most 1."""
        index = adjusted_rand_index(found, true)[None]
        return index[~index.isnan()]


class SlotsUsed(_Mean):
    """Mean number of found masks that hold at least 1 % of the pixels, over all pictures.

    >>> used = SlotsUsed()
    >>> whole = torch.ones(1, 2, 2, dtype=torch.bool)
    >>> used.update([torch.cat([whole, whole, ~whole])], [whole])
    >>> used.compute().item()
    2.0
    """

    higher_is_better = None
    share = 0.01

    def scored(self, found: Tensor, true: Tensor) -> Tensor:
        """One number, whatever the objects are."""
        _check(found, true)
        return (found.bool().flatten(1).double().mean(1) >= self.share).sum()[None] if len(found) else torch.zeros(1)
