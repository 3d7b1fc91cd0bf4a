"""Models of faces: the small one with its weights, and that of the thesis at full size."""

from __future__ import annotations

from typing import Any

import attrs

from energycomp.components import cosine_schedule
from energycomp.denoisers import Denoiser, TwoStageUNet, channels_last, latent_unet
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, Model, VAECodec, shipped, shipped_defaults
from energycomp_faces.labels import BINARY, Labels

ATTRIBUTES = (
    "black_hair", "long_hair", "wavy_hair", "eyeglasses", "smiling", "beard", "pale_skin", "frowning", "closed_eyes",
    "suit", "dark_clothes", "dark_background",
)  # fmt: skip
PAPER_ATTRIBUTES = ("black_hair", "eyeglasses", "smiling")


def faces(*, preset: str = "default", pretrained: bool = True, **options: Any) -> Model:
    """The model of faces: `faces(smiling=True)` is a component for a smiling face.

    Args:
        preset: "default" for 64x64 pixels, or "paper", the network of the thesis on latents of Stable Diffusion.
        options: options of the preset: `attributes`, a sequence or a comma-separated text of names of yes/no
            attributes, and for "paper" `vae`, a path or hub id.

    Raises:
        InputError: an unknown preset or option, or pretrained weights of another preset or with options.

    >>> model = faces()
    >>> model(smiling=True) & model(eyeglasses=False)
    -u + faces(smiling=True) + faces(eyeglasses=False)
    """
    presets = {"default": default, "paper": paper}
    if preset not in presets:
        raise InputError(f"got preset {preset!r}; expected one of {', '.join(presets)}")
    known = {"attributes", "vae"} if preset == "paper" else {"attributes"}
    if unknown := options.keys() - known:
        raise InputError(
            f"got the option {min(unknown)!r} for preset {preset!r}; expected one of {', '.join(sorted(known))}"
        )
    if isinstance(options.get("attributes"), str):
        options["attributes"] = tuple(name.strip() for name in options["attributes"].split(","))
    if not pretrained:
        return presets[preset](**options)
    if preset != "default" or options:
        raise InputError(
            f"got preset {preset!r} with {options or 'no options'} and pretrained weights, which are in this package "
            "for 'default' without options; expected these, or pretrained=False; train it: energycomp train faces"
        )
    return shipped("energycomp_faces")


def default(*, attributes: tuple[str, ...] = ATTRIBUTES) -> Model:
    """The untrained model: x0 prediction under the rule product at 64x64 pixels."""
    labels = Labels(dict.fromkeys(attributes, BINARY))
    network = TwoStageUNet(
        sample_size=64, patch=4, channels=(64, 128, 192), head_channels=64, head_blocks=2,
        token_width=labels.width, positions=False,
    )  # fmt: skip
    denoiser = Denoiser(
        network=channels_last(network),
        alphas_cumprod=cosine_schedule(),
        prediction_type="sample",
        rule="product",
        sample_shape=(3, 64, 64),
        token_shape=labels.token_shape,
    )
    defaults = attrs.evolve(shipped_defaults("energycomp_faces"), counts=(0, len(attributes)))
    return _model(denoiser, labels, defaults, (64, 64), "two_stage")


def paper(
    *, attributes: tuple[str, ...] = PAPER_ATTRIBUTES, vae: str = "stabilityai/stable-diffusion-2-1-base"
) -> Model:
    """The untrained network of thesis 5.4.2: 16x16x4 latents of 128x128 pixels, noise prediction, rule product.

    Args:
        attributes: names of yes/no attributes; by default the three of the thesis.
        vae: folder or hub id of the VAE of Stable Diffusion (or its subfolder "vae"); read at the first use.
    """
    labels = Labels(dict.fromkeys(attributes, BINARY))
    denoiser = latent_unet(VAECodec(vae, image_size=128), side=16, token_shape=labels.token_shape)
    defaults = Defaults(timesteps=(0.0, 500.0), draws=64, solver="enumerate", counts=(0, len(attributes)))
    return _model(denoiser, labels, defaults, (128, 128), "unet2d_condition")


def _model(denoiser: Denoiser, labels: Labels, defaults: Defaults, size: tuple[int, int], network_name: str) -> Model:
    return Model(
        name="faces",
        denoiser=denoiser,
        conditioner=labels,
        processor=ImageProcessor(size=size, resize="crop"),
        network_name=network_name,
        conditioner_name="labels",
        defaults=defaults,
    )
