"""Models of slots: with the weights of two synthetic worlds, and untrained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energycomp.denoisers import Denoiser
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Model, shipped, shipped_defaults
from energycomp_slots.conditioner import Scenes
from energycomp_slots.networks import SlotVAE

WORLDS = ("arrow", "sprites")
# Section 3.6.3 of Wang (2026): four convolutions of 64 channels at full size, deconvolutions of stride 2 and kernel 5.
PAPER: dict[str, Any] = {
    "size": 128,
    "width": 64,
    "channels": 64,
    "decoder_channels": 64,
    "slots": 5,
    "kernels": (5, 5, 5, 5),
    "stride": 1,
    "hidden": 128,
    "global_hidden": 64,
    "global_stride": 1,
    "shuffle": False,
}
NUMBERS = (
    "slots",
    "width",
    "channels",
    "size",
    "iterations",
    "global_width",
    "hidden",
    "global_hidden",
    "prior_hidden",
)
SWITCHES = ("share_weights", "share_initial", "plain")


def slots(*, preset: str = "default", pretrained: bool = True, world: str = "arrow", **options: Any) -> Model:
    """Slot-VAE: images into slots, slots into images, and new scenes.

    Args:
        pretrained: with the weights in this package, those of the default preset.
        world: of the weights: "arrow", Arrow Room, or "sprites".
        options: of an untrained model: `slots`, `width`, `channels`, `hidden`, `size`, `iterations`, `global_width`,
            `global_hidden`, `sigma_x`, `prior` (normal, diffusion), `prior_hidden`; for ablations also `slots_from`
            (attention, mlp, transformer), `share_weights`, `share_initial` and `plain`.

    Raises:
        InputError: an unknown preset, world or option, or pretrained weights of another preset or with options.

    >>> slots().conditioner.value_shape  # 6 slots of 48 numbers are one value: a scene
    (6, 48)
    """
    if preset not in ("default", "paper"):
        raise InputError(f"got preset {preset!r}; expected 'default' or 'paper'")
    if not pretrained:
        legal = parse_options(options)
        return untrained(**legal) if preset == "default" else untrained(**{**PAPER, **legal})
    if world not in WORLDS or options or preset != "default":
        raise InputError(
            f"got preset {preset!r} and world {world!r} with {options or 'no options'} and pretrained weights, which "
            f"are in this package for {' and '.join(WORLDS)} of the default preset without options; expected one of "
            "these; or train it: energycomp train slots"
        )
    return shipped("energycomp_slots", world)


def sprites(**options: Any) -> Model:
    """The model of the sprites world."""
    return slots(world="sprites", **options)


def untrained(*, size: int = 32, name: str = "slots", **options: Any) -> Model:
    """Untrained: `options` are those of `SlotVAE`."""
    network = SlotVAE(sample_size=size, **options)
    denoiser = Denoiser(
        network=network,
        alphas_cumprod=network.alphas_cumprod.clone(),
        prediction_type="sample",
        rule="mean",
        sample_shape=(3, size, size),
        token_shape=(network.slots, network.width),
        null_trained=False,
    )
    return Model(
        name=name,
        denoiser=denoiser,
        conditioner=Scenes(network.slots, network.width),
        processor=ImageProcessor(size=(size, size), resize="crop"),
        network_name="slots",
        conditioner_name="slots",
        decomposer_name="slots",
        defaults=shipped_defaults("energycomp_slots", "arrow"),
    )


def parse_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the command line, such as "slots=6" and "plain=yes", as arguments of `SlotVAE`.

    >>> parse_options({"slots": "6", "share_weights": "no"})
    {'slots': 6, 'share_weights': False}
    """
    legal: dict[str, Any] = {}
    for name, value in options.items():
        text = str(value).lower()
        if name in NUMBERS:
            if not text.isdecimal() or not 1 <= int(text) <= 1024:
                raise InputError(f"got {name}={value}; expected a whole number from 1 to 1024")
            legal[name] = int(text)
        elif name in SWITCHES:
            if text not in ("yes", "no", "true", "false"):
                raise InputError(f"got {name}={value}; expected yes or no")
            legal[name] = text in ("yes", "true")
        elif name in ("prior", "slots_from"):
            legal[name] = text
        elif name == "sigma_x":
            try:
                legal[name] = float(text)
            except ValueError as error:
                raise InputError(f"got sigma_x={value}; expected a number above 0, such as 0.2") from error
        else:
            known = ", ".join((*NUMBERS, "sigma_x", "prior", "slots_from", *SWITCHES))
            raise InputError(f"got the option {name!r}; expected one of {known}")
    return legal
