"""Faces: one component per attribute, conditioned on its value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_faces.labels import Labels as Labels

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """The model of faces, and one value of one categorical attribute."""
    add.model("faces", "energycomp_faces.model:faces")
    add.conditioner("labels", "energycomp_faces.labels:Labels")
    add.recipe("faces", "energycomp_faces.recipe:faces")
