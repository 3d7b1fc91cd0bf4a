"""Decomp Diffusion: images into parts without labels, and parts into new images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_decomp.by_color import masks_by_color as masks_by_color
    from energycomp_decomp.diffusion import DiffusionDecomposer as DiffusionDecomposer

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """Models of coloured shapes of two worlds and of one lit object; decomposition by diffusion, and by energies."""
    add.model("decomp", "energycomp_decomp.model:decomp")
    add.model("decomp-b", "energycomp_decomp.model:decomp_b")
    add.model("lit", "energycomp_decomp.model:lit")
    add.network("comet", "energycomp_decomp.comet.energy:EnergyNet")
    add.network("parts", "energycomp_decomp.networks:PartsUNet")
    add.encoder("factors", "energycomp_decomp.encoders:FactorsEncoder")
    add.encoder("parts", "energycomp_decomp.encoders:PartsEncoder")
    add.decomposer("comet", "energycomp_decomp.comet.decomposer:CometDecomposer")
    add.decomposer("diffusion", "energycomp_decomp.diffusion:DiffusionDecomposer")
    add.recipe("comet", "energycomp_decomp.comet.recipe:comet")
    add.recipe("decomp", "energycomp_decomp.recipe:decomp")
    add.recipe("lit", "energycomp_decomp.recipe:lit")
