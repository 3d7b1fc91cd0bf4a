"""CMA-ES for energycomp. Each look-up of a name imports this module, so it imports nothing heavy."""

from energycomp.plugins import Add, hookimpl


@hookimpl
def energycomp_register(add: Add) -> None:
    """CMA-ES for continuous conditions."""
    add.solver("cmaes", "energycomp_cmaes.cmaes:CMAES")
