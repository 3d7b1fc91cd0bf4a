"""The slope of the true noise on the noise that is predicted, and what is explained beside a linear predictor.

Notation: variable -> symbol
    slope       <eps, e> / <e, e> of predictions e, which is 1 of a posterior mean E[eps | x_t]
    explained   1 - |eps - e|^2 / |eps|^2
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from energycomp_adopt.checks.case import LEVELS, Case, Noised, mean_error, once, predict

SLOPE, LINEAR = 0.05, 0.02  # how far a slope may be from 1, and how much less than a linear predictor may be explained
SURE = 3.0  # standard errors beyond that


@attrs.frozen(eq=False)
class Regression:
    """At each of `LEVELS`, (L,): of all coordinates of all rows."""

    slope: Tensor  # of the noise on the prediction
    stderr: Tensor  # of the slope
    explained: Tensor  # by the prediction
    linear: Tensor  # what a linear predictor explains
    worse: Tensor  # by how much more than the limits that is, above 0 where it is sure

    @property
    def straight(self) -> bool:
        """Whether slopes may be 1; NaN is not."""
        return bool(((self.slope - 1).abs() < SLOPE + SURE * self.stderr).all())

    @property
    def explains(self) -> bool:
        """Whether as much is explained as by a linear predictor; NaN is not."""
        return bool((self.worse < 0).all())


def regress(case: Case, noised: Noised, predictions: Tensor) -> Regression:
    """Of predictions (L M, ...) at rows of all levels, level by level."""
    values = (noised.noise, predictions, linear_prediction(case.samples.double().flatten(1), noised))
    eps, e, linear = (each.double().reshape(len(LEVELS), -1, case.numbers) for each in values)
    dot, square = (eps * e).sum(2), e.square().sum(2)  # (L, M)
    total = square.mean(1).clamp(min=1e-12)
    slope = dot.mean(1) / total
    index = noised.index.view(len(LEVELS), -1)
    residual = dot - slope[:, None] * square
    stderr = torch.tensor([mean_error(*pair)[1] for pair in zip(residual, index, strict=True)]) / total
    # What a linear predictor explains more, less what is allowed and what may be chance
    own, other, all_ = ((eps - one).square().sum(2) for one in (e, linear, torch.zeros_like(eps)))
    means, errors = torch.tensor([mean_error(*pair) for pair in zip(own - other, index, strict=True)]).unbind(1)
    worse = means / all_.mean(1) - LINEAR - SURE * errors / all_.mean(1)
    explained, by_linear = (1 - one.sum(1) / all_.sum(1) for one in (own, other))
    return Regression(slope, stderr, explained, by_linear, worse)


def linear_prediction(flat: Tensor, noised: Noised) -> Tensor:
    """eps (R, D) of a Gaussian with the mean and the shrunk covariance of the other half of the samples (N, D)."""
    half = len(flat) // 2
    x = noised.sample.double().flatten(1)
    signal, noise = (level.double().flatten(1) for level in noised.levels)
    eps = torch.zeros_like(x)
    for mine, other in ((noised.index < half, flat[half:]), (noised.index >= half, flat[:half])):
        mean = other.mean(0)
        _, values, axes = torch.linalg.svd(other - mean, full_matrices=False)
        known = values.square() / len(other)
        rest = 0.2 * known.sum() / flat.shape[1] + 1e-9  # the variance of all axes, beside 0.8 of the known ones
        s = signal[mine]
        n = noise[mine]
        off = x[mine] - signal[mine] * mean
        plain = 1 / (s**2 * rest + n**2)
        along = 1 / (s**2 * (0.8 * known + rest) + n**2)
        eps[mine] = n * (plain * off + ((along - plain) * (off @ axes.T)) @ axes)
    return eps


@once
def measure_regression(case: Case) -> Regression:
    """On half of the rows, if that is enough, otherwise on all."""
    for share in (0.5, 1.0):
        part = case.rows[case.part(share)]
        regression = regress(case, part, predict(case.model, part, case.condition(part.index)))
        if regression.straight and regression.explains:
            break
    return regression


def format_numbers(values: Tensor) -> str:
    """Two digits of each."""
    return ", ".join(f"{value:.2f}" for value in values.tolist())
