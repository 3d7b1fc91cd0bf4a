"""The scenes that the models are trained on: rendered once to disk, or read from a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import attrs
import torch
from torch import Tensor
from torch.utils.data import Dataset, StackDataset
from tqdm import tqdm

from energycomp.files import atomic_file, read_tensors, write_tensors
from energycomp.images import ImageProcessor, to_bytes
from energycomp_datasets.clevr.layout import read, render_arrays, render_objects
from energycomp_datasets.clevr.records import Record
from energycomp_datasets.clevr.scenes import Variety

__all__ = ["plain_scenes", "scenes_of", "varied_scenes"]

PLAIN = 32_000
OBJECTS = (0, 5)  # 6 and more stay out of distribution; K = 0 identifies the unconditional row
WIDE = Variety(camera=0.7, lights=1.6, sizes=0.06)  # beyond what CLEVR shows
CROWDED = attrs.evolve(WIDE, side=2.6, gap=0.05, direction_gap=0.05)  # objects that cover each other
VARIED = ((12_000, OBJECTS, WIDE), (12_000, (3, 5), CROWDED))
CHUNK = 250


def plain_scenes(cache: Path) -> Dataset[dict[str, Tensor]]:
    """Scenes as CLEVR has them, of seed 0, and the places of their objects (K, 2)."""
    starts = tqdm(range(0, PLAIN, CHUNK), desc=f"rendering {PLAIN:,} scenes", unit_scale=CHUNK)
    rendered = (render_arrays(CHUNK, objects=OBJECTS, seed=0, start=start) for start in starts)
    return _kept(cache / "clevr-scenes.safetensors", rendered)


def varied_scenes(cache: Path, *, numbers: int = 6) -> Dataset[dict[str, Tensor]]:
    """Varied and crowded scenes, and their objects (K, 6): a place, and a code for each attribute.

    Args:
        numbers: how many of the six; 2 are places alone.
    """
    chunks = [
        (seed, objects, variety, start)
        for seed, (count, objects, variety) in enumerate(VARIED)
        for start in range(0, count, CHUNK)
    ]
    rendered = (
        render_objects(CHUNK, objects=objects, seed=seed, start=start, variety=variety)
        for seed, objects, variety, start in tqdm(chunks, desc="rendering scenes", unit_scale=CHUNK)
    )
    return _kept(cache / "clevr-described.safetensors", rendered, numbers=numbers)


def _kept(
    path: Path, rendered: Iterable[tuple[Tensor, list[Tensor]]], *, numbers: int | None = None
) -> Dataset[dict[str, Tensor]]:
    """What is rendered, once: the images and the objects in them, from a file where there is one."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        images, values = [], []
        for some, found in rendered:
            images.append(some)
            values += found
        counts = torch.tensor([len(v) for v in values])
        with atomic_file(path) as temporary:
            write_tensors(temporary, {"images": torch.cat(images), "values": torch.cat(values), "counts": counts})
    tensors = read_tensors(path)
    return _scenes(tensors["images"], tensors["values"][:, :numbers], tensors["counts"])


def scenes_of(
    folder: Path, processor: ImageProcessor, values: Callable[[Record], Tensor]
) -> Dataset[dict[str, Tensor]]:
    """Pictures of a folder in CLEVR's layout, at the model's size, in memory; `values` (K, D) of each record."""
    records = read(folder)
    images = [to_bytes(processor(record.path)[0]) for record in tqdm(records, desc="reading")]
    counts = torch.tensor([record.count for record in records])
    return _scenes(torch.stack(images), torch.cat([values(record) for record in records]), counts)


def _scenes(images: Tensor, values: Tensor, counts: Tensor) -> Dataset[dict[str, Tensor]]:
    """Images (N, 3, H, W) uint8 with their objects: `values` (R, D), of which each image has a count."""
    return StackDataset(image=images, values=values.split(counts.tolist()))  # type: ignore[arg-type]
