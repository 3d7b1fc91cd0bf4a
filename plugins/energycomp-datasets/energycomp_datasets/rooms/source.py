"""Images with the masks of their objects as data sources: arrow rooms, sprites, rooms with solids, and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from torch.nn.functional import interpolate

from energycomp.decomposition import Decomposer
from energycomp.errors import InputError
from energycomp.fields import parse_range
from energycomp_datasets.pictures import write_examples
from energycomp_datasets.rooms.arrow_room import SIZE, arrow_rooms
from energycomp_datasets.rooms.classifier import classifier_accuracy, structure_accuracy
from energycomp_datasets.rooms.mask_files import examples_in, mask_file
from energycomp_datasets.rooms.rooms import MOST, layout, render
from energycomp_datasets.shapes.source import ShapesSource
from energycomp_datasets.synthetic import HELD_OUT, WRITTEN, synthetic
from energycomp_lab.evaluation import Example, Generated

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

SPRITES = ShapesSource("a")
COUNTS = (1, MOST)
AT_ONCE = 50  # sampled scenes per batch
CLASSIFIED = 1000  # held-out scenes for the accuracy of the classifier


def arrow_room(index: int, seed: int) -> Example:
    """Arrow room number `index` of a seed: its objects are three shapes and the arrow."""
    rooms = arrow_rooms(np.random.default_rng([seed, index]), 1)
    return Example(rooms.images[0], name=f"arrow room {index}", masks=rooms.masks[0])


def room(index: int, seed: int, *, counts: tuple[int, int] = COUNTS) -> Example:
    """Room number `index` of a seed, with a number of solids out of a range."""
    rng = np.random.default_rng([seed, index])
    count = int(rng.integers(counts[0], counts[1] + 1))
    drawn = (torch.from_numpy(part).float()[None] for part in layout(rng, count))
    images, masks = render(*drawn)
    return Example(images[0], name=f"room {index}", masks=masks[0, :count])


@attrs.frozen
class ArrowSource:
    """Arrow rooms (thesis section 3.4), and a score of the rooms that a model samples.

    >>> (example,) = ArrowSource().examples("synthetic", count=1, seed=0)
    >>> example.image.shape, example.masks.shape
    (torch.Size([3, 32, 32]), torch.Size([4, 32, 32]))
    """

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Rendered rooms for "synthetic", held out from training; or a file or folder, see `read`."""
        options = synthetic(spec)
        if options == "":
            return Generated(count, partial(arrow_room, seed=HELD_OUT + seed))
        if options is not None:
            raise InputError(f"got {spec!r}; expected synthetic alone: every arrow room has three objects and an arrow")
        return read(spec, count=count)

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """As `write_examples` does; there are no `options`."""
        if options:
            raise InputError(f"got the options {options!r}; expected none: arrow rooms are of one kind")
        write_examples(folder, Generated(count, partial(arrow_room, seed=WRITTEN + seed)), progress)

    def metrics(self) -> MetricCollection:
        """Foreground ARI of the slots, and the number of slots that are used."""
        return _metrics()

    def scene_scores(self, decomposer: Decomposer, *, count: int, seed: int) -> Mapping[str, float]:
        """The share of scenes sampled by `decomposer.sample` that are right, and the accuracy of the classifier."""
        generator = torch.Generator().manual_seed(seed)
        sizes = [min(AT_ONCE, count - start) for start in range(0, count, AT_ONCE)]
        scenes = [decomposer.sample(size, generator=generator).cpu() for size in sizes]  # type: ignore[attr-defined]
        return {
            "structure_accuracy": structure_accuracy(interpolate(torch.cat(scenes), size=(SIZE, SIZE), mode="area")),
            "classifier_accuracy": classifier_accuracy(CLASSIFIED, seed=seed),
        }


@attrs.frozen
class SpritesSource:
    """The coloured shapes of world "a".

    >>> (example,) = SpritesSource().examples("synthetic:2", count=1, seed=0)
    >>> example.masks.shape[0]  # objects
    2
    """

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Rendered shapes, "synthetic", "synthetic:4" or "synthetic:2-4", held out; or a file or folder, see `read`."""
        if synthetic(spec) is not None:
            return SPRITES.examples(spec, count=count, seed=seed)
        return read(spec, count=count)

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """As `ShapesSource.write`; `options` such as 3 or 2-4."""
        SPRITES.write(folder, count=count, seed=seed, options=options, progress=progress)

    def metrics(self) -> MetricCollection:
        """Foreground ARI of the slots, and the number of slots that are used."""
        return _metrics()


@attrs.frozen
class RoomsSource:
    """Rooms with one to three solids, as in ObjectsRoom.

    >>> (example,) = RoomsSource().examples("synthetic:3", count=1, seed=0)
    >>> example.image.shape, example.masks.shape
    (torch.Size([3, 32, 32]), torch.Size([3, 32, 32]))
    """

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Rendered rooms, "synthetic", "synthetic:2" or "synthetic:1-3", held out; or a file or folder, see `read`."""
        options = synthetic(spec)
        if options is not None:
            return Generated(count, partial(room, seed=HELD_OUT + seed, counts=_counts(options)))
        return read(spec, count=count)

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        """As `write_examples` does; `options` such as 2 or 1-3."""
        made = Generated(count, partial(room, seed=WRITTEN + seed, counts=_counts(options)))
        write_examples(folder, made, progress)

    def metrics(self) -> MetricCollection:
        """Foreground ARI of the slots, and the number of slots that are used."""
        return _metrics()


def read(spec: str, *, count: int) -> Sequence[Example]:
    """At most `count` examples of "scenes.npz", "scenes.h5" or "scenes.npz:4", or a folder that `write` makes.

    The number is that of background entities, see `mask_files.mask_file`.

    Raises:
        InputError: nothing of the kind, or what cannot be read.
    """
    file = mask_file(spec)
    return SPRITES.examples(spec, count=count, seed=0) if file is None else examples_in(file, count=count)


def _metrics() -> MetricCollection:
    from torchmetrics import MetricCollection

    from energycomp_lab.evaluation import ForegroundARI, SlotsUsed

    return MetricCollection({"ari_fg": ForegroundARI(), "slots_used": SlotsUsed()}, compute_groups=False)


def _counts(text: str) -> tuple[int, int]:
    return parse_range(text, greatest=MOST) if text else COUNTS
