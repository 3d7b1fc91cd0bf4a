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

P_i is constant, see `energycomp_samplers.spread`, or that of each noised sample by Tweedie's second formula,

    C_i = (1 - alpha_bar) / sqrt(alpha_bar) dm_i / dx,    m = plain + V diag(1 / l) V' g
    g = sum_i b_i C_i^-1 (m_i - plain) + (1 - B) ratio (x / sqrt(alpha_bar) - plain),    plain of first order

which is the covariance of all modes that the noise leaves open, and of one mode where noise is low. Where that product
C^-1 = V diag(l) V' is less sure than its least sure component, second order would leave what any component predicts.
There m keeps the sum of the predictions, and C has the variance of the least sure component: direction by direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.sampling import Level, Target
from energycomp_samplers.kernels import as_column, weighted_sum
from energycomp_samplers.spread import (
    MOST,
    Spread,
    alpha_at,
    asymmetry,
    covariance_along,
    measure_spreads,
    noisiest_timestep,
    product_spread,
    ratio_of,
)

AWAY = 5.0  # standard deviations, of the least sure component, by which m may leave the range of the predictions
STEP = 0.1  # of the differences, in deviations of the noise
CLEAR = 4e-3  # alpha_bar, below which float32 has too few digits of the differences: spreads are those of this level
FLOOR = 1e-5  # of variances, as a share of the variance of the noise
SHARE = 0.5  # of `least`, from which a direction of the product counts


@attrs.frozen(eq=False)
class SecondOrder:
    """What the formulas above say of samples x (B, *shape) at one level, whose leaves predict x0 (K, B, *shape).

    `mean` is m, or the sum of the predictions, `plain`, where the product is no Gaussian, in float64.
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


Product: TypeAlias = Callable[[Tensor, Tensor, Level], SecondOrder]


def local_spreads(target: Target, x: Tensor, level: Level) -> list[Spread]:
    """C_i^-1 - ratio I of every leaf at samples x (B, *shape): (B, D, D). Costs 2 D evaluations of each leaf."""
    # The level itself, or the noisiest one at which differences of predictions are seen.
    size = x[0].numel()
    timestep = min(level.timestep, noisiest_timestep(target, CLEAR))
    alpha = alpha_at(target, timestep)
    step = STEP * (1.0 - alpha) ** 0.5
    # C_i = (1 - alpha_bar) / sqrt(alpha_bar) dm_i / dx along each direction, made symmetric.
    probes = step * torch.eye(size, device=x.device).reshape(size, *x.shape[1:])
    each = x.repeat_interleave(size, dim=0)
    moved = covariance_along(target, each, probes.repeat(len(x), *[1] * (x.ndim - 1)), timestep, step)
    moved = moved.unflatten(1, (len(x), size))
    values, vectors = torch.linalg.eigh((moved + moved.mT) / 2.0)
    # No variance is below the error of the network, by which C_i is not symmetric.
    error = asymmetry(moved)[..., None].clamp(min=FLOOR * (1.0 - alpha))
    precisions = 1.0 / torch.maximum(values, error) - alpha / (1.0 - alpha)
    return [Spread(*one) for one in zip(precisions, vectors, strict=True)]


def second_order(target: Target, kind: Literal["constant", "jacobian"]) -> Product:
    """The product of samples x (B, *shape), whose leaves predict x0 (K, B, *shape), at a level.

    "constant" measures the spread of each leaf now; "jacobian" that of each sample whenever asked, and raises
    `InputError` for samples of too many numbers.
    """
    if kind == "jacobian":
        size = math.prod(target.noised_space.sample_shape)
        if size > MOST:
            got = f"got the covariance 'jacobian' for samples of {size} numbers"
            raise InputError(f"{got}; expected at most {MOST}, because each costs two evaluations; use 'constant'")
        return lambda x, x0, level: multiply(
            x, x0, level, target.weights_at(level.timestep), local_spreads(target, x, level)
        )
    spreads = measure_spreads(target)
    return lambda x, x0, level: SecondOrder.of(x, x0, level, target.weights_at(level.timestep), spreads)


def multiply(x: Tensor, x0: Tensor, level: Level, b: Sequence[float], spreads: Sequence[Spread]) -> SecondOrder:
    """The bounded product of Gaussians with the spreads of `local_spreads`."""
    # The sum of first order, from which the product moves away
    ratio = ratio_of(level, x)
    size = x[0].numel()
    x = x.double()
    x0 = x0.double()
    rest = 1.0 - sum(b)
    plain = weighted_sum(b, x0) + rest / level.alpha**0.5 * x
    # C^-1, and g.
    precision = rest * ratio * torch.eye(size, dtype=torch.float64, device=x.device).expand(len(x), -1, -1)
    away = rest * ratio * (x / level.alpha**0.5 - plain)
    least = torch.full((len(x), 1), math.inf, dtype=torch.float64, device=x.device)
    for weight, spread, one in zip(b, spreads, x0, strict=True):
        precision = precision + weight * (spread.matrix(size) + ratio * torch.eye(size, device=x.device))
        away = away + weight * spread.apply(one - plain, lambda values: ratio + values)
        if weight > 0.0:
            least = torch.minimum(least, (ratio + spread.values).amin(1, keepdim=True))
    values, vectors = torch.linalg.eigh(precision)
    # m = plain + V diag(1 / l) V' g, in the directions in which the product is surer than its least sure component.
    is_sure = values >= SHARE * least
    values = torch.where(is_sure, values, least)
    moved = Spread(torch.where(is_sure, 1.0 / values, 0.0), vectors).apply(away, lambda scale: scale)
    # Stay near the range of the predictions.
    reach = as_column(AWAY * least[:, 0].rsqrt(), x)
    mean = torch.maximum(torch.minimum(plain + moved, x0.amax(0) + reach), x0.amin(0) - reach)
    return SecondOrder(x, x0, level, b, spreads, mean, plain, Spread(values - ratio, vectors), True)
