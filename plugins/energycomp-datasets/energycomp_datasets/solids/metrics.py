"""Metrics of inferred sets of concepts."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torchmetrics import MeanMetric


class ConceptRecall(MeanMetric):
    """True concepts that were found, over all of all images.

    >>> import torch
    >>> recall, cat, dog = ConceptRecall(), torch.tensor([1, 2]), torch.tensor([1, 3])
    >>> recall.update([cat[None]], [torch.stack([dog, cat])])
    >>> recall.compute().item()
    0.5
    """

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:  # type: ignore[override]
        """Adds images: found values (K, L) and true ones (K', L) of each."""
        for f, t in zip(found, true, strict=True):
            for value in t.tolist():
                super().update(float(value in f.tolist()))
