"""Slot-VAE: images into slots, slots into images, and new, coherent scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from energycomp_slots.conditioner import Scenes as Scenes
    from energycomp_slots.networks import SlotVAE as SlotVAE

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register_models() -> Mapping[str, Callable[..., object]]:
    """Models that decompose images into slots and generate new scenes: Arrow Room, and coloured shapes."""
    return {"slots": lazy("energycomp_slots.model:slots"), "slots-sprites": lazy("energycomp_slots.model:sprites")}


@hookimpl
def energycomp_register_networks() -> Mapping[str, Callable[..., object]]:
    """The network: images and global latents to slots, and slots to images."""
    return {"slots": lazy("energycomp_slots.networks:SlotVAE")}


@hookimpl
def energycomp_register_conditioners() -> Mapping[str, Callable[..., object]]:
    """A scene of slots."""
    return {"slots": lazy("energycomp_slots.conditioner:Scenes")}


@hookimpl
def energycomp_register_decomposers() -> Mapping[str, Callable[..., object]]:
    """Decomposition into slots, and new scenes."""
    return {"slots": lazy("energycomp_slots.decomposer:decomposer")}


@hookimpl
def energycomp_register_recipes() -> Mapping[str, Callable[..., object]]:
    """The recipe that trains the models."""
    return {"slots": lazy("energycomp_slots.recipe:slots")}
