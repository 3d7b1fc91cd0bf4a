"""Solvers for the inverse problem: which conditions explain this image? One algorithm a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["energycomp_register_solvers"]


@hookimpl
def energycomp_register_solvers() -> Mapping[str, Callable[..., object]]:
    """Pursuit and gradient descent for real-valued conditions; exhaustive, beam and relaxed search for finite ones."""
    return {
        "pursuit": lazy("energycomp_solvers.pursuit:Pursuit"),
        "sgd": lazy("energycomp_solvers.sgd:SGD"),
        "enumerate": lazy("energycomp_solvers.enumerate:Enumerate"),
        "beam": lazy("energycomp_solvers.beam:Beam"),
        "weights": lazy("energycomp_solvers.weights:Weights"),
        "relaxed": lazy("energycomp_solvers.relaxed:Relaxed"),
    }
