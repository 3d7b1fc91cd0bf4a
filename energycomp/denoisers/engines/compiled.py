"""torch's compiler."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from energycomp.denoisers.engines.engine import Run
from energycomp.denoisers.engines.export import traced


class Compiled:
    """The engine "compile": `torch.compile`, on any device. The CPU needs a C++ compiler, and a minute at first."""

    def accepts(self, tensors: Sequence[Tensor]) -> bool:  # noqa: ARG002
        return True

    def compile(self, part: nn.Module, example: Sequence[Tensor], key: str, *, fresh: bool) -> Run:  # noqa: ARG002
        """As `Engine.compile`; inductor has a cache of its own."""
        compiled = torch.compile(traced(part, example).module(), dynamic=True)
        return lambda tensors: compiled(*tensors)
