"""Modules that accelerate offloads or maps: where they compute, and their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from energycomp.errors import InputError


def execution_device(module: nn.Module) -> torch.device | None:
    """Where a module computes that accelerate offloads or maps, or that is quantised; None if `to` may move it."""
    # A hook of accelerate brings weights to a device when they are needed; a number is that of a GPU
    for part in module.modules():
        hook = vars(part).get("_hf_hook")
        device = None if hook is None else vars(hook).get("execution_device")
        if device is not None:
            return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    # Mapped or quantised without a hook: where it is
    placed = any(vars(module).get(name) is not None for name in ("hf_device_map", "hf_quantizer"))
    return next(module.parameters()).device if placed else None


def all_weights(module: Any) -> Mapping[str, Tensor]:
    """The weights of a module, those included that accelerate offloads layer by layer.

    Raises:
        InputError: weights on the meta device that nothing brings back.
    """
    weights: Mapping[str, Tensor] = module.state_dict()
    if any(tensor.is_meta for tensor in weights.values()):
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        try:
            weights = get_state_dict_offloaded_model(module)
        except ValueError as error:  # nothing holds their numbers
            raise InputError(
                "got a VAE on the device 'meta'; expected its weights, which tell what it can be composed with; load "
                "it with them"
            ) from error
    return weights
