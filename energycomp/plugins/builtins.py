"""The core's own plugin: the networks that any plugin's config may name, and the conditioner of latents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins.hookspecs import hookimpl
from energycomp.plugins.registry import lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["energycomp_register_conditioners", "energycomp_register_networks"]


@hookimpl
def energycomp_register_conditioners() -> Mapping[str, Callable[..., object]]:
    """What an encoder read from a picture."""
    return {"latents": lazy("energycomp.components.conditioning:Latents")}


@hookimpl
def energycomp_register_networks() -> Mapping[str, Callable[..., object]]:
    """The two-stage UNet, and the adapters that condition diffusers UNets through time embedding or attention."""
    return {
        "two_stage": lazy("energycomp.denoisers.two_stage:TwoStageUNet"),
        "unet2d": lazy("energycomp.denoisers.unets:EmbeddingUNet"),
        "unet2d_condition": lazy("energycomp.denoisers.unets:ConditionUNet"),
    }
