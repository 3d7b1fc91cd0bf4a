"""Objects of your own: photos that people marked become a model that reads and draws such photos."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_objects.conditioner import Objects as Objects
    from energycomp_objects.network import PlacedUNet as PlacedUNet

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """Objects of a schema, the network that knows them, and how it is trained on marked photos."""
    add.conditioner("placed", "energycomp_objects.conditioner:Objects")
    add.model("cells", "energycomp_objects.worlds:cells")
    add.model("dice", "energycomp_objects.worlds:dice")
    add.network("placed", "energycomp_objects.network:PlacedUNet")
    add.solver("propose", "energycomp_objects.solver:Propose")
    for name in ("objects", "cells", "dice"):
        add.dataset(name, "energycomp_objects.source:MarkedSource")
    add.recipe("objects", "energycomp_objects.recipe:objects")
