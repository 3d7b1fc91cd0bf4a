"""Defaults: how a model is best used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from energycomp.components.rules import Rule
from energycomp.fields import FLAG, MOST, is_number, is_whole, legal, number, one_of, whole
from energycomp.models.calibration import Calibration

_CALIBRATED = {field.name for field in attrs.fields(Calibration)}


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _calibration(value: Any) -> Any:
    return Calibration(**value) if isinstance(value, dict) and set(value) == _CALIBRATED else value


def _is_range(value: Any, legal: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(legal, value)) and 0 <= value[0] <= value[1]


@attrs.frozen
class Defaults:
    """How a model is best used; every function takes another value for each.

    Args:
        timesteps: range [low, high) of the draws of a noise bank.
        gamma: clamp of their weights, min(1, gamma / SNR); None for weights of 1.
        draws: how many draws an inference averages over.
        solver: registered name of the solver that reads pictures.
        counts: least and greatest number of components that is looked for.
        scheduler: diffusers scheduler for sampling.
        num_inference_steps: its steps.
        sampler: registered name of a sampler that samples in place of the scheduler; None for the scheduler.
        distinct: whether the components of one picture differ in their values.
        calibration: errors that answers leave on held-out images, for `Solution.typicality`; None if not measured.
        beta: inverse temperature of posteriors, softmax(-beta J), fitted on validation data; None when not fitted.
        log_errors: whether posteriors are softmax(-beta log J): those of prediction errors of unknown variance, which
            trust an image less if every answer leaves a large error.
        reading_rule: the rule under which pictures are read, where it is not the denoiser's own.
        guidance_scale: the weight of each component where a person gives none, as on the command line.
        attribute_guidance: scale of the guidance `attributes` where a person does not say, see `AttributeGuidance`.
        views: how many turned and mirrored views of an image a decomposition searches, 1 to 8; see `search_latents`.
    """

    timesteps: tuple[float, float] | None = attrs.field(
        default=None,
        converter=_pair,
        validator=legal(lambda v: _is_range(v, is_number) and v[0] < v[1], "0 <= low < high", or_none=True),
    )
    gamma: float | None = attrs.field(default=None, validator=number(or_none=True))
    draws: int = attrs.field(default=16, validator=whole(1))
    solver: str = attrs.field(default="enumerate", validator=legal(lambda v: isinstance(v, str), "a registered name"))
    counts: tuple[int, int] = attrs.field(
        default=(0, 8),
        converter=_pair,
        validator=legal(lambda v: _is_range(v, is_whole) and v[1] <= MOST, f"0 <= low <= high <= {MOST:,}"),
    )
    scheduler: str = attrs.field(
        default="DDIMScheduler", validator=legal(lambda v: isinstance(v, str), "the name of a class")
    )
    num_inference_steps: int = attrs.field(default=50, validator=whole(1))
    sampler: str | None = attrs.field(
        default=None, validator=legal(lambda v: isinstance(v, str), "a registered name", or_none=True)
    )
    distinct: bool = attrs.field(default=True, validator=FLAG)
    calibration: Calibration | None = attrs.field(
        default=None,
        converter=_calibration,
        validator=legal(lambda v: isinstance(v, Calibration), "a Calibration", or_none=True),
    )
    beta: float | None = attrs.field(default=None, validator=number(or_none=True))
    log_errors: bool = attrs.field(default=False, validator=FLAG)
    reading_rule: Rule | None = attrs.field(default=None, validator=one_of(("sum", "mean", "product"), or_none=True))
    guidance_scale: float = attrs.field(default=1.0, validator=number())
    attribute_guidance: float = attrs.field(default=1.0, validator=number())
    views: int = attrs.field(default=1, validator=whole(1, 8))
