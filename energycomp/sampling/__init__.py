"""Generate: sample from a composition with any diffusers scheduler, or with a registered sampler."""

from energycomp.sampling.composer import Composer
from energycomp.sampling.flow import FlowScheduler
from energycomp.sampling.progress import progress_bar
from energycomp.sampling.report import Sampled, Sampler, SamplingReport, StepCallback
from energycomp.sampling.sampler import Generator, Predict, Scheduler, draw_noise, sample
from energycomp.sampling.scheduled import SchedulerSampler
from energycomp.sampling.schedulers import compatible_schedulers, make_scheduler
from energycomp.sampling.target import Target

__all__ = [
    "Composer",
    "FlowScheduler",
    "Generator",
    "Predict",
    "Sampled",
    "Sampler",
    "SamplingReport",
    "Scheduler",
    "SchedulerSampler",
    "StepCallback",
    "Target",
    "compatible_schedulers",
    "draw_noise",
    "make_scheduler",
    "progress_bar",
    "sample",
]
