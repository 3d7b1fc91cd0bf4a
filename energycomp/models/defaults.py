"""Defaults: how a model is best used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from energycomp.components.rules import Rule
from energycomp.fields import MOST, legal as _legal
from energycomp.models.calibration import Calibration

_CALIBRATED = {field.name for field in attrs.fields(Calibration)}
MAX_COUNT = MOST  # of draws, of steps and of components


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _calibration(value: Any) -> Any:
    return Calibration(**value) if isinstance(value, dict) and set(value) == _CALIBRATED else value


def _is_calibration(value: Any) -> bool:
    return value is None or isinstance(value, Calibration)


def is_number(value: Any) -> bool:
    """Whether a value is a number that config.json holds: one of Python, and neither NaN nor beyond floats."""
    return type(value) in (int, float) and abs(value) <= 1e300


def _is_positive_or_none(value: Any) -> bool:
    return value is None or (is_number(value) and value > 0)


def _is_count(value: Any, least: int = 1) -> bool:
    return type(value) is int and least <= value <= MAX_COUNT


def _is_views(value: Any) -> bool:
    return _is_count(value) and value <= 8


def _is_range(value: Any, legal: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(legal, value)) and 0 <= value[0] <= value[1]


def _is_positive(value: Any) -> bool:
    return value is not None and _is_positive_or_none(value)


def is_text(value: Any) -> bool:
    """Whether a value is a text."""
    return isinstance(value, str)


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
        distinct: whether the components of one picture differ in their values.
        calibration: errors that answers leave on held-out images, for `Solution.typicality`; None if not measured.
        beta: inverse temperature of posteriors, softmax(-beta J), fitted on validation data; None when not fitted.
        log_errors: whether posteriors are softmax(-beta log J): those of prediction errors of unknown variance, which
            trust an image less if every answer leaves a large error.
        reading_rule: the rule under which pictures are read, where it is not the denoiser's own.
        guidance_scale: the weight of each component where a person gives none, as on the command line.
        attribute_guidance: how strongly attributes are drawn where a person does not say, see `Model.compose`.
        views: how many turned and mirrored views of an image a decomposition searches, 1 to 8; see `search_latents`.
    """

    timesteps: tuple[float, float] | None = attrs.field(
        default=None,
        converter=_pair,
        validator=_legal(lambda v: v is None or (_is_range(v, is_number) and v[0] < v[1]), "None or 0 <= low < high"),
    )
    gamma: float | None = attrs.field(default=None, validator=_legal(_is_positive_or_none, "None or a number > 0"))
    draws: int = attrs.field(default=16, validator=_legal(_is_count, f"a whole number >= 1, <= {MAX_COUNT:,}"))
    solver: str = attrs.field(default="enumerate", validator=_legal(is_text, "a registered name"))
    counts: tuple[int, int] = attrs.field(
        default=(0, 8),
        converter=_pair,
        validator=_legal(lambda v: _is_range(v, lambda n: _is_count(n, 0)), f"0 <= low <= high <= {MAX_COUNT:,}"),
    )
    scheduler: str = attrs.field(default="DDIMScheduler", validator=_legal(is_text, "the name of a class"))
    num_inference_steps: int = attrs.field(
        default=50, validator=_legal(_is_count, f"a whole number >= 1, <= {MAX_COUNT:,}")
    )
    distinct: bool = attrs.field(default=True, validator=_legal(lambda v: isinstance(v, bool), "True or False"))
    calibration: Calibration | None = attrs.field(
        default=None, converter=_calibration, validator=_legal(_is_calibration, "None or a Calibration")
    )
    beta: float | None = attrs.field(default=None, validator=_legal(_is_positive_or_none, "None or a number > 0"))
    log_errors: bool = attrs.field(default=False, validator=_legal(lambda v: isinstance(v, bool), "True or False"))
    reading_rule: Rule | None = attrs.field(
        default=None, validator=_legal(lambda v: v in (None, "sum", "mean", "product"), "None, sum, mean or product")
    )
    guidance_scale: float = attrs.field(default=1.0, validator=_legal(_is_positive, "a number > 0"))
    attribute_guidance: float = attrs.field(default=1.0, validator=_legal(_is_positive, "a number > 0"))
    views: int = attrs.field(default=1, validator=_legal(_is_views, "a whole number from 1 to 8"))
