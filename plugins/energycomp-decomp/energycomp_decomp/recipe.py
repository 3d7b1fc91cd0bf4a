"""Training recipes of decomposition: images without labels, and the settings of `fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from energycomp.errors import InputError
from energycomp.images import from_bytes
from energycomp.models import Model
from energycomp_datasets.pictures import in_folder
from energycomp_datasets.shapes.training import draw_lit, draw_shapes
from energycomp_decomp.encoders import FactorsEncoder, PartsEncoder
from energycomp_decomp.loss import factors_loss, parts_loss
from energycomp_decomp.model import decomp as build, lit as build_lit
from energycomp_decomp.networks import PartsUNet
from energycomp_lab.training import FitConfig, Loss, Recipe, Step, option_number, start

BATCH = 32
STEPS = 11_000
LIT_STEPS = 3_000
REGULARIZATION = {"overlap": 2.0, "imbalance": 0.1, "spread": 1.0}  # loss weights of objects
WARM_UP = (0.15, 0.5)  # shares of the steps between which the loss weights of factors grow from 0
NOISY = 0.7  # share of the steps with mostly noisy timesteps


def decomp(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    world: str = "a",
    objects: str = "2-4",
    overlap: str | None = None,
    imbalance: str | None = None,
    spread: str | None = None,
    radius: str = "0",
    **options: Any,
) -> Recipe:
    """Decomposition into objects; the recipe of the shipped weights.

    Args:
        data: a folder of images; by default drawn shapes.
        preset: "default"; "thesis" or "paper" for the mean over full networks, trained on the squared error alone.
        world: of the drawn shapes.
        objects: the number of objects in a drawn image, or a range.
        overlap, imbalance, spread: loss weights of the regularization terms of `parts_loss`; by default those of the
            preset.
        radius: of an object as a share of the image, for `spread`, which is 0 up to it and then is used to the end.
        options: of the model: `parts`, one more than the objects of an image, `width` of a latent, `size` in pixels,
            `prediction`, sample or epsilon.
    """
    del cache
    model = _start(init, PartsEncoder, partial(build, preset=preset, pretrained=False), options)
    if init is None and data is None and world != "a":
        model = attrs.evolve(model, name=f"{model.name}-{world}")  # by which `evaluate` finds the data
    denoiser = model.denoiser
    parts = denoiser.rule == "product" and denoiser.prediction_type == "sample"
    given = {"overlap": overlap, "imbalance": imbalance, "spread": spread}
    weights = {
        f"{name}_weight": REGULARIZATION[name] * parts if text is None else option_number(name, text)
        for name, text in given.items()
    }
    weights["radius"] = option_number("radius", radius)
    shown = (
        in_folder(data, model.processor) if data is not None else draw_shapes(world, objects, denoiser.sample_shape[1])
    )
    if init is None and parts:
        base: Any = denoiser.network.base
        base.copy_(shown.median())
    rate = 2e-3 if denoiser.rule == "product" else 1e-3
    loss = _loss(model, weights)
    config = _config(STEPS, rate)
    return Recipe(model=model, module=model.trained, loss=loss, data=shown, config=config)


def lit(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    kl: float | str = 1.1e-3,
    swap: float | str = 0.03,
    covariance: float | str = 0.1,
    **options: Any,
) -> Recipe:
    """Decomposition into factors of the whole image.

    Args:
        data: a folder of images; by default drawn images of one lit object.
        kl, swap, covariance: loss weights of `factors_loss`.
        options: of the model: `parts`, `width` of a content vector and `size`.
    """
    del cache
    given = {"kl": kl, "swap": swap, "covariance": covariance}
    weights = {f"{name}_weight": option_number(name, value) for name, value in given.items()}
    model = _start(init, FactorsEncoder, partial(build_lit, preset=preset, pretrained=False), options)
    shown = in_folder(data, model.processor) if data is not None else draw_lit(model.denoiser.sample_shape[1])
    base: Any = model.denoiser.network.base
    if init is None:
        base.copy_(shown.median())
    loss = _factors_loss(model, weights)
    config = _config(LIT_STEPS, 2e-3)
    return Recipe(model=model, module=model.trained, loss=loss, data=shown, config=config)


def _start(
    init: Model | None, encoder: type[nn.Module], make: Callable[..., Model], options: Mapping[str, Any]
) -> Model:
    """The model to train: `init`, if its encoder is of this kind and no options are given, or a new one."""
    if init is not None and (not isinstance(init.encoder, encoder) or options):
        raise InputError(
            f"got --init {init.name} with {options or 'no such encoder'}; expected one of this recipe alone"
        )
    return start(init, partial(make, **options))


def _config(steps: int, learning_rate: float) -> FitConfig:
    return FitConfig(steps=steps, batch_size=BATCH, learning_rate=learning_rate, warmup_fraction=0.02, ema_decay=0.998)


def _loss(model: Model, weights: Mapping[str, float]) -> Loss:
    """The loss of a batch of images; more noise hides the first ones than the others."""
    # The terms that separate parts also shrink them; the steps that refine edges do without. Within a radius `spread`
    # does not.
    shrinking = ("imbalance_weight",) if weights["radius"] else ("imbalance_weight", "spread_weight")
    later = {**weights, **dict.fromkeys(shrinking, 0.0)}

    def loss(module: Any, batch: Tensor, step: Step) -> Tensor:
        samples = _samples(batch)
        network = module["network"]
        latents = module["encoder"](samples)
        hidden = step.number + 1 <= NOISY * step.steps
        power = 1.0
        if isinstance(network, PartsUNet):
            power = 0.25 if hidden else 0.6
        denoiser = attrs.evolve(model.denoiser, network=network)
        chosen = weights if hidden else later
        return parts_loss(denoiser, latents, samples, timestep_power=power, generator=step.generator, **chosen)

    return loss


def _factors_loss(model: Model, weights: Mapping[str, float]) -> Loss:
    """The loss of a batch of images; more noise hides the first ones, whose loss weights are lower."""

    def loss(module: Any, batch: Tensor, step: Step) -> Tensor:
        # With the full weights from the start, latents stay empty.
        done = (step.number + 1) / step.steps
        grown = min(max((done - WARM_UP[0]) / (WARM_UP[1] - WARM_UP[0]), 0.0), 1.0)
        current = {name: grown * weight for name, weight in weights.items()}
        denoiser = attrs.evolve(model.denoiser, network=module["network"])
        power = 0.25 if step.number + 1 <= NOISY * step.steps else 0.6
        samples = _samples(batch)
        return factors_loss(
            denoiser, module["encoder"], samples, timestep_power=power, generator=step.generator, **current
        )

    return loss


def _samples(batch: Tensor) -> Tensor:
    return from_bytes(batch).contiguous(memory_format=torch.channels_last)
