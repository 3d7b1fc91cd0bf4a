"""The product of the Gaussians that components predict of a clean sample: its mean, and how much they contradict.

Notation: variable -> symbol
    x, z            a noised sample, and its clean sample
    x0, mean        m_i = E_i[z | x], the predictions of the leaves, and m
    b, total        the weights b_i, and their sum B
    P, ratio        precisions P_i of clean samples, and alpha_bar / noise: see `energycomp_samplers.spread`
    contradiction   D, in squared standard deviations
    log_overlap     log Z, of the integral over z of prod_i N(z; m_i, C_i)^b_i N(x; sqrt(alpha_bar) z, noise I)^(1 - B)
    noise           1 - alpha_bar

    C_i^-1 = ratio I + P_i,    C^-1 = sum_i b_i C_i^-1 + (1 - B) ratio I
    m = C (sum_i b_i C_i^-1 m_i + (1 - B) sqrt(alpha_bar) / noise x)
    D = sum_i b_i (m_i - m)' C_i^-1 (m_i - m) + (1 - B) |x - sqrt(alpha_bar) m|^2 / noise
    log Z = (sum_i b_i log |C_i^-1| - log |C^-1| - (1 - B) d log noise - D) / 2,    of d numbers

The noised product of the components is prod_i p_i(x)^b_i times Z(x), up to a constant. Where Z varies little from
sample to sample, the sum of the scores of the noised components is that of their noised product. At the noisy end Z is
the integral of prod_i p_i^b_i: 1 where two components are independent under u, and small where they contradict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor

from energycomp.sampling import Level
from energycomp_samplers.kernels import weighted_sum
from energycomp_samplers.spread import Spread, product_spread, ratio_of

AWAY = 5.0  # standard deviations, of the least sure component, by which m may leave the range of the predictions


@attrs.frozen(eq=False)
class SecondOrder:
    """What the formulas above say of samples x (B, *shape) at one level, whose leaves predict x0 (K, B, *shape).

    Args:
        mean: m, or the sum of the predictions where the product is no Gaussian, (B, *shape), in float64.
        plain: the sum of the predictions.
        spread: that of the product.

    >>> from energycomp.components import Gaussian
    >>> from energycomp.sampling import Target
    >>> from energycomp_samplers.spread import measure_spreads
    >>> target = Target(Gaussian(1.0, 0.25) + Gaussian(-1.0, 0.25))
    >>> level, x = target.levels(10)[0], torch.zeros(1, 1, 1, 1)
    >>> x0 = target.predict(x, level.rows(x), prediction_type="sample")
    >>> found = SecondOrder.of(x, x0, level, (1.0, 1.0), measure_spreads(target))
    >>> torch.stack(found.contradictions).sum(0).round()  # each is 1 from the mean, or two standard deviations
    tensor([8.], dtype=torch.float64)
    """

    x: Tensor
    x0: Tensor
    level: Level
    b: Sequence[float]
    spreads: Sequence[Spread]
    mean: Tensor
    plain: Tensor
    spread: Spread
    is_gaussian: bool

    @classmethod
    def of(cls, x: Tensor, x0: Tensor, level: Level, b: Sequence[float], spreads: Sequence[Spread]) -> SecondOrder:
        """The product of predictions with the weights b and the spreads of the leaves."""
        ratio = ratio_of(level, x)
        x = x.double()
        x0 = x0.double()
        # The sum of the predictions: first order.
        total = (1.0 - sum(b)) * level.alpha**0.5 / (1.0 - level.alpha) * x
        plain = weighted_sum(b, x0) + total / ratio
        # The precision of the product. Where it is none, first order stays; of one leaf that is right.
        product, is_product = product_spread(spreads, b, math.prod(x.shape[1:]))
        if not is_product:
            return cls(x, x0, level, b, spreads, plain, plain, product, len(b) == 1)
        # m = C (sum_i b_i C_i^-1 m_i + (1 - B) sqrt(alpha_bar) / noise x): second order.
        for weight, spread, one in zip(b, spreads, x0, strict=True):
            total = total + weight * spread.apply(one, lambda values: ratio + values)
        mean = product.covariance(ratio)(total)
        # Stay near the range of the predictions, however sure some components seem.
        least = min(float(spread.values.min()) for spread in spreads)
        away = AWAY * float(ratio + least) ** -0.5
        mean = mean.clamp(x0.amin(0) - away, x0.amax(0) + away)
        return cls(x, x0, level, b, spreads, mean, plain, product, True)

    @cached_property
    def contradictions(self) -> list[Tensor]:
        """The terms of D: of each leaf, and of x where the weights do not sum to 1, (B,) each, in float64."""
        # b_i (m_i - m)' C_i^-1 (m_i - m), of each leaf
        ratio = ratio_of(self.level, self.x)
        terms = []
        for weight, spread, one in zip(self.b, self.spreads, self.x0, strict=True):
            pulled = spread.apply(one - self.mean, lambda values: ratio + values)
            terms.append(weight * ((one - self.mean) * pulled).flatten(1).sum(1))
        # (1 - B) |x - sqrt(alpha_bar) m|^2 / noise, of the forward kernel
        apart = (self.x - self.level.alpha**0.5 * self.mean).square().flatten(1).sum(1)
        return [*terms, (1.0 - sum(self.b)) / (1.0 - self.level.alpha) * apart]

    @cached_property
    def log_overlap(self) -> Tensor:
        """log Z, (B,), in float64."""
        ratio = ratio_of(self.level, self.x)
        size = math.prod(self.x.shape[1:])
        # sum_i b_i log |C_i^-1| - log |C^-1| - (1 - B) d log noise: the normalisations of the Gaussians
        noise = (sum(self.b) - 1.0) * size * math.log(1.0 - self.level.alpha)
        total = noise - _log_determinant(self.spread, ratio, size)
        for weight, spread in zip(self.b, self.spreads, strict=True):
            total = total + weight * _log_determinant(spread, ratio, size)
        # Less D, of their exponents
        return (total - torch.stack(self.contradictions).sum(0)) / 2.0


def _log_determinant(spread: Spread, ratio: Tensor, size: int) -> Tensor:
    """log |ratio I + P|, of D numbers: (), or (B,) of spreads of each sample."""
    values = spread.values.to(ratio.device)
    return (ratio + values).log().sum(-1) * size / values.shape[-1]
