"""Records: what an evaluation keeps of each image, as JSON data, from which an interrupted run continues."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp_lab.evaluation.data import Example


def to_numbers(values: Tensor | None) -> Any:
    """Numbers as nested lists, with None for those that JSON does not have; None for None."""

    def legal(part: Any) -> Any:
        if isinstance(part, list):
            return [legal(one) for one in part]
        return part if math.isfinite(part) else None

    return None if values is None else legal(values.detach().cpu().tolist())


def from_numbers(record: Any, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor | None:
    """A tensor (K, *shape) of what `to_numbers` made; None numbers are NaN. None for None."""
    if record is None:
        return None
    array = np.array(record, dtype=np.float64).reshape(len(record), *shape)  # NumPy takes None for NaN
    return torch.from_numpy(array).to(dtype)


def to_bits(masks: Tensor | None) -> dict[str, Any] | None:
    """Masks (K, H, W) bool as their shape and their compressed bits in base64; None for None."""
    if masks is None:
        return None
    packed = zlib.compress(np.packbits(masks.cpu().numpy()).tobytes())
    return {"shape": list(masks.shape), "bits": base64.b64encode(packed).decode()}


def from_bits(record: Mapping[str, Any] | None) -> Tensor | None:
    if record is None:
        return None
    packed = np.frombuffer(zlib.decompress(base64.b64decode(record["bits"])), dtype=np.uint8)
    bits = np.unpackbits(packed, count=math.prod(record["shape"]))
    return torch.from_numpy(bits.reshape(record["shape"])).bool()


def check_record(record: Mapping[str, Any], index: int, example: Example, expected: str) -> None:
    """Raises `InputError` where a record is of another example."""
    if record.get("fingerprint") != expected:
        raise InputError(
            f"got a record of another image than {example.name or f'example {index}'}; expected the records of an "
            "evaluation of the same images in the same order; evaluate without them, or name another folder"
        )
