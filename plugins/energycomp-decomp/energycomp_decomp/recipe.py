"""How parts are learned: pictures without labels, and the settings of `fit`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.model import Model
from energycomp.recipe import Recipe
from energycomp.training import FitResult, fit
from energycomp_decomp.data import pictures
from energycomp_decomp.loss import parts_loss
from energycomp_decomp.model import decomp as build
from energycomp_decomp.networks import PartsEncoder
from energycomp_decomp.shapes import layout, render

__all__ = ["Pictures", "decomp"]

DRAWN, OBJECTS = 20_000, 3
BATCH, STEPS = 32, 5_500
NOISY = 0.7  # of the steps see pictures that noise hides


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


def decomp(
    *, data: Path | None, init: Model | None, preset: str, cache: Path, world: str = "a", **options: Any
) -> Recipe:
    """The recipe of the shipped weights.

    Args:
        data: a folder of pictures; drawn shapes, three a picture, when left out.
        init: a model to start from.
        preset: "default".
        cache: not used: what is drawn is drawn anew.
        world: of the drawn shapes.
        options: of the model: `parts`, one more than the objects of a picture, `width` of a latent, `size` in pixels.
    """
    del cache
    if init is not None and (not isinstance(init.encoder, PartsEncoder) or options):
        raise InputError(
            f"got --init {init.name} with {options or 'no such encoder'}; expected one of this recipe alone"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = init or build(preset=preset, pretrained=False, **options)
    shown = _folder(data, model.processor) if data is not None else _drawn(world, model.denoiser.sample_shape[1])
    base: Any = model.denoiser.network.base
    if init is None:
        base.copy_(shown.median())
    cast("PartsEncoder", model.encoder).seen.zero_()
    settings: dict[str, Any] = {
        "learning_rate": 2e-3,
        "weight_decay": 1e-2,
        "warmup_fraction": 0.05,
        "max_grad_norm": 1.0,
    }
    run = partial(_fit, model, shown, batch_size=BATCH, schedule="one_cycle", ema_decay=0.998, **settings)
    return Recipe(model=model, fit=run, steps=STEPS)


def _fit(model: Model, data: Pictures, *, steps: int, **options: Any) -> FitResult:
    noisy = round(NOISY * steps * (options.get("micro_batches") or 1))
    return fit(model.trained, _loss(model, noisy), data, steps=steps, **options)


def _loss(model: Model, noisy: int) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
    """The loss of a batch of pictures; the first `noisy` of them are hidden by more noise than the others."""

    def loss(module: Any, batch: Tensor, generator: torch.Generator) -> Tensor:
        samples = (batch.float() / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)
        network, encoder = module["network"], module["encoder"]
        latents = encoder(samples)
        network.mean.copy_(encoder.mean)
        network.std.copy_(encoder.std)
        power = 0.25 if int(encoder.seen) <= noisy else 0.6
        denoiser = attrs.evolve(model.denoiser, network=network)
        return parts_loss(denoiser, latents, samples, timestep_power=power, generator=generator)

    return loss


def _drawn(world: str, size: int) -> Pictures:
    chunks, chunk = [], 500
    for start in tqdm(range(0, DRAWN, chunk), desc=f"drawing {DRAWN:,} pictures", delay=2, leave=False):
        objects = [layout(np.random.default_rng([0, start + k]), OBJECTS, world=world) for k in range(chunk)]
        images, _ = render(torch.from_numpy(np.stack(objects)).float(), world=world, size=size)
        chunks.append(((images + 1) * 127.5).round().byte())
    return Pictures(torch.cat(chunks))


def _folder(folder: Path, processor: ImageProcessor) -> Pictures:
    """The pictures of a folder at the model's size, in memory."""
    paths = pictures(folder)
    if len(paths) < BATCH:
        raise InputError(f"got {folder} with {len(paths)} pictures; expected at least one batch of {BATCH} to train on")
    images = [((processor(path)[0] + 1) * 127.5).round().byte() for path in tqdm(paths, desc="reading", delay=2)]
    return Pictures(torch.stack(images))
