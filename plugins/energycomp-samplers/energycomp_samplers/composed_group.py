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
    """As `LeafGroup`, of one leaf for a composition: `mean` maps samples and timesteps (B,) to E[x_0 | x]."""

    target: Target
    mean: Callable[[Tensor, Tensor], Tensor]

    prediction_type = "sample"

    @property
    def rule(self) -> Rule | None:
        rules = {group.rule for group in self.target.groups}
        return rules.pop() if len(rules) == 1 else None

    @property
    def device(self) -> torch.device:
        return self.target.device

    @property
    def decode(self) -> Callable[[Tensor], Tensor] | None:
        return self.target.decode

    def predict(self, leaves: Sequence[Any], sample: Tensor, timestep: Tensor) -> list[Tensor]:
        return [self.mean(sample, timestep)] * len(leaves)
