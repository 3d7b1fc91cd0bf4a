"""CMA-ES for energycomp. Each look-up of a name imports this module, so it imports nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp import hookimpl
from energycomp.plugins import lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["energycomp_register_solvers"]


@hookimpl
def energycomp_register_solvers() -> Mapping[str, Callable[..., object]]:
    """CMA-ES for continuous conditions."""
    return {"cmaes": lazy("energycomp_cmaes.cmaes:CMAES")}
