"""What the evaluator expects of a network: one stage, or a trunk and heads; and of what holds one."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from energycomp.components.condition import Condition


@runtime_checkable
class Network(Protocol):
    """A network of one stage: every row costs an evaluation of the whole of it.

    It is a `torch.nn.Module` with an attribute `config`, the keyword arguments that it was made with, as JSON: loading
    a model calls the registered factory with them. The tokens of rows with `condition.null` are zeros; the network
    gives these rows a meaning of their own. `energycomp_lab.checks.check_network` builds a network whose arguments all
    have default values, and checks it.
    """

    def __call__(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Prediction (R, C, H, W) for samples (R, C, H, W) at timesteps (R,) under R conditions.

        Timesteps are real numbers in [0, T]. The type of the prediction is the `prediction_type` of the `Denoiser`.
        """


@runtime_checkable
class TwoStage(Protocol):
    """A network whose trunk is shared by all conditions of one noised sample; a module with `config` as a `Network`."""

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, ...]:
        """The trunk: B noised samples (B, C, H, W) at timesteps (B,) to tensors whose first dimension is B."""

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        """R conditions, row r on the features of sample owner[r], to predictions (R, C, H, W)."""


@runtime_checkable
class Placed(Protocol):
    """A network that says where it computes, because its weights may be elsewhere meanwhile: offloaded, or mapped."""

    @property
    def device(self) -> torch.device:
        """Where samples are expected."""


class HasNetwork(Protocol):
    """What the evaluator needs to know of a denoiser."""

    @property
    def network(self) -> nn.Module:
        """A `Network` or a `TwoStage`."""

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """What the network is given of variance-preserving samples (B, C, H, W) at timesteps (B,)."""

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one sample."""
