"""Models of CLEVR scenes: the small ones with their weights, and that of the thesis at full size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from inspect import signature
from typing import Any

import attrs

from energycomp.components import Conditioner, cosine_schedule, flow_schedule
from energycomp.denoisers import Denoiser, TwoStageUNet, channels_last, latent_unet
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Defaults, Model, VAECodec, shipped, shipped_defaults
from energycomp_clevr.coordinates import Coordinates
from energycomp_clevr.network import SketchedUNet
from energycomp_clevr.objects import Objects

PACKAGE = "energycomp_clevr"
ASPECT = 480 / 320  # of the frame of CLEVR
# The name of the model whose weights are in a folder of this package.
NAMES = {"objects": "clevr", "small": "clevr-small", "places": "clevr-places", "places_flow": "clevr-places-flow"}
SIZE = (128, 192)  # height and width of the pictures of whole objects
WINDOW = 10  # cells of a grid of 16x24, in which a whole object shows with its shadow


def clevr(*, preset: str = "default", pretrained: bool = True, **options: Any) -> Model:
    """The model of CLEVR scenes: `clevr(0.3, 0.4, color="red", shape="cube")`, where every attribute may be left open.

    Args:
        preset: "default" for whole objects and turns of cubes at 192x128 pixels, on latents of a codec; "small" for
            objects at 64x64, on pixels; or "paper", the network of the thesis, whose components are places, on latents
            of Stable Diffusion.
        pretrained: load the weights of this package, which exist for "default" and "small".
        options: options of the preset; for "default" and "paper": `vae`, a path or hub id.

    Raises:
        InputError: an unknown preset or option, or pretrained weights of a preset without any.

    >>> model = clevr()
    >>> model(0.3, 0.4, color="red") & model(0.7, 0.6)  # places are shares of the image
    -u + clevr(0.3, 0.4, color=red) + clevr(0.7, 0.6)
    """
    presets: dict[str, Callable[..., Model]] = {"default": objects, "small": small, "paper": paper}
    return _preset(presets, {"default": "objects", "small": "small"}, preset, pretrained, options)


def clevr_small(*, preset: str = "small", pretrained: bool = True, **options: Any) -> Model:
    """The model of whole objects at 64x64 pixels, with its weights.

    >>> clevr_small()(0.3, 0.4, shape="cube")
    clevr-small(0.3, 0.4, shape=cube)
    """
    return clevr(preset=preset, pretrained=pretrained, **options)


def clevr_places(*, preset: str = "default", pretrained: bool = True, **options: Any) -> Model:
    """The model of places: `model(0.3, 0.4)` is a component for an object at this position.

    Args:
        preset: "default" is `places`; "flow" is `places_flow`, its twin by flow matching; "paper" as of `clevr`.
        pretrained: load the weights of this package, which exist for "default" and "flow".

    >>> clevr_places()(0.3, 0.4)
    clevr-places(0.3, 0.4)
    """
    folders = {"default": "places", "flow": "places_flow"}
    return _preset({"default": places, "flow": places_flow, "paper": paper}, folders, preset, pretrained, options)


def clevr_places_flow(*, preset: str = "flow", pretrained: bool = True, **options: Any) -> Model:
    """The flow-matching twin of `clevr_places`, with its weights.

    >>> clevr_places_flow().denoiser.prediction_type
    'flow'
    """
    return clevr_places(preset=preset, pretrained=pretrained, **options)


def _preset(
    presets: Mapping[str, Callable[..., Model]],
    folders: Mapping[str, str],
    preset: str,
    pretrained: bool,
    options: Mapping[str, Any],
) -> Model:
    """The model of a preset; the weights of those in `folders` are in a folder of this package."""
    if preset not in presets:
        raise InputError(f"got preset {preset!r}; expected one of {', '.join(presets)}")
    if unknown := options.keys() - (signature(presets[preset]).parameters.keys() if not pretrained else set()):
        raise InputError(
            f"got the option {min(unknown)!r} for preset {preset!r}; expected vae= with a preset on "
            "latents that is not pretrained, else none"
        )
    if not pretrained:
        return presets[preset](**options)
    if preset not in folders:
        raise InputError(
            f"got preset {preset!r} with pretrained weights, which are not in this package; expected "
            f"{' or '.join(map(repr, folders))}, or pretrained=False; train it: energycomp train clevr --preset paper"
        )
    folder = folders[preset]
    return attrs.evolve(shipped(PACKAGE, folder), name=NAMES[folder])


def places() -> Model:
    """The untrained model of places: x0 prediction under the rule product at 64x64 pixels."""
    return _on_pixels("places", Coordinates(), "coordinates")


def places_flow() -> Model:
    """The untrained flow-matching twin of `places`: the same network, with a skip connection of the noised sample."""
    model = _on_pixels("places_flow", Coordinates(), "coordinates", skip=True)
    denoiser = attrs.evolve(model.denoiser, prediction_type="flow", alphas_cumprod=flow_schedule())
    return attrs.evolve(model, denoiser=denoiser)


def flow_from(model: Model) -> Model:
    """`places_flow` that starts with the features of a model of places which predicts x0; its skip connection is new.

    A flow is eps - x0, so the last convolutions change their sign.
    """
    made = places_flow()
    weights = model.denoiser.network.state_dict()
    others = {name: part.shape for name, part in weights.items()}
    own = {name: part.shape for name, part in made.denoiser.network.state_dict().items() if "skip" not in name}
    if others != own:
        raise InputError(
            f"got the model {model.name!r} to start from, whose network differs from that of clevr-places; expected "
            "clevr-places or clevr-places-flow, or models trained from them; leave --init out"
        )
    last = ("base.weight", "base.bias", "out.2.weight", "out.2.bias")
    weights |= {name: -weights[name] for name in last}
    made.denoiser.network.load_state_dict(weights, strict=False)
    return made


def small() -> Model:
    """The untrained model of whole objects at 64x64 pixels, with a deeper trunk than `places`."""
    return _on_pixels("small", Objects(), "objects", blocks=2)


def _on_pixels(
    folder: str, conditioner: Coordinates | Objects, conditioner_name: str, *, blocks: int = 1, skip: bool = False
) -> Model:
    """Untrained, with the defaults of the weights in a folder."""
    width = conditioner.token_shape[1]
    network = TwoStageUNet(
        sample_size=64,
        token_width=width,
        patch=4,
        channels=(64, 128, 192),
        blocks=blocks,
        head_channels=64,
        head_blocks=2,
        skip=skip,
    )
    denoiser = Denoiser(
        network=channels_last(network),
        alphas_cumprod=cosine_schedule(),
        prediction_type="sample",
        rule="product",
        sample_shape=(3, 64, 64),
        token_shape=(1, width),
    )
    defaults = shipped_defaults(PACKAGE, folder)
    model = _model(denoiser, defaults, "two_stage", conditioner, conditioner_name)
    return attrs.evolve(model, name=NAMES[folder])


def objects(*, vae: str | None = None) -> Model:
    """The untrained model of whole objects at 192x128 pixels, on latents, with `Viewpoint` as a component, too.

    Args:
        vae: folder or hub id of an autoencoder, such as `energycomp train codec` makes; by default, that of the
            included weights.

    >>> objects().denoiser.sample_shape  # latents, of images of 192x128 pixels
    (16, 16, 24)
    """
    own = files(PACKAGE) / "weights" / "objects"
    model = small()
    codec = VAECodec.read(vae or str(own), image_size=SIZE)
    conditioner = Objects(viewpoint=True, turns=True)
    channels, *grid = codec.latent_shape
    if grid != [16, 24]:
        raise InputError(f"got vae={vae} with latents {codec.latent_shape} of 192x128 pixels; expected 24x16 of them")
    network = SketchedUNet(
        sample_channels=channels,
        sample_size=grid,
        token_width=conditioner.token_shape[1],
        patch=1,
        channels=(96, 128, 192),
        blocks=3,
        head_channels=96,
        head_blocks=3,
        width=256,
        groups=(12, 8, 8, 12),
        unplaced=True,
        window=WINDOW,
    )
    denoiser = attrs.evolve(
        model.denoiser,
        network=channels_last(network),
        sample_shape=codec.latent_shape,
        token_shape=conditioner.token_shape,
        codec=codec,
    )
    processor = ImageProcessor(size=SIZE, resize="squash")
    return attrs.evolve(
        model,
        name=NAMES["objects"],
        denoiser=denoiser,
        network_name="sketched",
        conditioner=conditioner,
        processor=processor,
        defaults=shipped_defaults(PACKAGE, "objects"),
    )


def paper(*, vae: str = "stabilityai/stable-diffusion-2-1-base") -> Model:
    """The untrained network of thesis 5.4.1: 134.6 M parameters on 8x8x4 latents, noise prediction, rule product.

    Args:
        vae: folder or hub id of the VAE of Stable Diffusion (or its subfolder "vae"); read at the first use.
    """
    denoiser = latent_unet(VAECodec(vae, image_size=64), side=8, token_shape=(1, 2))
    defaults = Defaults(timesteps=(0.0, 500.0), draws=64, solver="sgd", counts=(0, 10), aspect=ASPECT)
    return _model(denoiser, defaults, "unet2d_condition", Coordinates(), "coordinates")


def _model(
    denoiser: Denoiser, defaults: Defaults, network_name: str, conditioner: Conditioner, conditioner_name: str
) -> Model:
    return Model(
        name="clevr",
        denoiser=denoiser,
        conditioner=conditioner,
        processor=ImageProcessor(size=(64, 64), resize="squash"),
        network_name=network_name,
        conditioner_name=conditioner_name,
        defaults=defaults,
    )
