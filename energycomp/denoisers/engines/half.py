"""torch in bfloat16."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from energycomp.denoisers.engines.engine import Run
from energycomp.denoisers.layout import channels_last
from energycomp.errors import InputError

INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")  # of Intel, of Intel and AMD, of ARM
PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class BFloat16:
    """The engine "bf16": torch, with convolutions and products in bfloat16, and norms and predictions in float32.

    It needs a GPU or CPU that computes in bfloat16.
    """

    agreement = 0.05  # bfloat16 has three digits

    def accepts(self, tensors: Sequence[Tensor]) -> bool:
        return all(tensor.dtype == torch.float32 for tensor in tensors if tensor.is_floating_point())

    def compile(self, part: nn.Module, example: Sequence[Tensor], key: str, *, fresh: bool) -> Run:  # noqa: ARG002
        """As `Engine.compile`, with a copy of the weights. Raises `InputError` where bfloat16 would be slower."""
        device = example[0].device.type
        if not computes_in_bfloat16(device):
            raise InputError(f"got a {device} without instructions for bfloat16")
        half = copy.deepcopy(part)
        for module in half.modules():
            if isinstance(module, PRODUCTS):
                module.to(torch.bfloat16)
        channels_last(half)

        def run(tensors: Sequence[Tensor]) -> list[Tensor]:
            with torch.autocast(device, torch.bfloat16):
                return [
                    made.float() if made.is_floating_point() else made for made in half(*map(_channels_last, tensors))
                ]

        return run


def computes_in_bfloat16(device: str) -> bool:
    """Whether a type of device, such as "cpu", has instructions for it."""
    if device == "cpu":
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # not before torch 2.11
        return any(capabilities.get(name) for name in INSTRUCTIONS)
    return device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
