"""Samplers of composed distributions: products, mixtures and negations. One algorithm a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["energycomp_register_samplers"]


@hookimpl
def energycomp_register_samplers() -> Mapping[str, Callable[..., object]]:
    """Weighted particles and moves at each noise level for products, shares for mixtures, and two for `~b`."""
    return {
        "smc": lazy("energycomp_samplers.smc:SMC"),
        "mala": lazy("energycomp_samplers.mala:annealed_mala"),
        "hmc": lazy("energycomp_samplers.hmc:annealed_hmc"),
        "langevin": lazy("energycomp_samplers.langevin:annealed_langevin"),
        "mixture": lazy("energycomp_samplers.mixture:MixtureSampler"),
        "perpendicular": lazy("energycomp_samplers.perpendicular:Perpendicular"),
        "rejection": lazy("energycomp_samplers.rejection:Rejection"),
    }
