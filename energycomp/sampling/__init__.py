"""Generate: sample from a composition with any diffusers scheduler, or with a registered sampler."""

from energycomp.sampling.composer import Composer as Composer
from energycomp.sampling.flow import FlowScheduler as FlowScheduler
from energycomp.sampling.guidance import (
    AttributeGuidance as AttributeGuidance,
    ClassifierFree as ClassifierFree,
    Guidance as Guidance,
    Guide as Guide,
    LinearGuidance as LinearGuidance,
    check_sampled as check_sampled,
    classifier_free as classifier_free,
    conditional as conditional,
    interval as interval,
    make_guidance as make_guidance,
    unconditional as unconditional,
)
from energycomp.sampling.loop import (
    Predict as Predict,
    SchedulerSampler as SchedulerSampler,
    StepCallback as StepCallback,
    draw_samples as draw_samples,
    sample as sample,
)
from energycomp.sampling.options import OUTPUT_TYPES as OUTPUT_TYPES, finisher as finisher
from energycomp.sampling.sampler import (
    Run as Run,
    Sampled as Sampled,
    Sampler as Sampler,
    SamplingReport as SamplingReport,
    Steps as Steps,
)
from energycomp.sampling.schedulers import (
    Scheduler as Scheduler,
    compatible_schedulers as compatible_schedulers,
    make_scheduler as make_scheduler,
)
from energycomp.sampling.target import Level as Level, Target as Target, shown_by as shown_by
from energycomp.seeds import Generator as Generator, draw_noise as draw_noise
