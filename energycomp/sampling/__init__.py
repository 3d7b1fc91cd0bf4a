"""Generate: sample from a composition with any diffusers scheduler, or with a registered sampler."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.sampling.composer import Composer
from energycomp.sampling.flow import FlowScheduler
from energycomp.sampling.guidance import (
    AdaptiveProjected,
    AttributeGuidance,
    ClassifierFree,
    Guidance,
    Guide,
    LinearGuidance,
    Rescaled,
    ZeroStar,
    interval,
    made_guidance,
)
from energycomp.sampling.report import Sampled, Sampler, SamplingReport
from energycomp.sampling.sampler import Predict, Scheduler, StepCallback, draw_noise, sample
from energycomp.sampling.scheduled import SchedulerSampler
from energycomp.sampling.schedulers import compatible_schedulers, make_scheduler
from energycomp.sampling.target import Target
from energycomp.seeds import Generator

if TYPE_CHECKING:
    from energycomp.sampling.guiders import CompositionGuider

__all__ = [
    "AdaptiveProjected",
    "AttributeGuidance",
    "ClassifierFree",
    "Composer",
    "CompositionGuider",
    "FlowScheduler",
    "Generator",
    "Guidance",
    "Guide",
    "LinearGuidance",
    "Predict",
    "Rescaled",
    "Sampled",
    "Sampler",
    "SamplingReport",
    "Scheduler",
    "SchedulerSampler",
    "StepCallback",
    "Target",
    "ZeroStar",
    "compatible_schedulers",
    "draw_noise",
    "interval",
    "made_guidance",
    "make_scheduler",
    "sample",
]

__getattr__, _ = first_use(__name__, __file__)
