"""The sampler `scheduler`: a diffusers scheduler that follows the composed prediction."""

from __future__ import annotations

from typing import Any, cast

import attrs
from torch import Tensor

from energycomp.components.prediction import PredictionType
from energycomp.sampling.report import Sampled, SamplingReport
from energycomp.sampling.sampler import StepCallback, sample
from energycomp.sampling.schedulers import make_scheduler
from energycomp.sampling.target import Target
from energycomp.seeds import Generator


@attrs.frozen
class SchedulerSampler:
    """Follows the sum of the scores with any diffusers scheduler. This is the default sampler.

    Costs one evaluation per leaf, sample and step. The sum of the scores of noised components is not the score of their
    noised product, so samples do not follow the product in general (see `docs/algebra.md`).

    Args:
        scheduler: name, class or instance of a diffusers scheduler; None for DDIM.
    """

    scheduler: Any = None

    def sample(
        self,
        target: Target,
        n: int,
        *,
        num_inference_steps: int,
        generator: Generator = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool = True,
    ) -> Sampled:
        """n samples, see `energycomp.sampling.sample`."""
        space, before = target.noised_space, target.evaluations
        chosen = make_scheduler(
            self.scheduler,
            space.alphas_cumprod,
            prediction_type=target.prediction_type,
            value_range=space.value_range,
        )

        def predicted(x: Tensor, timestep: Tensor, prediction_type: str) -> Tensor:
            return target.compose(x, timestep, prediction_type=cast("PredictionType", prediction_type))

        samples = sample(
            predicted,
            (n, *space.sample_shape),
            chosen,
            num_inference_steps=num_inference_steps,
            generator=generator,
            callback_on_step_end=callback_on_step_end,
            progress=progress,
            device=target.device,
        )
        return Sampled(samples, SamplingReport(target.evaluations - before))
