"""What slots are learned from: pictures in memory, drawn or out of a file or folder, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp_decomp import shapes
from energycomp_decomp.training_data import Pictures, in_folder
from energycomp_slots import rooms
from energycomp_slots.arrow_room import arrow_rooms
from energycomp_slots.readers import mask_file, pictures_in

__all__ = ["DRAWN", "WORLDS", "drawn", "in_file"]

DRAWN = 30_000
LARGEST = 128  # pixels of a drawn picture's side, of which memory holds so many
MOST = 100_000  # pictures of a file
CHUNK = 500
SPRITES = (2, 3, 4)  # how many are in a picture


def drawn(world: str, size: int) -> Pictures:
    """Pictures (N, 3, size, size) of a world of `WORLDS`, none of which a data source draws.

    Raises:
        InputError: no such world.
    """
    if world not in WORLDS:
        raise InputError(f"got the world {world!r}; expected one of {', '.join(WORLDS)}")
    if not 1 <= size <= LARGEST:
        raise InputError(
            f"got {size}x{size} pixels; expected at most {LARGEST}x{LARGEST} for drawn pictures; pass --data"
        )
    starts = tqdm(range(0, DRAWN, CHUNK), desc=f"drawing {DRAWN:,} pictures", delay=2, leave=False)
    return Pictures(torch.cat([_bytes(WORLDS[world](start, min(CHUNK, DRAWN - start), size)) for start in starts]))


def in_file(path: Path, processor: ImageProcessor, least: int) -> Pictures:
    """The pictures of a folder, or the first 100,000 of a file that `mask_file` knows, at the model's size.

    Raises:
        InputError: nothing of the kind, or fewer than `least`, one batch.
    """
    file = mask_file(path)
    if file is None:
        return in_folder(path, processor, least)
    read = [_bytes(processor(list(part))) for part in tqdm(pictures_in(file.path, most=MOST), desc="reading", delay=2)]
    images = torch.cat(read)
    if len(images) < least:
        raise InputError(f"got {file.path} with {len(images)} pictures; expected at least one batch of {least}")
    return Pictures(images)


def _bytes(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().byte()


def _arrow(start: int, count: int, size: int) -> Tensor:
    return arrow_rooms(np.random.default_rng([0, start]), count, size=size).images


def _sprites(start: int, count: int, size: int) -> Tensor:
    """All of one chunk have as many objects, of which every number is as frequent."""
    number = SPRITES[start // CHUNK % len(SPRITES)]
    objects = [shapes.layout(np.random.default_rng([0, start + k]), number, world="a") for k in range(count)]
    return shapes.render(torch.from_numpy(np.stack(objects)).float(), world="a", size=size)[0]


def _rooms(start: int, count: int, size: int) -> Tensor:
    made = [rooms.layout(np.random.default_rng([0, start + k]), 1 + k % rooms.MOST) for k in range(count)]
    parts = (torch.from_numpy(np.stack(part)).float() for part in zip(*made, strict=True))
    return rooms.render(*parts, size=size)[0]


# Pictures (count, 3, size, size) in [-1, 1] of each world, by the number of the first and how many.
WORLDS: Mapping[str, Callable[[int, int, int], Tensor]] = {"arrow": _arrow, "sprites": _sprites, "rooms": _rooms}
