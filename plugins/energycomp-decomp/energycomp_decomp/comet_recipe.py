"""How energies are learned: pictures without labels, and the settings of `fit`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import torch
from torch import Tensor, nn

from energycomp.errors import InputError
from energycomp.models import Model
from energycomp.training import FitResult, Recipe, fit
from energycomp_decomp.comet import untrained
from energycomp_decomp.energies import EnergyNet, comet_loss
from energycomp_decomp.model import whole_numbers
from energycomp_decomp.networks import PartsEncoder
from energycomp_decomp.training_data import Pictures, drawn_shapes, in_folder

__all__ = ["comet"]

BATCH, STEPS = 32, 1_200


def comet(
    *,
    data: Path | None,
    init: Model | None,
    preset: str,
    cache: Path,
    world: str = "a",
    objects: str = "2-4",
    **options: Any,
) -> Recipe:
    """Minutes on one core, for comparison with Decomp Diffusion.

    Args:
        data: a folder of pictures; drawn shapes when left out.
        init: a model to start from.
        preset: "default".
        cache: not used: what is drawn is drawn anew.
        world: of the drawn shapes.
        objects: of a drawn picture, a number or a range such as "2-4".
        options: of the model: `parts`, `width` of a latent, `size` in pixels.
    """
    del cache
    if init is not None and (not isinstance(init.denoiser.network, EnergyNet) or options):
        raise InputError(f"got --init {init.name} with {options or 'no energies'}; expected one of this recipe alone")
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected 'default', the only one")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = init or untrained(**whole_numbers(options, ("parts", "width", "size")))
    size = model.denoiser.sample_shape[1]
    shown = in_folder(data, model.processor, BATCH) if data is not None else drawn_shapes(world, objects, size)
    if init is None:
        base: Any = model.denoiser.network.base
        base.copy_(shown.median())
    cast("PartsEncoder", model.encoder).seen.zero_()
    settings: dict[str, Any] = {"learning_rate": 2e-3, "weight_decay": 1e-2, "warmup_fraction": 0.1}
    run = partial(_fit, model, shown, batch_size=BATCH, ema_decay=0.998, **settings)
    return Recipe(model=model, fit=run, steps=STEPS)


def _fit(model: Model, data: Pictures, *, steps: int, **options: Any) -> FitResult:
    # Grids of samples are drawn by diffusion, and these energies have no timestep.
    rest = {name: value for name, value in options.items() if name not in ("on_sample", "sample_every")}
    return fit(model.trained, _loss(model), data, steps=steps, **rest)


def _loss(model: Model) -> Callable[[nn.Module, Any, torch.Generator], Tensor]:
    def loss(module: Any, batch: Any, generator: torch.Generator) -> Tensor:
        samples = batch.float() / 127.5 - 1.0
        network, encoder = module["network"], module["encoder"]
        latents = encoder(samples)
        denoiser = attrs.evolve(model.denoiser, network=network)
        return comet_loss(denoiser, latents, samples, generator=generator)

    return loss
