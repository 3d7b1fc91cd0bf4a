"""The group of one leaf that stands for a whole composition, and predicts its clean samples by a formula."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import Rule
from energycomp.sampling import Target


@attrs.frozen(eq=False)
class ComposedGroup:
    """As `LeafGroup`, of one leaf.

    Args:
        target: the composition that the leaf stands for.
        mean: samples (B, *shape) and timesteps (B,) to E[x_0 | x], (B, *shape).
    """

    target: Target
    mean: Callable[[Tensor, Tensor], Tensor]

    prediction_type = "sample"

    @property
    def rule(self) -> Rule | None:
        """As of the components; None where they differ."""
        rules = {group.rule for group in self.target.groups}
        return rules.pop() if len(rules) == 1 else None

    @property
    def device(self) -> torch.device:
        """Of the components."""
        return self.target.device

    @property
    def decode(self) -> Callable[[Tensor], Tensor] | None:
        """Of the components."""
        return self.target.decode

    def predict(self, leaves: Sequence[Any], sample: Tensor, timestep: Tensor) -> list[Tensor]:
        """As `LeafGroup.predict`."""
        return [self.mean(sample, timestep)] * len(leaves)
