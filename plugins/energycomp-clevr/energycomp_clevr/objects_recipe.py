"""How the model of whole objects is trained: varied and crowded scenes, and attributes that are left open."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energycomp import load
from energycomp.models import Model
from energycomp_clevr.latents_recipe import on_latents
from energycomp_clevr.model import clevr as build
from energycomp_clevr.recipe import (
    OBJECTS,
    WIDE,
    WIDE_CROWDED,
    clevr_places,
    draw_open,
    render_once,
    scenes_of,
    values_of,
    widen,
)
from energycomp_clevr.rivals import draw_rivals
from energycomp_lab import training
from energycomp_lab.training import FitConfig, Loss, Recipe, Step, collate, contrastive_loss, start

RENDERED: tuple[tuple[int, dict[str, Any]], ...] = (
    (12_000, {"objects": OBJECTS, "variety": WIDE}),
    (12_000, {"objects": (3, 5), "variety": WIDE_CROWDED}),
)
RIVALS = 2.0  # weight of telling wrong descriptions apart


def augment(batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random flips, exposure and tint, and attributes left open: images (B, 3, H, W) in [-1, 1] and objects (R, 6)."""
    images, flipped = training.augment(batch["image"], generator, exposure=0.08)
    owner, values = batch["owner"], batch["values"]
    x = torch.where(flipped[owner], 1 - values[:, 0], values[:, 0])
    known = values[:, 2:] * ~draw_open(owner, len(images), values.shape[1] - 2, generator)
    return images, torch.cat([x[:, None], values[:, 1:2], known], dim=1)


def clevr(*, data: Path | None, init: Model | None, preset: str, cache: Path, **options: Any) -> Recipe:
    """The recipe of whole objects ("default", "small"), or that of the thesis ("paper"), whose components are places.

    Args:
        data: a folder in CLEVR's layout; rendered scenes when left out, made once and kept under `cache`.
        init: a model to start from, such as `clevr`, whose training goes on then. When left out, "small" begins with
            the weights of `clevr-places`, and the others with nothing.
    """
    if preset == "paper":
        return clevr_places(data=data, init=init, preset=preset, cache=cache, **options)
    new = partial(build, preset=preset, pretrained=False, **options)
    if preset == "default":
        return on_latents(start(init, new), data=data, cache=cache, rivals=RIVALS)
    model = start(None, new)
    if data:
        scenes = scenes_of(data, model.processor, values_of)
    else:
        scenes = render_once(cache / "clevr-described.safetensors", RENDERED, columns=6)
    model = widen(load("clevr-places") if init is None else init, model)
    config = FitConfig(
        steps=8_000,
        batch_size=24,
        learning_rate=4e-4,
        max_grad_norm=0.1,
        ema_decay=0.998,
        mixed_precision="bf16",
    )
    network = model.denoiser.network
    return Recipe(model=model, module=network, loss=_loss(model), data=scenes, config=config, collate_fn=collate)


def _loss(model: Model) -> Loss:
    denoiser = model.denoiser
    conditioner = model.conditioner

    def loss(module: torch.nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        images, values = augment(batch, step.generator)
        owner = batch["owner"]
        condition = conditioner(values)
        rivals = draw_rivals(values, owner, len(images), conditioner, step.generator)
        return contrastive_loss(
            denoiser, images, condition, owner, rivals, weight=RIVALS, module=module, generator=step.generator
        )

    return loss
