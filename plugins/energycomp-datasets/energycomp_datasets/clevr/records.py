"""The record of an image: the centres of its objects, checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class SceneRecord:
    """An image file. coordinates: `(K, 2)` float32 object centres in [0, 1] (x right, y down). count: K.

    attributes: the words of each object by name, such as {"color": "red"}; () where they are not known.
    camera: `(3,)` where it stands, in scene units; lights: `(L, 3)` how far each lamp is from its usual place; None
    where they are not known, as in the official records. turns: `(K,)` degrees in [0, 90) about the vertical, from
    where a face of a cube looks along the line of sight, counter-clockwise seen from above; NaN for other shapes.
    """

    path: Path
    coordinates: Tensor
    count: int
    attributes: tuple[Mapping[str, str], ...] = ()
    camera: Tensor | None = None
    lights: Tensor | None = None
    turns: Tensor | None = None


def centres(entries: Any, frame: tuple[int, int]) -> Tensor:
    """The `pixel_coords` of a record's objects as `(K, 2)` float32 shares of `frame` (width, height) px."""
    pixels = [(float(x), float(y)) for x, y in (entry["pixel_coords"][:2] for entry in entries)]
    return torch.tensor(pixels, dtype=torch.float32).reshape(-1, 2) / torch.tensor(frame)


def vectors(entry: Any, name: str, rows: bool = False) -> Tensor | None:
    """The vector (3,) of a record's entry, or its vectors (L, 3); None where there are none."""
    if name not in entry:
        return None
    found = torch.tensor(entry[name], dtype=torch.float32)
    if found.shape[-1:] != (3,) or found.ndim != 1 + rows or not bool(found.isfinite().all()):
        raise ValueError(f"{name} of shape {tuple(found.shape)}")
    return found
