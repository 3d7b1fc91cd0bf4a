"""Images without labels to train on: coloured shapes, and one lit object."""

from __future__ import annotations

import numpy as np
import torch

from energycomp.fields import parse_range
from energycomp.images import to_bytes
from energycomp.progress import progress
from energycomp_datasets.pictures import Pictures
from energycomp_datasets.shapes.lit import factors, render as render_lit
from energycomp_datasets.shapes.shapes import layout, render

DRAWN = 20_000


def draw_shapes(world: str, objects: str, size: int) -> Pictures:
    """Images of a world; `objects` is the number of objects per image, or a range of about equally frequent numbers."""
    low, high = parse_range(objects, greatest=5)
    chunks = []
    chunk = 500
    for start in progress(range(0, DRAWN, chunk), f"rendering {DRAWN:,} images"):
        count = low + start // chunk % (high - low + 1)
        drawn = [layout(np.random.default_rng([0, start + k]), count, world=world) for k in range(chunk)]
        images, _ = render(torch.from_numpy(np.stack(drawn)).float(), world=world, size=size)
        chunks.append(to_bytes(images))
    return Pictures(torch.cat(chunks))


def draw_lit(size: int) -> Pictures:
    """Images of one lit object."""
    images = torch.cat([render_lit(part, size=size) for part in factors(DRAWN, seed=0).split(500)])
    return Pictures(to_bytes(images))
