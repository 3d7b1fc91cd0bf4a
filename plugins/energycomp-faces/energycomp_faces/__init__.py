"""Faces: one component per attribute, conditioned on its value."""

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
    """The model of faces, with its trained weights."""
    return {"faces": lazy("energycomp_faces.model:faces")}


@hookimpl
def energycomp_register_conditioners() -> Mapping[str, Callable[..., object]]:
    """One value of one categorical attribute."""
    return {"labels": lazy("energycomp_faces.labels:Labels")}


@hookimpl
def energycomp_register_recipes() -> Mapping[str, Callable[..., object]]:
    """The training recipe of the model of faces."""
    return {"faces": lazy("energycomp_faces.recipe:faces")}
