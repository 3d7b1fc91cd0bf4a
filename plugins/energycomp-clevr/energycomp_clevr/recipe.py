"""How the model of places is trained: the data, their augmentation, and the settings of `fit`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp import load, training
from energycomp.models import Model
from energycomp.training import (
    FitConfig,
    Loss,
    Recipe,
    Step,
    collate,
    contrastive_loss,
    denoising_loss,
    start,
)
from energycomp_clevr.model import clevr_places as build
from energycomp_clevr.model import flow_from
from energycomp_clevr.rivals import draw_rivals
from energycomp_clevr.scenes import plain_scenes, scenes_of, varied_scenes

__all__ = ["augment", "clevr_places"]

RIVALS = 2.0  # weight of telling wrong places apart


def augment(batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random flips, exposure and tint: images (B, 3, H, W) in [-1, 1] and the places of their objects (R, 2)."""
    images, flipped = training.augment(batch["image"], generator, exposure=0.08)
    x, y = batch["values"].unbind(1)
    return images, torch.stack([torch.where(flipped[batch["owner"]], 1 - x, x), y], dim=1)


def clevr_places(*, data: Path | None, init: Model | None, preset: str, cache: Path, **options: Any) -> Recipe:
    """The recipe of the shipped weights of places (presets "default" and "flow"), with rivals, or of the thesis.

    Args:
        data: a folder in CLEVR's layout; rendered scenes when left out, made once and kept under `cache`.
        init: a model to start from; under "flow" also one that predicts x0, such as `clevr-places`, see `flow_from`;
            under "reader" the weights of `clevr-places` when left out.
        preset: "default"; "flow", which is the same but for the prediction type and the schedule; "reader", with rivals
            on varied and crowded scenes; or "paper".
        options: of the preset.
    """
    reads = preset == "reader"
    if reads and init is None:
        init = load("clevr-places")
    if preset == "flow" and init is not None and init.denoiser.prediction_type == "sample":
        init = flow_from(init)
    model = start(init, partial(build, preset="default" if reads else preset, pretrained=False, **options))
    if data:
        scenes = scenes_of(data, model.processor, lambda record: record.coordinates)
    else:
        scenes = varied_scenes(cache, numbers=2) if reads else plain_scenes(cache)
    config = FitConfig(
        steps=10_000, batch_size=32, learning_rate=5e-4, warmup_fraction=0.1, max_grad_norm=0.1, mixed_precision="bf16"
    )
    if reads:
        config = attrs.evolve(config, steps=4_000, batch_size=24, learning_rate=2e-4)
    if preset == "paper":
        config = FitConfig(steps=80_000, batch_size=128, learning_rate=2e-5, schedule="constant")
    loss, network = _loss(model, contrast=RIVALS if reads else 0.0), model.denoiser.network
    return Recipe(model=model, module=network, loss=loss, data=scenes, config=config, collate_fn=collate)


def _loss(model: Model, *, contrast: float) -> Loss:
    denoiser, conditioner = model.denoiser, model.conditioner

    def loss(module: torch.nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        images, values = augment(batch, step.generator)
        samples = images if denoiser.codec is None else denoiser.codec.encode(images)
        given = denoiser, samples, conditioner(values), batch["owner"]
        if not contrast:
            return denoising_loss(*given, module=module, generator=step.generator)
        rivals = draw_rivals(values, batch["owner"], len(images), conditioner, step.generator)
        return contrastive_loss(*given, rivals, weight=contrast, module=module, generator=step.generator)

    return loss
