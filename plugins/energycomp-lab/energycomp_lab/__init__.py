"""The laboratory: training, evaluation, conformance checks, and commands for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_lab.training import denoising_loss as denoising_loss
    from energycomp_lab.training.fit import fit as fit

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """The commands of training and evaluation, and the recipe of proposals, which any model with places has."""
    add.recipe("proposals", "energycomp_lab.training.proposals:proposals")
    for name in ("train", "evaluate", "data", "check", "traverse"):
        add.command(name, f"energycomp_lab.commands.{name}:{name}")
