"""Metrics of masks: functions, and torchmetrics that average them over images."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from energycomp.errors import InputError
from energycomp_lab.evaluation.scene_metrics import ImageMean


def match_masks(found: Tensor, true: Tensor) -> Tensor:
    """Intersection over union (K,) of each true mask with its matched found mask; 0 for a true mask without a match.

    The matching has the greatest sum over all pairs (Hungarian algorithm). Masks are (K', H, W) and (K, H, W), bool.

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
    """Adjusted Rand index (Hubert and Arabie, 1985) of the pixels of objects, a float64 scalar, at most 1.

    It is 1 where two pixels lie in the same part if and only if they lie in the same object, and about 0 for random
    parts. Pixels outside of all objects are left out (the foreground ARI of Greff et al., 2019). It is NaN without
    pixels of objects. Masks are (K', H, W) and (K, H, W), bool. A pixel of several masks belongs to the first, and the
    pixels of no found mask form one more part.

    >>> true = torch.tensor([[[True, True, False, False, False]], [[False, False, True, True, False]]])
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
    # Ordered pairs of pixels that lie together: in both partitions, in the same part, in the same object.
    both, by_part, by_object = (counts.square().sum() - count for counts in (table, table.sum(1), table.sum(0)))
    if by_part == both == by_object:
        return torch.ones((), dtype=torch.float64)  # the formula is 0 / 0 where all pixels, or none, lie together
    chance = by_part * by_object / (count * (count - 1))
    return (both - chance) / ((by_part + by_object) / 2 - chance)


def _first(masks: Tensor) -> Tensor:
    """The index of the first of masks (K, N) that holds a pixel, (N,); K where none does."""
    return torch.cat([masks, masks.new_ones(1, masks.shape[1])]).int().argmax(0)


def _check(found: Tensor, true: Tensor) -> None:
    if found.ndim != 3 or true.ndim != 3 or (len(found) and len(true) and found.shape[1:] != true.shape[1:]):
        raise InputError(f"got masks {tuple(found.shape)} and {tuple(true.shape)}; expected (K', H, W) and (K, H, W)")


class MaskIoU(ImageMean):
    """Mean intersection over union of the true objects with their matched parts, over all objects of all images.

    >>> iou = MaskIoU()
    >>> whole = torch.ones(1, 2, 2, dtype=torch.bool)
    >>> iou.update([whole], [torch.cat([whole, whole])])
    >>> iou.compute().item()
    0.5
    """

    def score(self, found: Tensor, true: Tensor) -> Tensor:
        return match_masks(found, true)


class MaskRecall(ImageMean):
    """True objects matched at an intersection over union of 0.5 or more, over all true objects of all images."""

    least_iou = 0.5

    def score(self, found: Tensor, true: Tensor) -> Tensor:
        return match_masks(found, true) >= self.least_iou


class ForegroundARI(ImageMean):
    """Mean of `adjusted_rand_index` over the images with at least one pixel of an object."""

    def score(self, found: Tensor, true: Tensor) -> Tensor:
        index = adjusted_rand_index(found, true)[None]
        return index[~index.isnan()]


class SlotsUsed(ImageMean):
    """Mean number of found masks that hold at least 1 % of the pixels, over all images."""

    higher_is_better = None
    share = 0.01

    def score(self, found: Tensor, true: Tensor) -> Tensor:
        _check(found, true)
        return (found.bool().flatten(1).double().mean(1) >= self.share).sum()[None] if len(found) else torch.zeros(1)
