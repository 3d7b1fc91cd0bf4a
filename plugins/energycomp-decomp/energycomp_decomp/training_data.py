"""What parts are learned from: pictures in memory, drawn or out of a folder, and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from energycomp.errors import InputError
from energycomp.evaluation import parse_range
from energycomp.images import ImageProcessor
from energycomp_decomp.data import pictures
from energycomp_decomp.lit import factors
from energycomp_decomp.lit import render as render_lit
from energycomp_decomp.shapes import layout, render

__all__ = ["Pictures", "drawn_lit", "drawn_shapes", "in_folder"]

DRAWN = 20_000


class Pictures(Dataset[Tensor]):
    """Pictures (N, 3, H, W) uint8, and nothing else."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]

    def median(self) -> Tensor:
        """The median of every pixel and channel, (3, H, W) in [-1, 1]."""
        return torch.stack([channel.median(0).values for channel in self.images.unbind(1)]).float() / 127.5 - 1.0


def drawn_shapes(world: str, objects: str, size: int) -> Pictures:
    """Pictures of a world; `objects` is how many there are in each, or a range of which every number is as frequent."""
    low, high = parse_range(objects, greatest=5)
    chunks, chunk = [], 500
    for start in tqdm(range(0, DRAWN, chunk), desc=f"drawing {DRAWN:,} pictures", delay=2, leave=False):
        count = low + start // chunk % (high - low + 1)
        drawn = [layout(np.random.default_rng([0, start + k]), count, world=world) for k in range(chunk)]
        images, _ = render(torch.from_numpy(np.stack(drawn)).float(), world=world, size=size)
        chunks.append(((images + 1) * 127.5).round().byte())
    return Pictures(torch.cat(chunks))


def drawn_lit(size: int) -> Pictures:
    """Pictures of one lit object."""
    images = torch.cat([render_lit(part, size=size) for part in factors(DRAWN, seed=0).split(500)])
    return Pictures(((images + 1) * 127.5).round().byte())


def in_folder(folder: Path, processor: ImageProcessor, least: int) -> Pictures:
    """The pictures of a folder at the model's size, of which there must be at least so many."""
    paths = pictures(folder)
    if len(paths) < least:
        raise InputError(f"got {folder} with {len(paths)} pictures; expected at least one batch of {least} to train on")
    images = [((processor(path)[0] + 1) * 127.5).round().byte() for path in tqdm(paths, desc="reading", delay=2)]
    return Pictures(torch.stack(images))
