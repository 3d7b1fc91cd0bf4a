"""Metrics of inferred conditions: torchmetrics of the matched pairs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from energycomp_lab.evaluation.matching import FOUND_WITHIN, match


class _Matched(Metric):
    """Sums over the matched pairs of all images; subclasses define the ratio."""

    full_state_update = False
    found_count: Tensor
    true_count: Tensor
    hits: Tensor
    pairs: Tensor
    error: Tensor

    def __init__(self, found_within: float = FOUND_WITHIN) -> None:
        super().__init__()
        self.found_within = found_within
        for name in ("found_count", "true_count", "hits", "pairs", "error"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
        """Adds images: found values (K', D) and true values (K, D) of each."""
        for f, t in zip(found, true, strict=True):
            errors = match(f, t)
            self.found_count += len(f)
            self.true_count += len(t)
            self.pairs += len(errors)
            self.hits += (errors < self.found_within).sum()
            self.error += errors.double().sum()


class PerceptionRate(_Matched):
    """True objects that were found, over all true objects of all images (thesis 5.4.1).

    An object is found if it is near the one that the matching of least sum gives it. Where a wrong object stands
    beside a missed one, that matching may exchange them, and a right object counts as missed; `near_pairs`, by which
    attributes are judged, counts it.

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
    """Found objects that match a true object, over all found objects of all images."""

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


class ImageMean(MeanMetric):
    """The mean of `score` over all images, in float64."""

    higher_is_better: bool | None = True  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__(nan_strategy="disable")
        self.set_dtype(torch.float64)

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:  # type: ignore[override]
        """Adds images: what was found, and what is true, of each."""
        for f, t in zip(found, true, strict=True):
            super().update(self.score(f, t).double())

    @abstractmethod
    def score(self, found: Tensor, true: Tensor) -> Tensor:
        """The numbers (N,) that an image adds to the mean."""


class CountAccuracy(ImageMean):
    """Images whose number of objects is right, over all images."""

    def score(self, found: Tensor, true: Tensor) -> Tensor:
        return torch.tensor([len(found) == len(true)])


class ExactSet(MeanMetric):
    """Images whose set of listed values, such as labels, is found exactly, over all images.

    >>> exact, cat, dog = ExactSet(), torch.tensor(1), torch.tensor(2)
    >>> exact.update([torch.stack([cat, dog]), cat[None]], [torch.stack([dog, cat]), dog[None]])
    >>> exact.compute().item()
    0.5
    """

    higher_is_better = True  # type: ignore[assignment]

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:  # type: ignore[override]
        """Adds images: found values (K', *V) and true values (K, *V) of each."""
        for f, t in zip(found, true, strict=True):
            super().update(float(sorted(f.tolist()) == sorted(t.tolist())))
