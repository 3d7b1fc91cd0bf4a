"""Generate: sample from a composition with any diffusers scheduler, or with a registered sampler."""

from __future__ import annotations

from energycomp.imports import moved
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
    conditional,
    interval,
    made_guidance,
    unconditional,
)
from energycomp.sampling.loop import Predict, SchedulerSampler, draw_noise, sample
from energycomp.sampling.sampler import Sampled, Sampler, SamplingReport, StepCallback, Target
from energycomp.sampling.schedulers import Scheduler, compatible_schedulers, make_scheduler
from energycomp.seeds import Generator

__all__ = [
    "AdaptiveProjected",
    "AttributeGuidance",
    "ClassifierFree",
    "Composer",
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
    "conditional",
    "draw_noise",
    "interval",
    "made_guidance",
    "make_scheduler",
    "sample",
    "unconditional",
]

__getattr__ = moved(__name__, {"CompositionGuider": "energycomp_text.guider"})
