"""Arrow rooms, sprites and rooms with solids as data sources, for models of slots."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import interpolate

from energycomp.decomposition import Decomposer
from energycomp.errors import InputError
from energycomp.fields import parse_range
from energycomp_datasets.masked import Draw, MaskedSource
from energycomp_datasets.rooms.arrow_room import SIZE, arrow_rooms
from energycomp_datasets.rooms.classifier import structure_accuracy
from energycomp_datasets.rooms.rooms import MOST, layout, render
from energycomp_datasets.shapes.source import parse_shapes
from energycomp_lab.evaluation import Example

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

COUNTS = (1, MOST)
AT_ONCE = 50  # sampled scenes per batch


def arrow_source() -> MaskedSource:
    """Arrow rooms (thesis section 3.4), and a score of the rooms that a model samples.

    >>> (example,) = arrow_source().examples("synthetic", count=1, seed=0)
    >>> example.image.shape, example.masks.shape
    (torch.Size([3, 32, 32]), torch.Size([4, 32, 32]))
    """
    return MaskedSource(_parse_arrow, _metrics, score_scenes)


def sprites_source() -> MaskedSource:
    """The coloured shapes of world "a": "synthetic", "synthetic:4" or "synthetic:2-4"."""
    return MaskedSource(parse_shapes, _metrics)


def rooms_source() -> MaskedSource:
    """Rooms with one to three solids, as in ObjectsRoom: "synthetic", "synthetic:2" or "synthetic:1-3".

    >>> (example,) = rooms_source().examples("synthetic:3", count=1, seed=0)
    >>> example.image.shape, example.masks.shape
    (torch.Size([3, 32, 32]), torch.Size([3, 32, 32]))
    """
    return MaskedSource(_parse_rooms, _metrics)


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


def score_scenes(decomposer: Decomposer, *, count: int, seed: int) -> Mapping[str, float]:
    """The share of scenes sampled by `decomposer.sample` that are right, by the classifier."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [min(AT_ONCE, count - start) for start in range(0, count, AT_ONCE)]
    scenes = [decomposer.sample(size, generator=generator).cpu() for size in sizes]  # type: ignore[attr-defined]
    return {"structure_accuracy": structure_accuracy(interpolate(torch.cat(scenes), size=(SIZE, SIZE), mode="area"))}


def _parse_arrow(text: str) -> Draw:
    if text:
        raise InputError(f"got the options {text!r}; expected none: every arrow room has three objects and an arrow")
    return arrow_room


def _parse_rooms(text: str) -> Draw:
    return partial(room, counts=parse_range(text, greatest=MOST) if text else COUNTS)


def _metrics() -> MetricCollection:
    from torchmetrics import MetricCollection

    from energycomp_lab.evaluation import ForegroundARI, SlotsUsed

    return MetricCollection({"ari_fg": ForegroundARI(), "slots_used": SlotsUsed()}, compute_groups=False)
