"""How the model of CLEVR scenes is trained: the data, their augmentation, and the settings of `fit`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from energycomp.errors import InputError
from energycomp.files import atomic_file, read_tensors, write_tensors
from energycomp.images import ImageProcessor
from energycomp.models import Model
from energycomp.training import Recipe, collate, denoising_loss, fit
from energycomp_clevr.layout import read, render_arrays
from energycomp_clevr.model import clevr as build

__all__ = ["Scenes", "augment", "clevr"]

RENDERED = 32_000
OBJECTS = (0, 5)  # 6 and more stay out of distribution; K = 0 identifies the unconditional row


class Scenes(Dataset[dict[str, Tensor]]):
    """Pictures (N, 3, H, W) uint8 with the places of their objects, ragged: values (R, 2), counts (N,)."""

    def __init__(self, images: Tensor, values: Tensor, counts: Tensor) -> None:
        self.images, self.values = images, values
        self.ends = counts.cumsum(0)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        start = int(self.ends[index - 1]) if index else 0
        return {"image": self.images[index], "values": self.values[start : int(self.ends[index])]}


def augment(batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random flips, exposure and tint: images (B, 3, H, W) in [-1, 1] and values (R, 2)."""
    images, owner = batch["image"].float() / 127.5 - 1.0, batch["owner"]
    size, device = len(images), images.device

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device)

    flip = (torch.rand(size, generator=generator) < 0.5).to(device)
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    x, y = batch["values"].unbind(1)
    values = torch.stack([torch.where(flip[owner], 1 - x, x), y], dim=1)
    exposure, tint = 1 + 0.08 * random(size, 1, 1, 1), 0.02 * random(size, 3, 1, 1)
    images = ((images + 1) * exposure - 1 + tint).clamp(-1, 1)
    return images.contiguous(memory_format=torch.channels_last), values


def clevr(*, data: Path | None, init: Model | None, preset: str, cache: Path, **options: Any) -> Recipe:
    """The recipe of the shipped weights (preset "default"), or of the thesis (preset "paper").

    Args:
        data: a folder in CLEVR's layout; rendered scenes when left out, made once and kept under `cache`.
        init: a model to start from.
        preset: "default" or "paper".
        options: of the preset.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = init or build(preset=preset, pretrained=False, **options)
    scenes = _folder(data, model.processor) if data else _rendered(cache / "clevr-scenes.safetensors")
    run = partial(fit, model.denoiser.network, _loss(model), scenes, collate_fn=collate)
    if preset == "paper":
        return Recipe(
            model=model,
            fit=partial(run, batch_size=128, learning_rate=2e-5, weight_decay=1e-2, schedule="constant"),
            steps=80_000,
        )
    settings = {"learning_rate": 5e-4, "weight_decay": 1e-2, "warmup_fraction": 0.1, "max_grad_norm": 0.1}
    return Recipe(
        model=model,
        fit=partial(run, batch_size=32, schedule="one_cycle", mixed_precision="bf16", **settings),
        steps=10_000,
    )


def _loss(model: Model) -> Any:
    denoiser, conditioner = model.denoiser, model.conditioner

    def loss(module: torch.nn.Module, batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        images, values = augment(batch, generator)
        samples = images if denoiser.codec is None else denoiser.codec.encode(images)
        return denoising_loss(
            denoiser, samples, conditioner(values), batch["owner"], module=module, generator=generator
        )

    return loss


def _rendered(path: Path) -> Scenes:
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
    return Scenes(tensors["images"], tensors["values"], tensors["counts"])


def _folder(folder: Path, processor: ImageProcessor) -> Scenes:
    """Pictures of a folder in CLEVR's layout, at the model's size, in memory."""
    records = read(folder)
    if len(records) < 32:
        raise InputError(f"got {folder} with {len(records)} pictures; expected at least one batch of 32 to train on")
    images = [((processor(record.path)[0] + 1) * 127.5).round().byte() for record in tqdm(records, desc="reading")]
    counts = torch.tensor([record.count for record in records])
    return Scenes(torch.stack(images), torch.cat([record.coordinates for record in records]), counts)
