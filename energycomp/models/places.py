"""Where the modules of a diffusers pipeline compute when something else than `to` decides it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def execution_device(module: nn.Module) -> torch.device | None:
    """Where a module computes that accelerate offloads or maps, or that is quantised; None if `to` may move it.

    >>> execution_device(nn.Linear(1, 1)) is None
    True
    """
    for part in module.modules():
        device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    held: Any = module
    placed = getattr(held, "hf_device_map", None) is not None or getattr(held, "hf_quantizer", None) is not None
    return next(module.parameters()).device if placed else None
