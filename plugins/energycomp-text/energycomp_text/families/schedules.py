"""The noise schedule of a pipeline, from its scheduler."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from energycomp.components import LEAST_ALPHA, PredictionType, flow_schedule
from energycomp.errors import InputError, first_line

DIFFUSION = ("epsilon", "sample", "v_prediction")


def noise_schedule(scheduler: Any, *, flow: bool, tokens: int) -> tuple[Tensor, PredictionType]:
    """alphas_cumprod (T,) of a scheduler of diffusers, and what its network predicts; `InputError` for other kinds."""
    if flow:
        return flow_schedule(_steps(scheduler), _shift(scheduler, tokens)), "flow"
    alphas_cumprod = vars(scheduler).get("alphas_cumprod")
    found = scheduler.config.get("prediction_type")
    if not isinstance(alphas_cumprod, Tensor):
        raise InputError(
            f"got a {type(scheduler).__name__} without alphas_cumprod; expected the scheduler of a diffusion model "
            "that predicts noise or v; use a pipeline with one, such as DDIM or PNDM; those of flow matching are of "
            "other families, such as FluxPipeline"
        )
    if found not in DIFFUSION:
        raise InputError(
            f"got a scheduler for predictions of {found!r}; expected one of {', '.join(DIFFUSION)}; "
            "set prediction_type in its config to what its UNet was trained for"
        )
    kind: PredictionType = found
    # A schedule with zero terminal SNR ends at 0, where the log SNR is undefined.
    return alphas_cumprod.float().clamp(min=LEAST_ALPHA), kind


def _steps(scheduler: Any) -> int:
    if "shift" not in scheduler.config or scheduler.config.get("invert_sigmas"):
        raise InputError(
            f"got a {type(scheduler).__name__}; expected a scheduler of flow matching, such as "
            "FlowMatchEulerDiscreteScheduler; set the scheduler of the pipeline"
        )
    return int(scheduler.config.num_train_timesteps)


def _shift(scheduler: Any, tokens: int) -> float:
    """The shift of noise levels; where it depends on the size of the image, that of so many patches."""
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return float(config.shift)
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    try:
        mu = low + (high - low) * (tokens - few) / (many - few)
        return float(mu if config.get("time_shift_type") == "linear" else math.exp(mu))
    except (ArithmeticError, TypeError, ValueError) as error:
        raise InputError(
            f"got a shift from {low!r:.40} to {high!r:.40} between {few!r:.40} and {many!r:.40} patches for {tokens:,} "
            f"({first_line(error)}); expected numbers; check image_size and the config of the scheduler"
        ) from error
