"""Coloured lamps for energycomp. Each look-up of a name imports this module, so it imports nothing heavy."""

from energycomp.plugins import Add, hookimpl


@hookimpl
def energycomp_register(add: Add) -> None:
    """A model with all that belongs to it, and a solver."""
    add.model("lamps", "energycomp_lamps.model:lamps")
    add.network("lamps", "energycomp_lamps.model:LampNet")
    add.recipe("lamps", "energycomp_lamps.model:recipe")
    add.conditioner("colours", "energycomp_lamps.scenes:Colours")
    add.dataset("lamps", "energycomp_lamps.scenes:Lamps")
    add.solver("greedy", "energycomp_lamps.greedy:Greedy")
