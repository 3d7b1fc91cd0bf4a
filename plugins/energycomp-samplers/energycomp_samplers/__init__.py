"""Samplers of composed distributions: particles whose weights correct the sum of the scores. One algorithm a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["energycomp_register_samplers"]


@hookimpl
def energycomp_register_samplers() -> Mapping[str, Callable[..., object]]:
    """Weighted particles and Metropolis moves for products, and shares from the path for mixtures."""
    return {
        "smc": lazy("energycomp_samplers.smc:SMC"),
        "mala": lazy("energycomp_samplers.smc:annealed_mala"),
        "mixture": lazy("energycomp_samplers.mixture:MixtureSampler"),
    }
