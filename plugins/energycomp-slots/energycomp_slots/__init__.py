"""Slot-VAE: images into slots, slots into images, and new, coherent scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_slots.conditioner import Scenes as Scenes
    from energycomp_slots.networks import SlotVAE as SlotVAE

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """Models that decompose images into slots and generate new scenes: Arrow Room, and coloured shapes."""
    add.model("slots", "energycomp_slots.model:slots")
    add.model("slots-sprites", "energycomp_slots.model:sprites")
    add.network("slots", "energycomp_slots.networks:SlotVAE")
    add.conditioner("slots", "energycomp_slots.conditioner:Scenes")
    add.decomposer("slots", "energycomp_slots.decomposer:decomposer")
    add.recipe("slots", "energycomp_slots.recipe:slots")
