"""CLEVR scenes: one component per object, conditioned on its position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "energycomp_register_conditioners",
    "energycomp_register_models",
    "energycomp_register_recipes",
]


@hookimpl
def energycomp_register_models() -> Mapping[str, Callable[..., object]]:
    """The model of CLEVR scenes, with its trained weights."""
    return {"clevr": lazy("energycomp_clevr.model:clevr")}


@hookimpl
def energycomp_register_conditioners() -> Mapping[str, Callable[..., object]]:
    """Objects by their place alone, or by place, size, colour, material and shape."""
    return {
        "coordinates": lazy("energycomp_clevr.coordinates:Coordinates"),
        "objects": lazy("energycomp_clevr.objects:Objects"),
    }


@hookimpl
def energycomp_register_recipes() -> Mapping[str, Callable[..., object]]:
    """The training recipe of the model of CLEVR scenes."""
    return {"clevr": lazy("energycomp_clevr.recipe:clevr")}
