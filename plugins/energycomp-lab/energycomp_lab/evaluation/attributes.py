"""Metrics of the attributes of found objects, such as shape and colour, and of how sure the reading is of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from energycomp.components import MixedConditioner, MixedSupport
from energycomp_lab.evaluation.matching import near_pairs

BINS = 10


def attribute_metrics(conditioner: MixedConditioner) -> MetricCollection:
    """Makes metrics of the accuracy and the calibration error of each attribute, and of all attributes together.

    >>> from energycomp.testing import TintedSquare
    >>> sorted(attribute_metrics(TintedSquare()))[:3]
    ['all_attributes', 'tint_accuracy', 'tint_calibration_error']
    """
    support = conditioner.support
    names = list(conditioner.attributes)
    found: dict[str, Metric | MetricCollection] = {}
    for k, name in enumerate(names):
        found[f"{name}_accuracy"] = AttributeAccuracy(support, [k])
        found[f"{name}_calibration_error"] = AttributeCalibration(support, k)
    found["all_attributes"] = AttributeAccuracy(support, range(len(names)))
    return MetricCollection(found, compute_groups=False)


class AttributeAccuracy(Metric):
    """Found objects whose attributes are right, over all objects that were found (see `near_pairs`).

    Args:
        attributes: those that must all be right, as far as they are known of the true object. An object of which none
            of them is known is left out.
    """

    full_state_update = False
    higher_is_better = True
    right: Tensor
    matched: Tensor

    def __init__(self, support: MixedSupport, attributes: Sequence[int]) -> None:
        super().__init__()
        self.support = support
        self.attributes = list(attributes)
        for name in ("right", "matched"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
        """Adds images: found values (K', D + A) and true values (K, D + A) of each."""
        for f, t in zip(found, true, strict=True):
            _, right, known = _right(self.support, f, t)
            right = right[:, self.attributes]
            known = known[:, self.attributes]
            compared = known.any(1)
            self.right += (right | ~known)[compared].all(1).sum()
            self.matched += compared.sum()

    def compute(self) -> Tensor:
        """In [0, 1]; NaN where nothing was found, or nothing is known of what was."""
        return self.right / self.matched


class AttributeCalibration(Metric):
    """Expected calibration error of an attribute: |share that is right - mean certainty| over ten bins of certainty.

    It is over the found objects whose true attribute is known.

    Args:
        attribute: its place among the attributes.
    """

    full_state_update = False
    higher_is_better = False
    right: Tensor
    certain: Tensor
    matched: Tensor

    def __init__(self, support: MixedSupport, attribute: int) -> None:
        super().__init__()
        self.support = support
        self.attribute = attribute
        for name in ("right", "certain", "matched"):
            self.add_state(name, torch.zeros(BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor], certainty: Sequence[Tensor | None] = ()) -> None:
        """Adds images: values as for `AttributeAccuracy`, and the certainty (K', A) of each, or None."""
        for f, t, c in zip(found, true, certainty, strict=True):
            if c is None or bool(c.isnan().any()):
                continue
            rows, every, is_known = _right(self.support, f, t)
            known = is_known[:, self.attribute]
            right = every[known, self.attribute]
            sure = c[rows[known], self.attribute].double()
            place = (sure * BINS).long().clamp(max=BINS - 1)
            self.right.index_add_(0, place, right.double())
            self.certain.index_add_(0, place, sure)
            self.matched.index_add_(0, place, torch.ones_like(sure))

    def compute(self) -> Tensor:
        """In [0, 1]; NaN without certainties."""
        return (self.right - self.certain).abs().sum() / self.matched.sum()


def _right(support: MixedSupport, found: Tensor, true: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Matches found objects (N,) with true ones; says which of their attributes are right, and known, (N, A) each."""
    (places, codes), (true_places, true_codes) = support.split(found), support.split(true)
    rows, columns = near_pairs(places, true_places)
    return rows, codes[rows] == true_codes[columns], true_codes[columns] != 0
