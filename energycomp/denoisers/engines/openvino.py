"""OpenVINO on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from energycomp.denoisers.engines.engine import Run, require
from energycomp.denoisers.engines.export import is_plain, onnx_file

BLOCK = 8  # rows: kernels for a fixed number take 0.75 of the time (32 rows of the head of clevr, 43 ms of 56)


@cache
def _core() -> Any:
    """The one of this process, which is never freed.

    Each has a stack for signals, and restores the one before when it is freed. Of two that are freed in the order of
    their creation, the second restores the stack of the first: memory that is gone, so that Ctrl-C ends the process.
    """
    import openvino

    return openvino.Core()


class OpenVINO:
    """The engine "openvino", in float32, with as many threads as torch has. Raises `InputError` if not installed."""

    def __init__(self) -> None:
        require("openvino", "openvino", "onnxscript")

    def accepts(self, tensors: Sequence[Tensor]) -> bool:
        return is_plain(tensors)

    def compile(self, part: nn.Module, example: Sequence[Tensor], key: str, *, fresh: bool) -> Run:
        """As `Engine.compile`; blocks of `BLOCK` rows run by kernels of their own."""
        core = _core()
        with onnx_file(part, example, key, fresh=fresh) as file:
            config = {
                "INFERENCE_PRECISION_HINT": "f32",  # by default bfloat16 where the CPU has it
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
                "CACHE_DIR": str(file.parent.with_suffix(".compiled")),
            }
            model = core.read_model(file)
            any_rows = core.compile_model(model, "CPU", config)
            has_blocks = len({len(tensor) for tensor in example}) == 1  # one axis of rows
            if has_blocks:
                model.reshape({one: [BLOCK, *like.shape[1:]] for one, like in zip(model.inputs, example, strict=True)})
            block: Any = core.compile_model(model, "CPU", config) if has_blocks else None

        def run(tensors: Sequence[Tensor]) -> list[Tensor]:
            arrays = [tensor.detach().contiguous().numpy() for tensor in tensors]
            whole = 0 if block is None else len(arrays[0]) // BLOCK * BLOCK
            calls = [block([one[start : start + BLOCK] for one in arrays]) for start in range(0, whole, BLOCK)]
            if whole < len(arrays[0]) or not calls:
                calls.append(any_rows([one[whole:] if whole else one for one in arrays]))
            made = zip(*(map(torch.from_numpy, call.values()) for call in calls), strict=True)
            return [parts[0] if len(parts) == 1 else torch.cat(parts) for parts in made]

        return run
