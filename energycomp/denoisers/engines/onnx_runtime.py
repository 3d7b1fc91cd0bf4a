"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from energycomp.denoisers.engines.engine import Run, require
from energycomp.denoisers.engines.export import is_plain, onnx_file


class OnnxRuntime:
    """The engine "onnx", in float32, with as many threads as torch has. Raises `InputError` if not installed."""

    def __init__(self) -> None:
        require("onnx", "onnxruntime", "onnxscript")

    def accepts(self, tensors: Sequence[Tensor]) -> bool:
        return is_plain(tensors)

    def compile(self, part: nn.Module, example: Sequence[Tensor], key: str, *, fresh: bool) -> Run:
        """As `Engine.compile`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        with onnx_file(part, example, key, fresh=fresh) as file:
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]

        def run(tensors: Sequence[Tensor]) -> list[Tensor]:
            arrays = (tensor.detach().contiguous().numpy() for tensor in tensors)
            return [torch.from_numpy(made) for made in session.run(None, dict(zip(names, arrays, strict=True)))]

        return run
