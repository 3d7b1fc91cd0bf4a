"""Coloured lamps for energycomp. Each look-up of a name imports this module, so it imports nothing heavy."""

from energycomp import hookimpl
from energycomp.plugins import Factory, lazy


@hookimpl
def energycomp_register_models() -> dict[str, Factory]:
    return {"lamps": lazy("energycomp_lamps.model:lamps")}


@hookimpl
def energycomp_register_networks() -> dict[str, Factory]:
    return {"lamps": lazy("energycomp_lamps.model:LampNet")}


@hookimpl
def energycomp_register_recipes() -> dict[str, Factory]:
    return {"lamps": lazy("energycomp_lamps.model:recipe")}


@hookimpl
def energycomp_register_conditioners() -> dict[str, Factory]:
    return {"colours": lazy("energycomp_lamps.scenes:Colours")}


@hookimpl
def energycomp_register_datasets() -> dict[str, Factory]:
    return {"lamps": lazy("energycomp_lamps.scenes:Lamps")}


@hookimpl
def energycomp_register_solvers() -> dict[str, Factory]:
    return {"greedy": lazy("energycomp_lamps.greedy:Greedy")}
