"""Faces: one component per attribute, conditioned on its value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from energycomp_faces.labels import Labels as Labels

__getattr__, __all__ = first_use(__name__, __file__)


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
