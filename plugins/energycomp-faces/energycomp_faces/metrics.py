"""How well labels were read: torchmetrics over the attributes whose true value is known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import BinaryCalibrationError

__all__ = ["AttributeAccuracy", "CalibrationError", "ExactMatch"]


class AttributeAccuracy(Metric):
    """Attributes read right, over all known attributes of all pictures.

    >>> accuracy = AttributeAccuracy()
    >>> accuracy.update([torch.tensor([0, 3, 4])], [torch.tensor([0, 2])])
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
        """Adds pictures: found (K,) and true values (K',) of each."""
        for f, t in zip(found, true, strict=True):
            self.right += torch.isin(t, f).sum()
            self.total += len(t)

    def compute(self) -> Tensor:
        """In [0, 1]."""
        return self.right / self.total


class ExactMatch(AttributeAccuracy):
    """Pictures of which every known attribute was read right, over all pictures.

    >>> exact = ExactMatch()
    >>> exact.update([torch.tensor([0, 3]), torch.tensor([1, 3])], [torch.tensor([0, 2]), torch.tensor([1, 3])])
    >>> exact.compute().item()
    0.5
    """

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
        """Adds pictures: found (K,) and true values (K',) of each."""
        for f, t in zip(found, true, strict=True):
            self.right += torch.isin(t, f).all()
            self.total += 1


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
        """Adds pictures: found values (K,) with their probabilities, and true values (K',)."""
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
