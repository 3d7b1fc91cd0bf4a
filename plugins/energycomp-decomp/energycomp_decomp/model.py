"""Models that take pictures apart: coloured shapes of two worlds, with weights, and untrained ones."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Any

import torch

from energycomp.conditioning import Latents
from energycomp.denoiser import Denoiser
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.model import Defaults, Model
from energycomp.pretrained import from_pretrained
from energycomp_decomp.networks import PartsEncoder, PartsUNet
from energycomp_decomp.shapes import SIZE

__all__ = ["decomp", "default"]

PRETRAINED = ("a",)


def decomp(*, preset: str = "default", pretrained: bool = True, world: str = "a", **options: Any) -> Model:
    """The model of a world, whose encoder reads latents from pictures.

    Args:
        preset: "default", 32x32 pixels on a CPU.
        pretrained: with the weights in this package.
        world: of the weights.
        options: of an untrained model: `parts`, `width` and `size`.
    """
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected 'default', the only one")
    if unknown := options.keys() - {"parts", "width", "size"}:
        raise InputError(f"got the option {min(unknown)!r}; expected parts, width or size")
    if not pretrained:
        return default(**{name: _whole(name, value) for name, value in options.items()})
    if world not in PRETRAINED or options:
        raise InputError(
            f"got world {world!r} with {options or 'no options'} and pretrained weights, which are in this package for "
            f"{', '.join(PRETRAINED)} without options; expected these; or train it: energycomp train decomp"
        )
    with as_file(files("energycomp_decomp") / "weights" / world) as folder:
        return from_pretrained(folder)


def default(*, parts: int = 4, width: int = 8, size: int = SIZE) -> Model:
    """Untrained: x0 prediction under the rule product, `parts` latents of `width` numbers."""
    denoiser = Denoiser(
        network=PartsUNet(sample_size=size, token_width=width).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        alphas_cumprod=_schedule(),
        prediction_type="sample",
        rule="product",
        sample_shape=(3, size, size),
        token_shape=(1, width),
    )
    encoder = PartsEncoder(sample_size=size, parts=parts, token_width=width)
    return Model(
        name="decomp",
        denoiser=denoiser,
        conditioner=Latents(width),
        processor=ImageProcessor(size=(size, size), resize="crop"),
        network_name="parts",
        conditioner_name="latents",
        defaults=Defaults(timesteps=(500.0, 1000.0), gamma=4.0, solver="sgd", counts=(0, parts), distinct=False),
        encoder=encoder.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        encoder_name="parts",
    )


def _whole(name: str, value: Any) -> int:
    if not str(value).isdecimal() or not 1 <= int(value) <= 256:
        raise InputError(f"got {name}={value}; expected a whole number from 1 to 256")
    return int(value)


def _schedule() -> torch.Tensor:
    from diffusers.schedulers import DDPMScheduler

    alphas_cumprod: torch.Tensor = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    return alphas_cumprod
