"""Metrics of inferred attributes, over the attributes whose true value is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryCalibrationError


class LabelAccuracy(MeanMetric):
    """The share of correct attributes of all images, or, with `whole`, of images with all of them correct.

    >>> inferred, true = [torch.tensor([0, 3]), torch.tensor([1, 3])], [torch.tensor([0, 2]), torch.tensor([1, 3])]
    >>> each = LabelAccuracy()
    >>> each.update(inferred, true)
    >>> each.compute().item()
    0.75
    """

    higher_is_better = True  # type: ignore[assignment]

    def __init__(self, *, whole: bool = False) -> None:
        super().__init__(nan_strategy="disable")
        self.set_dtype(torch.float64)
        self.whole = whole

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:  # type: ignore[override]
        """Adds images: found values (K,) and true values (K',) of each."""
        for f, t in zip(found, true, strict=True):
            right = torch.isin(t, f)
            if len(right):
                super().update((right.all() if self.whole else right).double())


class CalibrationError(BinaryCalibrationError):
    """Expected calibration error: how far the probabilities of found values are from how often they are right.

    >>> error = CalibrationError()
    >>> error.update([torch.tensor([0, 3])], [torch.tensor([0, 2])], [torch.tensor([0.75, 0.75])])
    >>> error.compute().item()
    0.25
    """

    def update(  # type: ignore[override]
        self, found: Sequence[Tensor], true: Sequence[Tensor], probability: Sequence[Tensor | None]
    ) -> None:
        """Adds images: found values (K,) with their probabilities, and true values (K',)."""
        for f, t, p in zip(found, true, probability, strict=True):
            if p is None:
                continue
            group = f // 2  # yes/no attributes: two values each
            known = torch.isin(group, t // 2)
            super().update(p[known].float().cpu(), torch.isin(f, t)[known].int())

    def compute(self) -> Tensor:
        """In [0, 1]; not a number where no answer came with probabilities."""
        if not self.confidences:
            return torch.tensor(torch.nan)
        error: Tensor = super().compute()
        return error
