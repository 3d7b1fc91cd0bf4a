"""Samplers of composed distributions, one algorithm a file; guidance of high scales; regions, observations, sources."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from energycomp.imports import first_use
from energycomp.plugins import hookimpl, lazy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from energycomp_samplers.best import BestSamples as BestSamples, sample_best as sample_best
    from energycomp_samplers.by_region import regional as regional, within as within
    from energycomp_samplers.canvas import Canvas as Canvas
    from energycomp_samplers.constraints import constraint as constraint
    from energycomp_samplers.factors import all_of as all_of
    from energycomp_samplers.forecasts import forecast as forecast
    from energycomp_samplers.gauss import Gauss as Gauss
    from energycomp_samplers.guidance import (
        AdaptiveProjected as AdaptiveProjected,
        Rescaled as Rescaled,
        ZeroStar as ZeroStar,
    )
    from energycomp_samplers.hmc import HMC as HMC, annealed_hmc as annealed_hmc
    from energycomp_samplers.langevin import Langevin as Langevin, annealed_langevin as annealed_langevin
    from energycomp_samplers.mala import MALA as MALA, annealed_mala as annealed_mala
    from energycomp_samplers.mixture import MixtureSampler as MixtureSampler
    from energycomp_samplers.observation import blur as blur, observe as observe, pool as pool
    from energycomp_samplers.perpendicular import Perpendicular as Perpendicular
    from energycomp_samplers.ranking import Ranking as Ranking, rank as rank
    from energycomp_samplers.rejection import Rejection as Rejection
    from energycomp_samplers.separation import separate as separate
    from energycomp_samplers.smc import SMC as SMC

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register_commands() -> Mapping[str, Callable[[], Any]]:
    """The command `separate`, imported when it is run or shown by `--help`."""
    return {"separate": lambda: import_module("energycomp_samplers.command").separate}


@hookimpl
def energycomp_register_guidances() -> Mapping[str, Callable[..., object]]:
    """Guidance at scales where classifier-free guidance saturates colours, and of flow matching."""
    return {
        "apg": lazy("energycomp_samplers.guidance:AdaptiveProjected"),
        "rescale": lazy("energycomp_samplers.guidance:Rescaled"),
        "zero-star": lazy("energycomp_samplers.guidance:ZeroStar"),
    }


@hookimpl
def energycomp_register_samplers() -> Mapping[str, Callable[..., object]]:
    """Weighted particles, moves and second order for products, shares for mixtures, and two for `~b`."""
    return {
        "smc": lazy("energycomp_samplers.smc:SMC"),
        "mala": lazy("energycomp_samplers.mala:annealed_mala"),
        "hmc": lazy("energycomp_samplers.hmc:annealed_hmc"),
        "langevin": lazy("energycomp_samplers.langevin:annealed_langevin"),
        "gauss": lazy("energycomp_samplers.gauss:Gauss"),
        "mixture": lazy("energycomp_samplers.mixture:MixtureSampler"),
        "perpendicular": lazy("energycomp_samplers.perpendicular:Perpendicular"),
        "rejection": lazy("energycomp_samplers.rejection:Rejection"),
    }
