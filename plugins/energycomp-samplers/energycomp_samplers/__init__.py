"""Samplers of composed distributions: products, mixtures and negations. One algorithm a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["energycomp_register_samplers"]


@hookimpl
def energycomp_register_samplers() -> Mapping[str, Callable[..., object]]:
    """Weighted particles and Metropolis moves for products, shares from the path for mixtures, and two for `~b`."""
    return {
        "smc": lazy("energycomp_samplers.smc:SMC"),
        "mala": lazy("energycomp_samplers.smc:annealed_mala"),
        "mixture": lazy("energycomp_samplers.mixture:MixtureSampler"),
        "perpendicular": lazy("energycomp_samplers.perpendicular:Perpendicular"),
        "rejection": lazy("energycomp_samplers.rejection:Rejection"),
    }
