"""Samplers of composed distributions, one algorithm a file; guidance of high scales; regions, observations, sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_samplers.best import BestSamples as BestSamples, sample_best as sample_best
    from energycomp_samplers.by_region import regional as regional, within as within
    from energycomp_samplers.callables import as_denoiser as as_denoiser
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
    from energycomp_samplers.steering import steer as steer

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """Particles, moves and second order for products, shares for mixtures, two for `~b`; guidance of high scales."""
    add.command("separate", "energycomp_samplers.command:separate")
    add.guidance("apg", "energycomp_samplers.guidance:AdaptiveProjected")
    add.guidance("rescale", "energycomp_samplers.guidance:Rescaled")
    add.guidance("zero-star", "energycomp_samplers.guidance:ZeroStar")
    add.sampler("smc", "energycomp_samplers.smc:SMC")
    add.sampler("mala", "energycomp_samplers.mala:annealed_mala")
    add.sampler("hmc", "energycomp_samplers.hmc:annealed_hmc")
    add.sampler("langevin", "energycomp_samplers.langevin:annealed_langevin")
    add.sampler("gauss", "energycomp_samplers.gauss:Gauss")
    add.sampler("mixture", "energycomp_samplers.mixture:MixtureSampler")
    add.sampler("perpendicular", "energycomp_samplers.perpendicular:Perpendicular")
    add.sampler("rejection", "energycomp_samplers.rejection:Rejection")
