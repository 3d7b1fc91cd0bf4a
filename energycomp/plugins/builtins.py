"""The plugin of the core: networks for any config, latents, a sampler, guidance."""

from __future__ import annotations

from collections.abc import Mapping

from energycomp.plugins.deferred import lazy
from energycomp.plugins.hookspecs import Factory, hookimpl


@hookimpl
def energycomp_register_codecs() -> Mapping[str, Factory]:
    """Autoencoders of diffusers, and numbers that are standardised."""
    return {
        "numbers": lazy("energycomp.models.numbers:NumberProcessor"),
        "vae": lazy("energycomp.models.codec:VAECodec"),
    }


@hookimpl
def energycomp_register_conditioners() -> Mapping[str, Factory]:
    """Labels, and latents, as an encoder reads them from an image."""
    folder = "energycomp.components.conditioners"
    return {"classes": lazy(f"{folder}:Classes"), "latents": lazy(f"{folder}:Latents")}


@hookimpl
def energycomp_register_guidances() -> Mapping[str, Factory]:
    """Classifier-free guidance, in an interval too, and of attributes."""
    return {
        "attributes": lazy("energycomp.sampling.guidance:AttributeGuidance"),
        "cfg": lazy("energycomp.sampling.guidance:ClassifierFree"),
        "interval": lazy("energycomp.sampling.guidance:interval"),
    }


@hookimpl
def energycomp_register_networks() -> Mapping[str, Factory]:
    """The two-stage UNet, adapters that condition diffusers UNets by time embedding or cross-attention."""
    return {
        "two_stage": lazy("energycomp.denoisers.two_stage:TwoStageUNet"),
        "unet2d": lazy("energycomp.denoisers.unets:EmbeddingUNet"),
        "unet2d_condition": lazy("energycomp.denoisers.unets:ConditionUNet"),
    }


@hookimpl
def energycomp_register_processors() -> Mapping[str, Factory]:
    """Images, and numbers that are no images."""
    return {
        "image": lazy("energycomp.images.process:ImageProcessor"),
        "numbers": lazy("energycomp.models.numbers:NumberProcessor"),
    }


@hookimpl
def energycomp_register_samplers() -> Mapping[str, Factory]:
    """The loop of a diffusers scheduler, the default."""
    return {"scheduler": lazy("energycomp.sampling.loop:SchedulerSampler")}
