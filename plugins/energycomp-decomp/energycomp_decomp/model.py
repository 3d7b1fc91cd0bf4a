"""Models that decompose images: with the weights of three synthetic worlds, and untrained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs
from torch import nn

from energycomp.components import Latents, Rule, cosine_schedule
from energycomp.denoisers import Denoiser, EmbeddingUNet, channels_last
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Model, shipped, shipped_defaults
from energycomp_decomp.encoders import FactorsEncoder, PartsEncoder
from energycomp_decomp.networks import PartsUNet

PACKAGE = "energycomp_decomp"
PRETRAINED = ("a", "b")
IDENTITY = 7  # numbers of the identity embedding of a factor
PAPER: dict[str, Any] = {
    "parts": 4,
    "width": 64,
    "size": 64,
    "channels": (64, 128, 192),
    "encoder": (64, 128, 256, 512),
}


def decomp(*, preset: str = "default", pretrained: bool | None = None, world: str = "a", **options: Any) -> Model:
    """A model of images with several objects, with an encoder of images as latents.

    Args:
        preset: "default", 32x32 pixels on a CPU; "thesis", the mean over parts, each predicted by a full network, at
            the same size; "paper", that of section 4.7.3 of Wang (2026), 64x64 pixels.
        pretrained: with the weights in this package; by default for the preset "default" only.
        world: of the weights, "a" or "b".
        options: of an untrained model: `parts`, `width` of a latent, `size` in pixels, and `prediction`, "sample" or
            "epsilon".

    Raises:
        InputError: an unknown preset, world or option, or pretrained weights of another preset or with options.
    """
    if preset not in ("default", "thesis", "paper"):
        raise InputError(f"got preset {preset!r}; expected 'default', 'thesis' or 'paper'")
    if pretrained is None:
        pretrained = preset == "default"
    if not pretrained:
        kind = {"prediction": options.pop("prediction")} if "prediction" in options else {}
        legal: dict[str, Any] = {**parse_whole_numbers(options, ("parts", "width", "size"), "prediction"), **kind}
        if preset == "default":
            return default(**legal)
        return full(**legal) if preset == "thesis" else full(**{**PAPER, **legal})
    if world not in PRETRAINED or options or preset != "default":
        raise InputError(
            f"got preset {preset!r} and world {world!r} with {options or 'no options'} and pretrained weights, which "
            f"are in this package for {' and '.join(PRETRAINED)} of the default preset without options; expected one "
            "of these; or train it: energycomp train decomp"
        )
    return shipped(PACKAGE, world)


def decomp_b(**options: Any) -> Model:
    """The model of world b: crosses, rings and stars."""
    return decomp(world="b", **options)


def lit(*, preset: str = "default", pretrained: bool = True, **options: Any) -> Model:
    """A model of images of one lit object, whose latents are factors of the whole image.

    Args:
        options: of an untrained model: `parts`, `width` of a content vector and `size` in pixels.

    >>> import torch
    >>> lit().encoder(torch.zeros(1, 3, 32, 32)).shape  # 6 factors: one number, and 7 that say which factor it is
    torch.Size([1, 6, 8])
    """
    if preset != "default":
        raise InputError(f"got preset {preset!r}; expected 'default'")
    if not pretrained:
        return untrained_lit(**parse_whole_numbers(options, ("parts", "width", "size")))
    if options:
        raise InputError(f"got {options} with pretrained weights; expected no options; or train it")
    return shipped(PACKAGE, "lit")


def default(*, parts: int = 5, width: int = 16, size: int = 32, prediction: str = "sample") -> Model:
    """Untrained: `parts` latents of `width` numbers, composed under the product rule on a constant image."""
    return _model(
        "decomp",
        PartsUNet(sample_size=size, token_width=width),
        "parts",
        PartsEncoder(sample_size=size, parts=parts, token_width=width),
        "parts",
        width=width,
        rule="product",
        prediction=prediction,
        views=8 if prediction == "sample" else 1,
    )


def full(
    *,
    parts: int = 5,
    width: int = 16,
    size: int = 32,
    prediction: str = "sample",
    channels: tuple[int, ...] = (16, 32, 64),
    encoder: tuple[int, ...] = (32, 64, 128, 256),
) -> Model:
    """Untrained, as in Wang (2026): the mean over parts, each predicted by a full network (section 4.7.3).

    >>> full(parts=3).denoiser.rule, default(parts=3).denoiser.rule
    ('mean', 'product')
    """
    down, up = ["DownBlock2D"] * len(channels), ["UpBlock2D"] * len(channels)
    network = EmbeddingUNet(
        condition_width=width,
        sample_size=size,
        block_out_channels=list(channels),
        down_block_types=down,
        up_block_types=up,
        layers_per_block=1,
        norm_num_groups=8,
    )
    reads = PartsEncoder(
        sample_size=size, parts=parts, token_width=width, channels=encoder, fold=1, last=False, look=None
    )
    return _model("decomp", network, "unet2d", reads, "parts", width=width, rule="mean", prediction=prediction)


def untrained_lit(*, parts: int = 6, width: int = 1, size: int = 32) -> Model:
    """Untrained: each of `parts` latents is a content vector of `width` numbers and a 7-d identity embedding.

    >>> untrained_lit(parts=2, width=3).conditioner.value_shape  # 3 numbers, and 7 that say which factor it is
    (10,)
    """
    token_width = width + IDENTITY
    return _model(
        "lit",
        PartsUNet(sample_size=size, token_width=token_width, places=False),
        "parts",
        FactorsEncoder(sample_size=size, parts=parts, token_width=token_width, name_width=IDENTITY),
        "factors",
        width=token_width,
        rule="product",
        prediction="sample",
    )


def _model(
    name: str,
    network: nn.Module,
    network_name: str,
    encoder: Any,
    encoder_name: str,
    *,
    width: int,
    rule: Rule,
    prediction: str,
    views: int = 1,
) -> Model:
    kinds: dict[str, Literal["sample", "epsilon"]] = {"sample": "sample", "epsilon": "epsilon"}
    if prediction not in kinds:
        raise InputError(f"got prediction={prediction!r}; expected sample or epsilon")
    size, parts = encoder.config["sample_size"], encoder.config["parts"]
    denoiser = Denoiser(
        network=channels_last(network),
        alphas_cumprod=cosine_schedule(),
        prediction_type=kinds[prediction],
        rule=rule,
        sample_shape=(3, size, size),
        token_shape=(1, width),
        null_trained=rule == "product",
    )
    return Model(
        name=name,
        denoiser=denoiser,
        conditioner=Latents(width),
        processor=ImageProcessor(size=(size, size), resize="crop"),
        network_name=network_name,
        conditioner_name="latents",
        defaults=attrs.evolve(shipped_defaults(PACKAGE, "a"), counts=(int(rule != "product"), parts), views=views),
        encoder=channels_last(encoder),
        encoder_name=encoder_name,
    )


def parse_whole_numbers(options: Mapping[str, Any], names: Sequence[str], *others: str) -> dict[str, int]:
    """Options of these names as whole numbers from 1 to 256; `others` are named in the error, too.

    >>> parse_whole_numbers({"parts": "3"}, ("parts", "width"))
    {'parts': 3}
    """
    if unknown := options.keys() - set(names):
        raise InputError(f"got the option {min(unknown)!r}; expected one of {', '.join((*names, *others))}")
    for name, value in options.items():
        if not str(value).isdecimal() or not 1 <= int(value) <= 256:
            raise InputError(f"got {name}={value}; expected a whole number from 1 to 256")
    return {name: int(value) for name, value in options.items()}
