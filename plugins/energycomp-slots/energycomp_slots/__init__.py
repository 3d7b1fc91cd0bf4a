"""Slot-VAE: a picture into slots, slots into pictures, and new, coherent scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "energycomp_register_conditioners",
    "energycomp_register_datasets",
    "energycomp_register_models",
    "energycomp_register_networks",
    "energycomp_register_recipes",
]


@hookimpl
def energycomp_register_models() -> Mapping[str, Callable[..., object]]:
    """Models that take pictures apart into slots, and make new scenes: Arrow Room, and coloured shapes."""
    return {"slots": lazy("energycomp_slots.model:slots"), "slots-sprites": lazy("energycomp_slots.model:sprites")}


@hookimpl
def energycomp_register_networks() -> Mapping[str, Callable[..., object]]:
    """Slots to pictures, pictures and global latents to slots."""
    return {"slots": lazy("energycomp_slots.networks:SlotVAE")}


@hookimpl
def energycomp_register_conditioners() -> Mapping[str, Callable[..., object]]:
    """A scene of slots."""
    return {"slots": lazy("energycomp_slots.conditioner:Scenes")}


@hookimpl
def energycomp_register_datasets() -> Mapping[str, Callable[..., object]]:
    """Arrow Room, coloured shapes and rooms with their masks, and public sets of pictures with masks."""
    return {
        "slots": lazy("energycomp_slots.data:ArrowSource"),
        "slots-sprites": lazy("energycomp_slots.data:SpritesSource"),
        "slots-rooms": lazy("energycomp_slots.data:RoomsSource"),
    }


@hookimpl
def energycomp_register_recipes() -> Mapping[str, Callable[..., object]]:
    """How slots are learned, and scenes of them."""
    return {"slots": lazy("energycomp_slots.recipe:slots")}
