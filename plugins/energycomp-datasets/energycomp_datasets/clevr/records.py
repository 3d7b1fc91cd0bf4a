"""The record of an image: the centres of its objects, checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor


@attrs.frozen(eq=False)
class Record:
    """An image file. coordinates: `(K, 2)` float32 object centres in [0, 1] (x right, y down). count: K.

    attributes: the words of each object by name, such as {"color": "red"}; () where they are not known.
    """

    path: Path
    coordinates: Tensor
    count: int
    attributes: tuple[Mapping[str, str], ...] = ()


def centres(entries: Any, frame: tuple[int, int]) -> Tensor:
    """The `pixel_coords` of a record's objects as `(K, 2)` float32 shares of `frame` (width, height) px.

    Raises ValueError, OverflowError, KeyError or TypeError for what is no list of objects.

    >>> centres([{"pixel_coords": [80, 120, 11.5]}], (320, 240))
    tensor([[0.2500, 0.5000]])
    """
    pixels = [(float(x), float(y)) for x, y in (entry["pixel_coords"][:2] for entry in entries)]
    return torch.tensor(pixels, dtype=torch.float32).reshape(-1, 2) / torch.tensor(frame)
