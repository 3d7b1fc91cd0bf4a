"""Coloured shapes with masks as a data source: rendered images, and folders of images with or without masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np

from energycomp.errors import InputError
from energycomp.fields import parse_range
from energycomp_datasets.pictures import image_files, masks_of, write_examples
from energycomp_datasets.shapes.shapes import WORLDS, ShapesScene, scene
from energycomp_datasets.synthetic import HELD_OUT, WRITTEN, synthetic
from energycomp_lab.evaluation import Example, Generated

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

COUNTS = (2, 4)


def draw(index: int, seed: int, *, world: str = "a", counts: tuple[int, int] = COUNTS) -> ShapesScene:
    """Image number `index` of a seed; the number of objects is uniform in a range."""
    rng = np.random.default_rng([seed, index])
    return scene(rng, int(rng.integers(counts[0], counts[1] + 1)), world=world)


@attrs.frozen
class ShapesSource:
    """Images of a world with the masks of their objects, (K, H, W).

    >>> (example,) = ShapesSource().examples("synthetic:3", count=1, seed=0)
    >>> example.image.shape, example.masks.shape
    (torch.Size([3, 32, 32]), torch.Size([3, 32, 32]))
    """

    world: str = "a"

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Rendered images (32x32, held out from training), or those of a folder, as `write` makes or without masks.

        "synthetic" has two to four objects of this world, "synthetic:3" three, "synthetic:b:2-4" those of world b.
        """
        options = synthetic(spec)
        if options is not None:
            world, counts = _kind(options, self.world)
            return Generated(count, partial(_draw_example, seed=HELD_OUT + seed, world=world, counts=counts))
        return [Example(path, name=path.name, masks=masks_of(path)) for path in image_files(spec)[:count]]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """As `write_examples` does; `options` such as b, 3 or b:2-4."""
        world, counts = _kind(options, self.world)
        examples = Generated(count, partial(_draw_example, seed=WRITTEN + seed, world=world, counts=counts))
        write_examples(folder, examples, progress)

    def metrics(self) -> MetricCollection:
        """Recall of objects at IoU 0.5, and their mean IoU."""
        from torchmetrics import MetricCollection

        from energycomp_lab.evaluation import MaskIoU, MaskRecall

        return MetricCollection({"recall": MaskRecall(), "iou": MaskIoU()}, compute_groups=False)


def shapes_b() -> ShapesSource:
    return ShapesSource("b")


def _kind(text: str, default: str) -> tuple[str, tuple[int, int]]:
    """World and range of counts of "", "b", "3" or "b:2-4"."""
    world, colon, counts = text.partition(":")
    if not colon and world not in WORLDS:
        world, counts = default, text
    if world not in WORLDS:
        raise InputError(f"got the world {world!r}; expected {' or '.join(WORLDS)}, a range of counts, or both: b:2-4")
    return world, parse_range(counts, greatest=5) if counts else COUNTS


def _draw_example(index: int, *, seed: int, world: str, counts: tuple[int, int]) -> Example:
    made = draw(index, seed, world=world, counts=counts)
    return Example(made.image, name=f"image {index}", masks=made.masks)
