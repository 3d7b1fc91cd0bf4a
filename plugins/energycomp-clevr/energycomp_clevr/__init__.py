"""CLEVR scenes: one component per object, conditioned on its position, or on its position and its attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from energycomp_clevr.coordinates import Coordinates as Coordinates
    from energycomp_clevr.objects import Objects as Objects

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register_models() -> Mapping[str, Callable[..., object]]:
    """The models of CLEVR scenes, of whole objects (192x128 and 64 px) and of places, with weights."""
    return {
        "clevr": lazy("energycomp_clevr.model:clevr"),
        "clevr-small": lazy("energycomp_clevr.model:clevr_small"),
        "clevr-places": lazy("energycomp_clevr.model:clevr_places"),
        "clevr-places-flow": lazy("energycomp_clevr.model:clevr_places_flow"),
    }


@hookimpl
def energycomp_register_conditioners() -> Mapping[str, Callable[..., object]]:
    """Objects by their place alone, or by place, size, colour, material and shape."""
    return {
        "coordinates": lazy("energycomp_clevr.coordinates:Coordinates"),
        "objects": lazy("energycomp_clevr.objects:Objects"),
    }


@hookimpl
def energycomp_register_networks() -> Mapping[str, Callable[..., object]]:
    """The network of `clevr`, whose heads see a sketch of their object."""
    return {"sketched": lazy("energycomp_clevr.network:SketchedUNet")}


@hookimpl
def energycomp_register_recipes() -> Mapping[str, Callable[..., object]]:
    """The training recipes of the models, of a codec, and of what draws the edges of `clevr`."""
    return {
        "codec": lazy("energycomp_clevr.codec_recipe:codec"),
        "clevr": lazy("energycomp_clevr.objects_recipe:clevr"),
        "clevr-places": lazy("energycomp_clevr.recipe:clevr_places"),
        "clevr-finish": lazy("energycomp_clevr.finish_recipe:finish"),
    }
