"""Coloured shapes as a data source: drawn ones, and folders of pictures with or without masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import attrs
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchmetrics import MetricCollection

from energycomp.errors import InputError
from energycomp.evaluation import Example, Generated, MaskIoU, MaskRecall, parse_range
from energycomp.files import atomic_file
from energycomp_decomp.shapes import WORLDS, Scene, scene

__all__ = ["HELD_OUT", "ShapesSource", "draw", "pictures", "shapes_b", "write_examples"]

HELD_OUT = 1_000_000_000  # added to the seed of evaluation pictures, so that no training picture is among them
COUNTS = (2, 4)
PICTURES, MASKS = "images", "masks"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


def draw(index: int, seed: int, *, world: str = "a", counts: tuple[int, int] = COUNTS) -> Scene:
    """Picture number `index` of a seed, with a number of objects out of a range."""
    rng = np.random.default_rng([seed, index])
    return scene(rng, int(rng.integers(counts[0], counts[1] + 1)), world=world)


def pictures(folder: str | Path) -> list[Path]:
    """The pictures of a folder by name; those in `images/` where there is such a folder.

    Raises:
        InputError: no such folder, or no picture in it.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"got {path}, which is no folder; expected one with pictures; check the path")
    inside = path / PICTURES if (path / PICTURES).is_dir() else path
    found = sorted(file for file in inside.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not found:
        raise InputError(f"got {inside} without pictures; expected files such as 1.png; check the path")
    return found


def write_examples(folder: Path, examples: Sequence[Example], progress: Callable[[int], None]) -> None:
    """Pictures (3, H, W) in [-1, 1] in `images/`, their masks in `masks/`: 0 the ground, k object k."""
    for name in (PICTURES, MASKS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for index in range(len(examples)):
        made, name = examples[index], f"{index + 1:06d}.png"
        array = ((made.image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        order = torch.arange(1, len(made.values) + 1)[:, None, None]
        numbers = (made.values * order).amax(0).byte().numpy() if len(order) else np.zeros(array.shape[:2], np.uint8)
        for kind, content in ((PICTURES, array), (MASKS, numbers)):
            with atomic_file(folder / kind / name) as temporary:
                Image.fromarray(content).save(temporary, format="PNG")
        progress(index + 1)


@attrs.frozen
class ShapesSource:
    """Pictures of a world with the masks of their objects, (K, H, W).

    >>> (example,) = ShapesSource().examples("synthetic:3", count=1, seed=0)
    >>> example.image.shape, example.values.shape
    (torch.Size([3, 32, 32]), torch.Size([3, 32, 32]))
    """

    world: str = "a"

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Drawn shapes (32x32, held out from training), or a folder.

        "synthetic" has two to four objects of this world, "synthetic:3" three, "synthetic:b:2-4" those of world b.
        A folder holds pictures, or what `write` makes; pictures without masks have no objects that could be missed.
        """
        if spec == "synthetic" or spec.startswith("synthetic:"):
            world, counts = _kind(spec.removeprefix("synthetic").removeprefix(":"), self.world)
            return Generated(count, partial(_drawn, seed=HELD_OUT + seed, world=world, counts=counts))
        return [Example(path, _masks(path), path.name) for path in pictures(spec)[:count]]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """As `write_examples`; `options` such as b, 3 or b:2-4."""
        world, counts = _kind(options, self.world)
        write_examples(folder, Generated(count, partial(_drawn, seed=seed, world=world, counts=counts)), progress)

    def metrics(self) -> MetricCollection:
        """Objects found at IoU 0.5, and their mean IoU."""
        return MetricCollection({"recall": MaskRecall(), "iou": MaskIoU()}, compute_groups=False)


def shapes_b() -> ShapesSource:
    """Pictures of world b."""
    return ShapesSource("b")


def _kind(text: str, default: str) -> tuple[str, tuple[int, int]]:
    """World and range of counts of "", "b", "3" or "b:2-4"."""
    world, colon, counts = text.partition(":")
    if not colon and world not in WORLDS:
        world, counts = default, text
    if world not in WORLDS:
        raise InputError(f"got the world {world!r}; expected {' or '.join(WORLDS)}, a range of counts, or both: b:2-4")
    return world, parse_range(counts, greatest=5) if counts else COUNTS


def _drawn(index: int, *, seed: int, world: str, counts: tuple[int, int]) -> Example:
    made = draw(index, seed, world=world, counts=counts)
    return Example(made.image, made.masks, f"picture {index}")


def _masks(path: Path) -> Tensor:
    """The masks (K, H, W) of a picture; (0, 1, 1) where there are none."""
    file = path.parent.parent / MASKS / f"{path.stem}.png"
    if path.parent.name != PICTURES or not file.is_file():
        return torch.zeros(0, 1, 1, dtype=torch.bool)
    try:
        with Image.open(file) as opened:
            numbers = torch.from_numpy(np.array(opened.convert("L")))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"got {file}, which cannot be read ({error}); expected the masks of {path.name}") from error
    return numbers == torch.arange(1, int(numbers.max()) + 1)[:, None, None]
