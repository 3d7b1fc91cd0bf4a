"""How unusual the error of an answer is, compared with held-out images of as many components."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError

WINDOW = 8  # the spatial maximum is taken over squares of a side of 1/8 of the image
TAILS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)  # whose scores are stored


def log_errors(residuals: Tensor) -> Tensor:
    """The logarithms of the mean error and of its spatial maximum, (2,), float64.

    Args:
        residuals: (S, C, H, W), scaled so that the squared sum of a draw is its error, as `Problem.residuals` returns.

    >>> log_errors(torch.ones(4, 3, 8, 8)).exp().tolist()
    [192.0..., 3.0...]
    """
    each = residuals.detach().double().square().sum(1).mean(0)  # (H, W)
    side = max(1, min(each.shape) // WINDOW)
    peak = torch.nn.functional.avg_pool2d(each[None, None], side, stride=1).max() * side**2
    return torch.stack([each.sum(), peak]).clamp(min=torch.finfo(torch.float64).tiny).log().cpu()


def _pairs(value: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(map(_numbers, value))


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(map(float, value))


def _counts(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value))


@attrs.frozen
class Calibration:
    """The errors that answers leave on held-out images, by the number of components.

    The score of an answer is the greater of two standardised logarithms, those of the error and of its spatial maximum.

    Args:
        counts: numbers of components, increasing.
        mean, std: of both logarithms for each count.
        scores: that a share `TAILS` of the held-out images exceeds, increasing.
        images: how many images these are.

    Raises:
        InputError: numbers that do not belong together.

    >>> calibration = Calibration.of({1: torch.randn(500, 2, generator=torch.Generator().manual_seed(0))})
    >>> calibration.typicality(1, torch.zeros(2)) > 0.2, calibration.typicality(1, torch.tensor([0.0, 5.0]))
    (True, 0.001)
    """

    counts: tuple[int, ...] = attrs.field(converter=_counts)
    mean: tuple[tuple[float, ...], ...] = attrs.field(converter=_pairs)
    std: tuple[tuple[float, ...], ...] = attrs.field(converter=_pairs)
    scores: tuple[float, ...] = attrs.field(converter=_numbers)
    images: int

    def __attrs_post_init__(self) -> None:
        pairs = [*self.mean, *self.std]
        numbers = [*(n for pair in pairs for n in pair), *self.scores]
        rows = {len(self.counts), len(self.mean), len(self.std)}
        fits = len(rows) == 1 and len(self.counts) > 0 and len(self.scores) == len(TAILS)
        legal = all(len(pair) == 2 for pair in pairs) and all(map(math.isfinite, numbers))
        if not (fits and legal and all(n > 0 for pair in self.std for n in pair) and self.images > 0):
            raise InputError(
                f"got a calibration of the counts {self.counts} with {len(self.mean)} means, {len(self.std)} "
                f"deviations and {len(self.scores)} scores; expected two finite numbers for each count, deviations "
                f"above 0 and {len(TAILS)} scores; make one with `energycomp_lab.evaluation.calibrate`"
            )

    @classmethod
    def of(cls, found: Mapping[int, Tensor]) -> Calibration:
        """The calibration of the `log_errors` (N, 2) of held-out images, by count; at least two images for each."""
        for count, values in found.items():
            if len(values) < 2:
                raise InputError(f"got {len(values)} images of {count} components; expected at least 2 of each count")
        counts = sorted(found)
        parts = [found[count].double() for count in counts]
        mean, std = [part.mean(0) for part in parts], [part.std(0).clamp(min=1e-3) for part in parts]
        # a deviation of few images is too small by chance, so each image is scored by those of the others
        scores = torch.cat([_left_out(part) for part in parts])
        levels = torch.quantile(scores, 1 - torch.tensor(TAILS, dtype=torch.float64))
        return cls(counts, [m.tolist() for m in mean], [s.tolist() for s in std], levels.tolist(), len(scores))

    def typicality(self, count: int, errors: Tensor) -> float:
        """The share of held-out images whose score is at least that of an answer with `count` components.

        Between 0.001 and 1, and interpolated between the stored shares; 1 stands for all above 0.5. A count that was
        not calibrated is compared with the nearest one.

        Args:
            errors: `log_errors` of its residuals.
        """
        row = min(range(len(self.counts)), key=lambda k: abs(self.counts[k] - count))
        mean, std = torch.tensor(self.mean[row]), torch.tensor(self.std[row])
        return _share(float(((errors - mean) / std).max()), self.scores)


def _left_out(values: Tensor) -> Tensor:
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
