"""How the model of places is trained: the data, their augmentation, and the settings of `fit`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, StackDataset
from tqdm import tqdm

from energycomp import training
from energycomp.files import atomic_file, read_tensors, write_tensors
from energycomp.images import ImageProcessor, to_bytes
from energycomp.models import Model
from energycomp.training import FitConfig, Loss, Recipe, Step, collate, denoising_loss, start
from energycomp_clevr.model import clevr_places as build
from energycomp_clevr.model import flow_from
from energycomp_datasets.clevr.layout import read, render_arrays
from energycomp_datasets.clevr.records import Record

__all__ = ["augment", "clevr_places", "scenes_of"]

RENDERED = 32_000
OBJECTS = (0, 5)  # 6 and more stay out of distribution; K = 0 identifies the unconditional row


def augment(batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random flips, exposure and tint: images (B, 3, H, W) in [-1, 1] and the places of their objects (R, 2)."""
    images, flipped = training.augment(batch["image"], generator, exposure=0.08)
    x, y = batch["values"].unbind(1)
    return images, torch.stack([torch.where(flipped[batch["owner"]], 1 - x, x), y], dim=1)


def clevr_places(*, data: Path | None, init: Model | None, preset: str, cache: Path, **options: Any) -> Recipe:
    """The recipe of the shipped weights of places (presets "default" and "flow"), or of the thesis (preset "paper").

    Args:
        data: a folder in CLEVR's layout; rendered scenes when left out, made once and kept under `cache`.
        init: a model to start from; under "flow" also one that predicts x0, such as `clevr-places`, see `flow_from`.
        preset: "default"; "flow", which is the same but for the prediction type and the schedule; or "paper".
        options: of the preset.
    """
    if preset == "flow" and init is not None and init.denoiser.prediction_type == "sample":
        init = flow_from(init)
    model = start(init, partial(build, preset=preset, pretrained=False, **options))
    if data:
        scenes = scenes_of(data, model.processor, lambda record: record.coordinates)
    else:
        scenes = _rendered(cache / "clevr-scenes.safetensors")
    config = FitConfig(
        steps=10_000, batch_size=32, learning_rate=5e-4, warmup_fraction=0.1, max_grad_norm=0.1, mixed_precision="bf16"
    )
    if preset == "paper":
        config = FitConfig(steps=80_000, batch_size=128, learning_rate=2e-5, schedule="constant")
    network = model.denoiser.network
    return Recipe(model=model, module=network, loss=_loss(model), data=scenes, config=config, collate_fn=collate)


def _loss(model: Model) -> Loss:
    denoiser, conditioner = model.denoiser, model.conditioner

    def loss(module: torch.nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        images, values = augment(batch, step.generator)
        samples = images if denoiser.codec is None else denoiser.codec.encode(images)
        return denoising_loss(
            denoiser, samples, conditioner(values), batch["owner"], module=module, generator=step.generator
        )

    return loss


def _scenes(images: Tensor, values: Tensor, counts: Tensor) -> Dataset[dict[str, Tensor]]:
    """Images (N, 3, H, W) uint8 with their objects: `values` (R, D), of which each image has a count."""
    return StackDataset(image=images, values=values.split(counts.tolist()))  # type: ignore[arg-type]


def _rendered(path: Path) -> Dataset[dict[str, Tensor]]:
    """The training scenes of seed 0, rendered once to disk."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        images, values, chunk = [], [], 250
        for start in tqdm(range(0, RENDERED, chunk), desc=f"rendering {RENDERED:,} scenes", unit_scale=chunk):
            some, places = render_arrays(chunk, objects=OBJECTS, seed=0, start=start)
            images.append(some)
            values += places
        counts = torch.tensor([len(v) for v in values])
        with atomic_file(path) as temporary:
            write_tensors(temporary, {"images": torch.cat(images), "values": torch.cat(values), "counts": counts})
    tensors = read_tensors(path)
    return _scenes(tensors["images"], tensors["values"], tensors["counts"])


def scenes_of(
    folder: Path, processor: ImageProcessor, values: Callable[[Record], Tensor]
) -> Dataset[dict[str, Tensor]]:
    """Pictures of a folder in CLEVR's layout, at the model's size, in memory; `values` (K, D) of each record."""
    records = read(folder)
    images = [to_bytes(processor(record.path)[0]) for record in tqdm(records, desc="reading")]
    counts = torch.tensor([record.count for record in records])
    return _scenes(torch.stack(images), torch.cat([values(record) for record in records]), counts)
