"""Defaults: how a model is best used, and how unusual the error of an answer is among those of held-out images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.precision import widen
from energycomp.components.rules import Rule
from energycomp.errors import InputError
from energycomp.fields import FLAG, MOST, TEXT, a, is_number, is_whole, legal, number, one_of, whole

WINDOW = 8  # the spatial maximum is taken over squares of a side of 1/8 of the image
BACKGROUND = 0.1  # share of an image that is background at least: `background_error` is that of its best explained part
TAILS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)  # whose scores are stored


def log_errors(residuals: Tensor) -> Tensor:
    """The logarithms of the mean error and of its spatial maximum, (2,), float64.

    Args:
        residuals: (S, C, H, W), scaled so that the squared sum of a draw is its error, as `Problem.residuals` returns.

    >>> log_errors(torch.ones(4, 3, 8, 8)).exp().tolist()
    [192.0..., 3.0...]
    """
    each = _error_map(residuals)
    side = max(1, min(each.shape) // WINDOW)
    peak = torch.nn.functional.avg_pool2d(each[None, None], side, stride=1).max() * side**2
    return torch.stack([each.sum(), peak]).clamp(min=torch.finfo(torch.float64).tiny).log().cpu()


def background_error(residuals: Tensor) -> float:
    """The logarithm of the error that the best explained tenth of an image has, per square of a sixteenth of its side.

    Of the unconditional prediction it hardly depends on what the image shows: components cover less than the rest.

    Args:
        residuals: (S, C, H, W), scaled as of `log_errors`.

    >>> round(background_error(torch.ones(4, 3, 32, 32)), 3)  # log 3, of three channels
    1.099
    """
    each = _error_map(residuals)
    side = max(1, min(each.shape) // (2 * WINDOW))
    squares = torch.nn.functional.avg_pool2d(each[None, None], side, stride=side)
    return float(squares.flatten().quantile(BACKGROUND).clamp(min=torch.finfo(torch.float64).tiny).log())


def _error_map(residuals: Tensor) -> Tensor:
    """The mean squared residual of each pixel, (H, W), float64."""
    planes = residuals if residuals.ndim == 4 else residuals.flatten(1)[:, None, None]  # of other data, (S, 1, 1, D)
    return widen(planes.detach()).square().sum(1).mean(0)


def _counts(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value))


def _numbers(value: Any) -> Any:
    """Floats; of nested sequences nested tuples."""
    return tuple(map(_numbers, value)) if isinstance(value, list | tuple) else float(value)


def _optional_numbers(value: Any) -> Any:
    return None if value is None else _numbers(value)


@attrs.frozen
class Calibration:
    """The errors that answers leave on held-out images, by the number of components.

    The score of an answer is the greater of two standardised logarithms, those of the error and of its spatial maximum.

    Args:
        counts: numbers of components, increasing.
        mean, std: of both logarithms for each count.
        scores: that a share `TAILS` of the held-out images exceeds, increasing.
        images: how many images these are.
        sure: two weights, by which the posterior of an answer becomes the probability that it is right, see
            `energycomp.inference.judge`; None where they were not fitted.
        background: mean and standard deviation of the `background_error` that the unconditional prediction leaves,
            by which an image of another kind is refused before it is searched; None where it was not measured.

    Raises:
        InputError: numbers that do not belong together.

    >>> scores = (0.5, 1.1, 1.5, 1.8, 2.2, 2.4, 2.7, 3.0, 3.2)
    >>> calibration = Calibration((1,), mean=((0.0, 0.0),), std=((1.0, 1.0),), scores=scores, images=500)
    >>> calibration.typicality(1, torch.zeros(2)), calibration.typicality(1, torch.tensor([0.0, 5.0]))
    (1.0, 0.001)
    """

    counts: tuple[int, ...] = attrs.field(converter=_counts)
    mean: tuple[tuple[float, ...], ...] = attrs.field(converter=_numbers)
    std: tuple[tuple[float, ...], ...] = attrs.field(converter=_numbers)
    scores: tuple[float, ...] = attrs.field(converter=_numbers)
    images: int
    sure: tuple[float, ...] | None = attrs.field(default=None, converter=_optional_numbers)
    background: tuple[float, ...] | None = attrs.field(default=None, converter=_optional_numbers)

    def __attrs_post_init__(self) -> None:
        pairs = [*self.mean, *self.std]
        numbers = [*(n for pair in pairs for n in pair), *self.scores]
        rows = {len(self.counts), len(self.mean), len(self.std)}
        fits = len(rows) == 1 and len(self.counts) > 0 and len(self.scores) == len(TAILS)
        legal = all(len(pair) == 2 for pair in pairs) and all(map(math.isfinite, numbers))
        fitted = all(
            two is None or (len(two) == 2 and all(map(math.isfinite, two))) for two in (self.sure, self.background)
        )
        if not (fits and legal and fitted and all(n > 0 for pair in self.std for n in pair) and self.images > 0):
            raise InputError(
                f"got a calibration of the counts {self.counts} with {len(self.mean)} means, {len(self.std)} "
                f"deviations and {len(self.scores)} scores; expected two finite numbers for each count, deviations "
                f"above 0 and {len(TAILS)} scores; make one with `energycomp_lab.evaluation.calibrate`"
            )

    def typicality(self, count: int, errors: Tensor) -> float:
        """The share of held-out images whose score is at least that of an answer with `count` components.

        It is between 0.001 and 1, interpolated between the stored shares; 1 stands for all above 0.5, and those below
        1 / `images` are estimates. A count that was not calibrated is compared with the nearest one.

        Args:
            errors: `log_errors` of its residuals.
        """
        return _share(max(self.unusual(count, errors)), self.scores)

    def unusual(self, count: int, errors: Tensor) -> tuple[float, float]:
        """How many standard deviations the error and its spatial maximum are above those of held-out images."""
        row = min(range(len(self.counts)), key=lambda k: abs(self.counts[k] - count))
        mean, std = torch.tensor(self.mean[row]), torch.tensor(self.std[row])
        total, peak = ((errors - mean) / std).tolist()
        return total, peak


def calibration_of(errors: Mapping[int, Tensor]) -> Calibration:
    """The calibration of the `log_errors` (N, 2) of held-out images, by count; at least two images for each."""
    for count, values in errors.items():
        if len(values) < 2:
            raise InputError(f"got {len(values)} images of {count} components; expected at least 2 of each count")
    counts = sorted(errors)
    parts = [errors[count].double() for count in counts]
    mean = [part.mean(0) for part in parts]
    std = [part.std(0).clamp(min=1e-3) for part in parts]
    # The deviation of few images is too small by chance: each image is scored by that of the others
    scores = torch.cat([_scores_by_others(part) for part in parts])
    levels = torch.quantile(scores, 1 - torch.tensor(TAILS, dtype=torch.float64))
    return Calibration(counts, [m.tolist() for m in mean], [s.tolist() for s in std], levels.tolist(), len(scores))


def _scores_by_others(values: Tensor) -> Tensor:
    """The score (N,) of each of N images by the mean and the deviation of the other ones."""
    n = len(values)
    if n < 3:
        return ((values - values.mean(0)) / values.std(0).clamp(min=1e-3)).amax(1)
    mean = (values.sum(0) - values) / (n - 1)
    squares = (values - values.mean(0)).square().sum(0) - (values - values.mean(0)).square() * n / (n - 1)
    return ((values - mean) / (squares / (n - 2)).sqrt().clamp(min=1e-3)).amax(1)


def _share(score: float, scores: Sequence[float]) -> float:
    if score <= scores[0]:
        return 1.0
    for k in range(1, len(scores)):
        if score <= scores[k]:
            width = scores[k] - scores[k - 1]
            place = (score - scores[k - 1]) / width if width > 0 else 1.0
            return float(TAILS[k - 1] * (TAILS[k] / TAILS[k - 1]) ** place)
    return TAILS[-1]


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _calibration(value: Any) -> Any:
    fields = {field.name for field in attrs.fields(Calibration)}
    return Calibration(**value) if isinstance(value, dict) and set(value) | {"sure", "background"} == fields else value


def _is_range(value: Any, legal: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(legal, value)) and 0 <= value[0] <= value[1]


@attrs.frozen
class Defaults:
    """How a model is best used; every function takes another value for each.

    Args:
        timesteps: range [low, high) of the draws of a noise bank; None for all timesteps.
        gamma: clamp of their weights, min(1, gamma / SNR); None for weights of 1.
        draws: how many draws an inference averages over.
        solver: registered name of the solver that reads pictures.
        counts: least and greatest number of components that is looked for, 0 to 100,000.
        scheduler: diffusers scheduler for sampling.
        num_inference_steps: its steps.
        sampler: registered name of a sampler that samples in place of the scheduler; None for the scheduler.
        distinct: whether the components of one picture differ in their values.
        calibration: errors that answers leave on held-out images, for `Solution.typicality`; None if not measured.
        beta: inverse temperature of posteriors, softmax(-beta J), fitted on validation data; None when not fitted.
        log_errors: whether posteriors are softmax(-beta log J): those of prediction errors of unknown variance, which
            trust an image less if every answer leaves a large error.
        distrust: how much less posteriors trust an image that the answer explains worse than the unconditional
            prediction does, see `Posterior.temper`; None for the same beta for all images.
        reading_rule: the rule under which pictures are read, where it is not the denoiser's own.
        guidance_scale: the weight of each component where a person gives none, as on the command line; above 0.
        guidance: name of the guidance that samples follow where a person does not say, such as "apg", with
            `guidance_scale`; None for the weights of the composition alone.
        attribute_guidance: scale of the guidance `attributes` where a person does not say, see `AttributeGuidance`.
        views: how many turned and mirrored views of an image a decomposition searches, 1 to 8; see `search_latents`.
        aspect: width / height of a pixel as people see it, where the network works on squashed images: 1.5 for the
            480x320 frame of CLEVR at 64x64 pixels, and 1 for the same at 192x128.

    >>> Defaults(timesteps=[200, 600], gamma=1.0).timesteps
    (200, 600)
    >>> Defaults(counts=(3, 1))
    Traceback (most recent call last):
    energycomp.errors.InputError: got counts=(3, 1) for Defaults; expected 0 <= low <= high <= ...
    """

    timesteps: tuple[float, float] | None = attrs.field(
        default=None,
        converter=_pair,
        validator=legal(lambda v: _is_range(v, is_number) and v[0] < v[1], "0 <= low < high", or_none=True),
    )
    gamma: float | None = attrs.field(default=None, validator=number(or_none=True))
    draws: int = attrs.field(default=16, validator=whole(1))
    solver: str = attrs.field(default="enumerate", validator=TEXT)
    counts: tuple[int, int] = attrs.field(
        default=(0, 8),
        converter=_pair,
        validator=legal(lambda v: _is_range(v, is_whole) and v[1] <= MOST, f"0 <= low <= high <= {MOST:,}"),
    )
    scheduler: str = attrs.field(default="DDIMScheduler", validator=TEXT)
    num_inference_steps: int = attrs.field(default=50, validator=whole(1))
    sampler: str | None = attrs.field(default=None, validator=a(str, "a name", or_none=True))
    distinct: bool = attrs.field(default=True, validator=FLAG)
    calibration: Calibration | None = attrs.field(
        default=None, converter=_calibration, validator=a(Calibration, "a Calibration", or_none=True)
    )
    beta: float | None = attrs.field(default=None, validator=number(or_none=True))
    log_errors: bool = attrs.field(default=False, validator=FLAG)
    distrust: float | None = attrs.field(default=None, validator=number(or_none=True))
    reading_rule: Rule | None = attrs.field(default=None, validator=one_of(("sum", "mean", "product"), or_none=True))
    guidance_scale: float = attrs.field(default=1.0, validator=number())
    guidance: str | None = attrs.field(default=None, validator=a(str, "a name", or_none=True))
    attribute_guidance: float = attrs.field(default=1.0, validator=number())
    views: int = attrs.field(default=1, validator=whole(1, 8))
    aspect: float = attrs.field(default=1.0, validator=number(least=0.1, most=10.0))

    def unfitted(self) -> Defaults:
        """Without what was fitted to the answers of one network: those of a network that is trained anew."""
        return attrs.evolve(self, calibration=None, beta=None, log_errors=False, distrust=None)
