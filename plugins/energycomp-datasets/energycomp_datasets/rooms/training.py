"""Images without labels to train on: worlds with masks, and files of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.images import ImageProcessor, to_bytes
from energycomp.progress import progress
from energycomp_datasets.pictures import Pictures, in_folder
from energycomp_datasets.rooms import rooms
from energycomp_datasets.rooms.arrow_room import arrow_rooms
from energycomp_datasets.rooms.mask_files import images_in, mask_file
from energycomp_datasets.shapes import shapes

DRAWN = 30_000
LARGEST = 128  # greatest side of a rendered image, px, so that all fit in memory
MOST = 100_000  # images of a file
CHUNK = 500
SPRITES = (2, 3, 4)  # objects per image


def draw_world(world: str, size: int) -> Pictures:
    """Images (N, 3, size, size) of a world of `WORLDS`; no evaluation image is among them."""
    if world not in WORLDS:
        raise InputError(f"got the world {world!r}; expected one of {', '.join(WORLDS)}")
    if not 1 <= size <= LARGEST:
        raise InputError(
            f"got {size}x{size} pixels; expected at most {LARGEST}x{LARGEST} for rendered images; pass --data"
        )
    starts = progress(range(0, DRAWN, CHUNK), f"rendering {DRAWN:,} images")
    return Pictures(torch.cat([to_bytes(WORLDS[world](start, min(CHUNK, DRAWN - start), size)) for start in starts]))


def in_file(path: Path, processor: ImageProcessor) -> Pictures:
    """The images of a folder, or the first 100,000 of a file that `mask_file` knows, at the model's size."""
    file = mask_file(path)
    if file is None:
        return in_folder(path, processor)
    read = [to_bytes(processor(list(part))) for part in progress(images_in(file.path, most=MOST), "reading")]
    return Pictures(torch.cat(read))


def _arrow(start: int, count: int, size: int) -> Tensor:
    return arrow_rooms(np.random.default_rng([0, start]), count, size=size).images


def _sprites(start: int, count: int, size: int) -> Tensor:
    """All images of a chunk have the same number of objects; all numbers are equally frequent."""
    number = SPRITES[start // CHUNK % len(SPRITES)]
    objects = [shapes.layout(np.random.default_rng([0, start + k]), number, world="a") for k in range(count)]
    return shapes.render(torch.from_numpy(np.stack(objects)).float(), world="a", size=size)[0]


def _rooms(start: int, count: int, size: int) -> Tensor:
    made = [rooms.layout(np.random.default_rng([0, start + k]), 1 + k % rooms.MOST) for k in range(count)]
    parts = (torch.from_numpy(np.stack(part)).float() for part in zip(*made, strict=True))
    return rooms.render(*parts, size=size)[0]


# Per world, images (count, 3, size, size) in [-1, 1] from the number of the first image and their count.
WORLDS: Mapping[str, Callable[[int, int, int], Tensor]] = {"arrow": _arrow, "sprites": _sprites, "rooms": _rooms}
