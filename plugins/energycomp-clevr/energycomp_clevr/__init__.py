"""CLEVR scenes: one component per object, conditioned on its position, or on its position and its attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_clevr.coordinates import Coordinates as Coordinates
    from energycomp_clevr.objects import Objects as Objects

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """The models of whole objects (192x128 and 64 px) and of places, with what they are made of and trained by."""
    add.model("clevr", "energycomp_clevr.model:clevr")
    add.model("clevr-small", "energycomp_clevr.model:clevr_small")
    add.model("clevr-places", "energycomp_clevr.model:clevr_places")
    add.model("clevr-places-flow", "energycomp_clevr.model:clevr_places_flow")
    add.conditioner("coordinates", "energycomp_clevr.coordinates:Coordinates")
    add.conditioner("objects", "energycomp_clevr.objects:Objects")
    add.network("sketched", "energycomp_clevr.network:SketchedUNet")
    add.recipe("codec", "energycomp_clevr.codec_recipe:codec")
    add.recipe("clevr", "energycomp_clevr.objects_recipe:clevr")
    add.recipe("clevr-places", "energycomp_clevr.recipe:clevr_places")
    add.recipe("clevr-finish", "energycomp_clevr.finish_recipe:finish")
