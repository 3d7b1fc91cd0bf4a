"""Decomp Diffusion: images into parts without labels, and parts into new images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from energycomp_decomp.by_color import masks_by_color as masks_by_color
    from energycomp_decomp.diffusion import DiffusionDecomposer as DiffusionDecomposer

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register_models() -> Mapping[str, Callable[..., object]]:
    """Models that decompose images: coloured shapes of two worlds, and one lit object."""
    return {
        "decomp": lazy("energycomp_decomp.model:decomp"),
        "decomp-b": lazy("energycomp_decomp.model:decomp_b"),
        "lit": lazy("energycomp_decomp.model:lit"),
    }


@hookimpl
def energycomp_register_networks() -> Mapping[str, Callable[..., object]]:
    """Networks that predict the part of an image for a latent."""
    return {
        "comet": lazy("energycomp_decomp.comet.energy:EnergyNet"),
        "parts": lazy("energycomp_decomp.networks:PartsUNet"),
    }


@hookimpl
def energycomp_register_encoders() -> Mapping[str, Callable[..., object]]:
    """Encoders of images as latents."""
    return {
        "factors": lazy("energycomp_decomp.encoders:FactorsEncoder"),
        "parts": lazy("energycomp_decomp.encoders:PartsEncoder"),
    }


@hookimpl
def energycomp_register_decomposers() -> Mapping[str, Callable[..., object]]:
    """Decomposition by diffusion, the default of a model with an encoder, and by gradient descent on energies."""
    return {
        "comet": lazy("energycomp_decomp.comet.decomposer:CometDecomposer"),
        "diffusion": lazy("energycomp_decomp.diffusion:DiffusionDecomposer"),
    }


@hookimpl
def energycomp_register_recipes() -> Mapping[str, Callable[..., object]]:
    """Recipes that train the models."""
    return {
        "comet": lazy("energycomp_decomp.comet.recipe:comet"),
        "decomp": lazy("energycomp_decomp.recipe:decomp"),
        "lit": lazy("energycomp_decomp.recipe:lit"),
    }
