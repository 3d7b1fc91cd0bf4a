"""Adoption: a network that was trained elsewhere as a model, and the check whether it was adopted as it was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_adopt.adopting import adopt as adopt
    from energycomp_adopt.checks.case import Finding as Finding
    from energycomp_adopt.checks.check import Adoption as Adoption, check_adoption as check_adoption
    from energycomp_adopt.checks.near_misses import NearMiss as NearMiss

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """The adapter, as a saved model names it, and the check of such a model."""
    add.network("adopted", "energycomp_adopt.adapter:load_adopted")
    add.command("lint", "energycomp_adopt.command:lint")
