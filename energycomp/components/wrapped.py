"""The group of leaves that wrap leaves of another group, and change what these are given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.component import LeafGroup
from energycomp.components.prediction import PredictionType
from energycomp.components.rules import Rule


@attrs.frozen(eq=False)
class WrappedGroup(ABC):
    """A group whose predictions are those of another one, at other samples or timesteps."""

    inner: LeafGroup

    @property
    def prediction_type(self) -> PredictionType:
        """That of the wrapped leaves."""
        return self.inner.prediction_type

    @property
    def rule(self) -> Rule | None:
        """That of the wrapped leaves."""
        return self.inner.rule

    @property
    def device(self) -> torch.device | None:
        """That of the wrapped leaves."""
        return self.inner.device

    @property
    def decode(self) -> Callable[[Tensor], Tensor] | None:
        """That of the wrapped leaves."""
        return self.inner.decode

    def predict(self, leaves: Sequence[Any], sample: Tensor, timestep: Tensor) -> Sequence[Tensor]:
        """One prediction (B, C, H, W) per leaf."""
        return self.predictions(leaves, [None] * len(leaves), sample, timestep)

    def predict_some(
        self, leaves: Sequence[Any], owners: Sequence[Tensor], sample: Tensor, timestep: Tensor
    ) -> Sequence[Tensor]:
        """One prediction (N_k, C, H, W) per leaf, for the samples (N_k,) of a batch (B, C, H, W) that it counts for."""
        return self.predictions(leaves, owners, sample, timestep)

    @abstractmethod
    def predictions(
        self, leaves: Sequence[Any], owners: Sequence[Tensor | None], sample: Tensor, timestep: Tensor
    ) -> Sequence[Tensor]:
        """As `predict_some`; an owner of None stands for all samples."""
