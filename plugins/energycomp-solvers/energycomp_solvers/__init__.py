"""Solvers for the inverse problem: which conditions explain this image? One algorithm a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_solvers.beam import Beam as Beam
    from energycomp_solvers.enumerate import Enumerate as Enumerate
    from energycomp_solvers.pursuit import Pursuit as Pursuit
    from energycomp_solvers.relaxed import Relaxed as Relaxed
    from energycomp_solvers.search.options import SearchOptions as SearchOptions
    from energycomp_solvers.sgd import SGD as SGD
    from energycomp_solvers.weights import Weights as Weights

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """Pursuit and gradient descent for real-valued conditions; exhaustive, beam and relaxed search for finite ones."""
    add.solver("pursuit", "energycomp_solvers.pursuit:Pursuit")
    add.solver("sgd", "energycomp_solvers.sgd:SGD")
    add.solver("enumerate", "energycomp_solvers.enumerate:Enumerate")
    add.solver("beam", "energycomp_solvers.beam:Beam")
    add.solver("weights", "energycomp_solvers.weights:Weights")
    add.solver("relaxed", "energycomp_solvers.relaxed:Relaxed")
