"""Metrics of the attributes of found objects, such as shape and colour, and of how sure the reading is of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from energycomp.components import MixedConditioner
from energycomp_lab.evaluation.scene_metrics import near_pairs

BINS = 10


def attribute_metrics(conditioner: MixedConditioner) -> MetricCollection:
    """The accuracy and the calibration error of each attribute, and how often all attributes are right.

    >>> from energycomp.testing import TintedSquare
    >>> sorted(attribute_metrics(TintedSquare()))[:3]
    ['all_attributes', 'tint_accuracy', 'tint_calibration_error']
    """
    numbers, names = conditioner.support.length, list(conditioner.attributes)
    found: dict[str, Metric | MetricCollection] = {}
    for k, name in enumerate(names):
        found[f"{name}_accuracy"] = AttributeAccuracy(numbers, [k])
        found[f"{name}_calibration_error"] = AttributeCalibration(numbers, k)
    found["all_attributes"] = AttributeAccuracy(numbers, range(len(names)))
    return MetricCollection(found, compute_groups=False)


class AttributeAccuracy(Metric):
    """Found objects whose attributes are right, over all objects that were found (see `near_pairs`).

    Args:
        numbers: D, how many numbers of a value are the place.
        attributes: those that must all be right; an attribute that is not known of the true object counts as right.

    >>> accuracy = AttributeAccuracy(2, [0])
    >>> accuracy.update([torch.tensor([[0.5, 0.5, 1.0], [0.1, 0.1, 2.0]])], [torch.tensor([[0.5, 0.5, 1.0]])])
    >>> accuracy.compute().item()
    1.0
    """

    full_state_update = False
    higher_is_better = True
    right: Tensor
    matched: Tensor

    def __init__(self, numbers: int, attributes: Sequence[int]) -> None:
        super().__init__()
        self.numbers, self.attributes = numbers, list(attributes)
        for name in ("right", "matched"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
        """Adds images: found values (K', D + A) and true values (K, D + A) of each."""
        for f, t in zip(found, true, strict=True):
            rows, columns = near_pairs(f[:, : self.numbers], t[:, : self.numbers])
            right = _right(f[rows, self.numbers :], t[columns, self.numbers :])
            self.right += right[:, self.attributes].all(1).sum()
            self.matched += len(rows)

    def compute(self) -> Tensor:
        """In [0, 1]; NaN where nothing was found."""
        return self.right / self.matched


class AttributeCalibration(Metric):
    """Expected calibration error of an attribute: |share that is right - mean certainty| over ten bins of certainty.

    Args:
        numbers: D.
        attribute: its place among the attributes.
    """

    full_state_update = False
    higher_is_better = False
    right: Tensor
    certain: Tensor
    matched: Tensor

    def __init__(self, numbers: int, attribute: int) -> None:
        super().__init__()
        self.numbers, self.attribute = numbers, attribute
        for name in ("right", "certain", "matched"):
            self.add_state(name, torch.zeros(BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor], certainty: Sequence[Tensor | None] = ()) -> None:
        """Adds images: values as for `AttributeAccuracy`, and the certainty (K', A) of each, or None."""
        for f, t, c in zip(found, true, certainty, strict=True):
            if c is None or bool(c.isnan().any()):
                continue
            rows, columns = near_pairs(f[:, : self.numbers], t[:, : self.numbers])
            right = _right(f[rows, self.numbers :], t[columns, self.numbers :])[:, self.attribute]
            sure = c[rows, self.attribute].double()
            place = (sure * BINS).long().clamp(max=BINS - 1)
            self.right.index_add_(0, place, right.double())
            self.certain.index_add_(0, place, sure)
            self.matched.index_add_(0, place, torch.ones_like(sure))

    def compute(self) -> Tensor:
        """In [0, 1]; NaN without certainties."""
        return (self.right - self.certain).abs().sum() / self.matched.sum()


def _right(found: Tensor, true: Tensor) -> Tensor:
    """Which attributes (N, A) are those of the true objects, or are not known of them."""
    return (found == true) | (true == 0)
