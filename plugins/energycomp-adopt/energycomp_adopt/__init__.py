"""Adoption: a network that was trained elsewhere as a model, and the check whether it was adopted as it was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from energycomp.plugins import Factory
    from energycomp_adopt.adopting import adopt as adopt
    from energycomp_adopt.checks.case import Finding as Finding
    from energycomp_adopt.checks.check import Adoption as Adoption, check_adoption as check_adoption
    from energycomp_adopt.checks.near_misses import NearMiss as NearMiss

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register_networks() -> Mapping[str, Factory]:
    """The adapter around another network, as a saved model names it."""
    return {"adopted": lazy("energycomp_adopt.adapter:load_adopted")}


@hookimpl
def energycomp_register_commands() -> Mapping[str, Factory]:
    """The check of a saved model."""
    from importlib import import_module

    return {"check-adoption": lambda: import_module("energycomp_adopt.command").check_adoption}
