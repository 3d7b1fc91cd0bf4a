"""Generate: sample from a composition with any diffusers scheduler."""

from energycomp.sampling.composer import Composer
from energycomp.sampling.sampler import Generator, Predict, Scheduler, draw_noise, sample
from energycomp.sampling.schedulers import compatible_schedulers, make_scheduler

__all__ = [
    "Composer",
    "Generator",
    "Predict",
    "Scheduler",
    "compatible_schedulers",
    "draw_noise",
    "make_scheduler",
    "sample",
]
