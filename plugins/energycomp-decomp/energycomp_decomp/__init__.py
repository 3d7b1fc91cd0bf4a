"""Decomp Diffusion: a picture into parts without labels, parts into new pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "energycomp_register_datasets",
    "energycomp_register_encoders",
    "energycomp_register_models",
    "energycomp_register_networks",
    "energycomp_register_recipes",
]


@hookimpl
def energycomp_register_models() -> Mapping[str, Callable[..., object]]:
    """Models that take pictures apart: coloured shapes of two worlds, and one lit object."""
    return {
        "decomp": lazy("energycomp_decomp.model:decomp"),
        "decomp-b": lazy("energycomp_decomp.model:decomp_b"),
        "lit": lazy("energycomp_decomp.model:lit"),
    }


@hookimpl
def energycomp_register_networks() -> Mapping[str, Callable[..., object]]:
    """A latent to its part of the picture."""
    return {
        "comet": lazy("energycomp_decomp.energies:EnergyNet"),
        "parts": lazy("energycomp_decomp.networks:PartsUNet"),
    }


@hookimpl
def energycomp_register_encoders() -> Mapping[str, Callable[..., object]]:
    """A picture to its latents."""
    return {
        "factors": lazy("energycomp_decomp.networks:FactorsEncoder"),
        "parts": lazy("energycomp_decomp.networks:PartsEncoder"),
    }


@hookimpl
def energycomp_register_datasets() -> Mapping[str, Callable[..., object]]:
    """Coloured shapes with their masks, and one lit object with its factors."""
    return {
        "comet": lazy("energycomp_decomp.data:ShapesSource"),
        "decomp": lazy("energycomp_decomp.data:ShapesSource"),
        "decomp-b": lazy("energycomp_decomp.data:shapes_b"),
        "lit": lazy("energycomp_decomp.lit:LitSource"),
    }


@hookimpl
def energycomp_register_recipes() -> Mapping[str, Callable[..., object]]:
    """How a picture is taken apart is learned."""
    return {
        "comet": lazy("energycomp_decomp.comet_recipe:comet"),
        "decomp": lazy("energycomp_decomp.recipe:decomp"),
        "lit": lazy("energycomp_decomp.recipe:lit"),
    }
