"""Where the parts of a pipeline run: on their own device, or where accelerate's hooks bring them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["execution_device", "is_placed", "move"]


def execution_device(module: nn.Module) -> torch.device:
    """The device where a module computes: that of its hooks if it is offloaded, else that of its weights."""
    for part in module.modules():
        device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return next(module.parameters()).device


def is_placed(module: nn.Module) -> bool:
    """Whether something else decides where a module is: offloading, a device map, or a quantisation."""
    held: Any = module
    hooked = any(hasattr(part, "_hf_hook") or hasattr(part, "_diffusers_hook") for part in module.modules())
    mapped = getattr(held, "hf_device_map", None) is not None
    return hooked or mapped or getattr(held, "hf_quantizer", None) is not None


def move(module: nn.Module, device: torch.device) -> None:
    """Moves a module, unless something else decides where it is."""
    if not is_placed(module):
        module.to(device)
