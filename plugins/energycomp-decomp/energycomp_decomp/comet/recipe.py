"""How energies are learned: pictures without labels, and the settings of `fit`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import attrs
from torch import Tensor

from energycomp.errors import InputError
from energycomp.images import from_bytes
from energycomp.models import Model
from energycomp_datasets.pictures import in_folder
from energycomp_datasets.shapes.training import draw_shapes
from energycomp_decomp.comet.energy import EnergyNet, comet_loss
from energycomp_decomp.comet.model import untrained
from energycomp_decomp.model import parse_whole_numbers
from energycomp_lab.training import FitConfig, Loss, Recipe, Step, start

BATCH = 32
STEPS = 1_200


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
        world: of the drawn shapes.
        objects: of a drawn picture, a number or a range such as "2-4".
        options: of the model: `parts`, `width` of a latent, `size` in pixels.
    """
    del cache
    if init is not None and (not isinstance(init.denoiser.network, EnergyNet) or options):
        raise InputError(f"got --init {init.name} with {options or 'no energies'}; expected one of this recipe alone")
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected 'default', the only one")
    model = start(init, partial(untrained, **parse_whole_numbers(options, ("parts", "width", "size"))))
    size = model.denoiser.sample_shape[1]
    shown = in_folder(data, model.processor) if data is not None else draw_shapes(world, objects, size)
    if init is None:
        base: Any = model.denoiser.network.base
        base.copy_(shown.median())
    config = FitConfig(steps=STEPS, batch_size=BATCH, learning_rate=2e-3, warmup_fraction=0.1, ema_decay=0.998)
    # Grids of samples are drawn by diffusion, and these energies have no timestep.
    return Recipe(model=model, module=model.trained, loss=_loss(model), data=shown, config=config, can_sample=False)


def _loss(model: Model) -> Loss:
    def loss(module: Any, batch: Tensor, step: Step) -> Tensor:
        samples = from_bytes(batch)
        network, encoder = module["network"], module["encoder"]
        latents = encoder(samples)
        denoiser = attrs.evolve(model.denoiser, network=network)
        return comet_loss(denoiser, latents, samples, generator=step.generator)

    return loss
