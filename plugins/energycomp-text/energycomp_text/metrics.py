"""How well sets of concepts were read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["ConceptRecall", "ExactSet"]


class ExactSet(Metric):
    """Pictures whose set of concepts was found exactly, over all pictures.

    >>> exact, cat, dog = ExactSet(), torch.tensor([1, 2]), torch.tensor([1, 3])
    >>> exact.update([torch.stack([cat, dog]), cat[None]], [torch.stack([dog, cat]), dog[None]])
    >>> exact.compute().item()
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
        """Adds pictures: found values (K, L) and true ones (K', L) of each."""
        for f, t in zip(found, true, strict=True):
            self.right += sorted(f.tolist()) == sorted(t.tolist())
            self.total += 1

    def compute(self) -> Tensor:
        """In [0, 1]."""
        return self.right / self.total


class ConceptRecall(ExactSet):
    """True concepts that were found, over all of all pictures.

    >>> recall, cat, dog = ConceptRecall(), torch.tensor([1, 2]), torch.tensor([1, 3])
    >>> recall.update([cat[None]], [torch.stack([dog, cat])])
    >>> recall.compute().item()
    0.5
    """

    def update(self, found: Sequence[Tensor], true: Sequence[Tensor]) -> None:
        """Adds pictures: found values (K, L) and true ones (K', L) of each."""
        for f, t in zip(found, true, strict=True):
            self.right += sum(value in f.tolist() for value in t.tolist())
            self.total += len(t)
