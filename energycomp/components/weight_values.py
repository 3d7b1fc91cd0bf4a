"""What a weight is: where it is a constant, at a noise level, and between which bounds; and who takes numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from energycomp.components.weights import LEAST_VALUE, AnyWeight, Shape, varies
from energycomp.errors import InputError


def is_constant(weight: AnyWeight | Tensor, value: float, shape: Shape = (1, 1, 1)) -> bool:
    """Whether a weight, or a tensor of its values, is a number everywhere in a sample, at all noise levels and samples.

    >>> from energycomp.components import region
    >>> is_constant(1.0, 1.0), is_constant(region("left half"), 1.0, (3, 8, 8))
    (True, False)
    """
    values = weight.everywhere(shape) if varies(weight) else weight
    error = (values - value).abs().max() if isinstance(values, Tensor) else abs(values - value)
    return bool(error < LEAST_VALUE)


def noise_share(timestep: Tensor, steps: int) -> Tensor:
    """The share of the sampling trajectory (B,) that is done at timesteps (B,) of a schedule of T steps, in float64.

    A timestep is the middle of its step: i of N evenly spaced steps after T - 1 the share is at least i / N, even where
    timesteps are rounded.

    >>> noise_share(torch.tensor([3.0, 1.0, 0.0]), 4)
    tensor([0.1250, 0.6250, 0.8750], dtype=torch.float64)
    """
    return ((steps - 0.5 - timestep.detach().cpu().double()) / steps).clamp(min=0.0)


def constant_weights(terms: Mapping[Any, AnyWeight], user: str, instead: str) -> Mapping[Any, float]:
    """The weights of leaves as numbers, which is all that `user` takes; raises `InputError` where one varies.

    >>> from energycomp.components import Gaussian, during
    >>> a = Gaussian(name="a")
    >>> constant_weights((2 * a).terms, "this", "leave it out")[a]
    2.0
    >>> constant_weights((during(until=0.4) * a).terms, "this", "leave it out")
    Traceback (most recent call last):
    energycomp.errors.InputError: got the weight [0 to 0.4], which varies over pixels or the noise level; expected a ...
    """
    for weight in terms.values():
        if varies(weight):
            over = "pixels or the noise level" if weight.samples is None else "samples"
            got = f"got the weight {weight!r}, which varies over {over}"
            raise InputError(f"{got}; expected a number, which is all that {user} takes; {instead}")
    return terms  # type: ignore[return-value]  # all are numbers


def level_weights(terms: Mapping[Any, AnyWeight], shape: Shape, user: str, instead: str) -> Mapping[Any, AnyWeight]:
    """The weights of leaves, each of which is one number at a noise level: all that `user` takes.

    Args:
        shape: of a sample.

    Raises:
        InputError: a weight that varies over pixels or samples.

    >>> from energycomp.components import Gaussian, region
    >>> a = Gaussian(name="a", sample_shape=(3, 8, 8))
    >>> level_weights((region("left half") * a).terms, (3, 8, 8), "this", "leave it out")
    Traceback (most recent call last):
    energycomp.errors.InputError: got the weight [left half], which varies over pixels; expected one number at a ...
    """
    for weight in terms.values():
        if not varies(weight):
            continue
        over = "samples" if weight.samples is not None else "pixels"
        if over == "samples" or weight.at(torch.zeros(1), shape).numel() != 1:
            got = f"got the weight {weight!r}, which varies over {over}"
            raise InputError(f"{got}; expected one number at a noise level, which is all that {user} takes; {instead}")
    return terms


def number_at(weight: AnyWeight, share: float, shape: Shape) -> float:
    """A weight that is one number at a noise level, at a share of the trajectory."""
    return float(weight.at(torch.tensor([share]), shape)) if varies(weight) else weight


def bounds(weight: AnyWeight, shape: Shape) -> tuple[float, float]:
    """The least and the largest number that a weight is, over the trajectory, pixels and samples.

    >>> from energycomp.components import ramp, region
    >>> bounds(1 + 2 * region("left half"), (3, 8, 8)), bounds(ramp() * (1 - ramp()), (3, 8, 8)), bounds(2.0, (3,))
    ((1.0, 3.0), (0.0, 0.25), (2.0, 2.0))
    """
    return weight.span(shape) if varies(weight) else (weight, weight)
