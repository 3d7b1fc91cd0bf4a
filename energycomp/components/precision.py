"""Long sums and noise levels in float64, on devices that have no such numbers, too."""

from __future__ import annotations

import torch
from torch import Tensor

NO_FLOAT64 = {"mps"}  # types of devices that compute in float32 at most: Apple's


def wide_type(device: torch.device | str) -> torch.dtype:
    """The widest type of floating-point numbers that a device computes in.

    >>> wide_type("cpu"), wide_type("mps")
    (torch.float64, torch.float32)
    """
    return torch.float32 if torch.device(device).type in NO_FLOAT64 else torch.float64


def widen(values: Tensor) -> Tensor:
    """Values in float64, moved to the CPU from a device that has no such numbers.

    >>> widen(torch.ones(2))
    tensor([1., 1.], dtype=torch.float64)
    """
    return values.double() if wide_type(values.device) == torch.float64 else values.cpu().double()


def home(device: torch.device | str) -> torch.device:
    """Where samples are kept for a network on a device: there, or on the CPU where it has no float64."""
    return torch.device(device) if wide_type(device) == torch.float64 else torch.device("cpu")
