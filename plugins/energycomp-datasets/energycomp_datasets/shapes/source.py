"""Coloured shapes with masks as a data source."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from energycomp.errors import InputError
from energycomp.fields import parse_range
from energycomp_datasets.masked import Draw, MaskedSource
from energycomp_datasets.shapes.shapes import WORLDS, ShapesScene, scene
from energycomp_lab.evaluation import Example

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

COUNTS = (2, 4)


def draw(index: int, seed: int, *, world: str = "a", counts: tuple[int, int] = COUNTS) -> ShapesScene:
    """Image number `index` of a seed; the number of objects is uniform in a range."""
    rng = np.random.default_rng([seed, index])
    return scene(rng, int(rng.integers(counts[0], counts[1] + 1)), world=world)


def shapes_source(world: str = "a") -> MaskedSource:
    """Images of 32x32 of a world, with recall of objects at IoU 0.5 and their mean IoU.

    "synthetic" has two to four objects of this world, "synthetic:3" three, "synthetic:b:2-4" those of world b.

    >>> (example,) = shapes_source().examples("synthetic:3", count=1, seed=0)
    >>> example.image.shape, example.masks.shape
    (torch.Size([3, 32, 32]), torch.Size([3, 32, 32]))
    """
    return MaskedSource(partial(parse_shapes, default=world), _metrics)


def shapes_b_source() -> MaskedSource:
    return shapes_source("b")


def parse_shapes(text: str, default: str = "a") -> Draw:
    """Reads "", "b", "3" or "b:2-4": a world and a range of counts."""
    world, colon, counts = text.partition(":")
    if not colon and world not in WORLDS:
        world, counts = default, text
    if world not in WORLDS:
        raise InputError(f"got the world {world!r}; expected {' or '.join(WORLDS)}, a range of counts, or both: b:2-4")
    return partial(_draw_example, world=world, counts=parse_range(counts, greatest=5) if counts else COUNTS)


def _draw_example(index: int, *, seed: int, world: str, counts: tuple[int, int]) -> Example:
    made = draw(index, seed, world=world, counts=counts)
    return Example(made.image, name=f"image {index}", masks=made.masks)


def _metrics() -> MetricCollection:
    from torchmetrics import MetricCollection

    from energycomp_lab.evaluation import MaskIoU, MaskRecall

    return MetricCollection({"recall": MaskRecall(), "iou": MaskIoU()}, compute_groups=False)
