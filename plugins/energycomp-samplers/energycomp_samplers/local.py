"""The covariance that each component predicts at each noised sample, and the bounded product of these Gaussians.

Notation: variable -> symbol, beside those of `energycomp_samplers.second_order`
    away            g = sum_i b_i C_i^-1 (m_i - plain) + (1 - B) ratio (x / sqrt(alpha_bar) - plain)
    least           the least eigenvalue of any C_i^-1 of positive weight

    C_i = (1 - alpha_bar) / sqrt(alpha_bar) dm_i / dx         (Tweedie's second formula)
    C^-1 = V diag(l) V',    m = plain + V diag(1 / l) V' g

Of several modes C_i is that of all modes that the noise leaves open, and of one mode where noise is low. Where the
product is less sure than its least sure component, l < least, second order would leave what any component predicts.
There m keeps the sum of the predictions, and C has the variance of the least sure component: direction by direction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.sampling import Level, Target
from energycomp_samplers.kernels import as_column, weighted_sum
from energycomp_samplers.second_order import AWAY, SecondOrder
from energycomp_samplers.spread import MOST, Spread, asymmetry, measure_spreads, noisiest_timestep, ratio_of

STEP = 0.1  # of the differences, in deviations of the noise
CLEAR = 4e-3  # alpha_bar, below which float32 has too few digits of the differences: spreads are those of this level
FLOOR = 1e-5  # of variances, as a share of the variance of the noise
SHARE = 0.5  # of `least`, from which a direction of the product counts
Product: TypeAlias = Callable[[Tensor, Tensor, Level], SecondOrder]


def local_spreads(target: Target, x: Tensor, level: Level) -> list[Spread]:
    """C_i^-1 - ratio I of every leaf at samples x (B, *shape): spreads of matrices (B, D, D).

    Costs 2 D evaluations for each leaf and sample.

    >>> from energycomp.components import Gaussian
    >>> target, x = Target(Gaussian(0.5, 0.25)), torch.zeros(3, 1, 1, 1)
    >>> (1.0 / local_spreads(target, x, target.levels(10)[4])[0].values).round(decimals=3).flatten().tolist()
    [0.25, 0.25, 0.25]
    """
    # The level itself, or the noisiest one at which differences of predictions are seen.
    size = x[0].numel()
    timestep = min(level.timestep, noisiest_timestep(target, CLEAR))
    alpha = float(torch.sigmoid(target.log_snr(torch.tensor([timestep]))))
    # m_i at both ends of each direction.
    step = STEP * (1.0 - alpha) ** 0.5
    probes = step * torch.eye(size, device=x.device).reshape(1, size, *x.shape[1:])
    ends = torch.cat([x[:, None] + probes, x[:, None] - probes]).flatten(0, 1)
    rows = torch.full((len(ends),), timestep, device=x.device)
    x0 = target.predict(ends, rows, prediction_type="sample").double()
    above, below = x0.reshape(len(x0), 2, len(x), size, size).unbind(1)
    # C_i = (1 - alpha_bar) / sqrt(alpha_bar) dm_i / dx, made symmetric.
    moved = (1.0 - alpha) / alpha**0.5 * (above - below) / (2.0 * step)
    values, vectors = torch.linalg.eigh((moved + moved.mT) / 2.0)
    # No variance is below the error of the network, by which C_i is not symmetric.
    error = asymmetry(moved)[..., None].clamp(min=FLOOR * (1.0 - alpha))
    precisions = 1.0 / torch.maximum(values, error) - alpha / (1.0 - alpha)
    return [Spread(*one) for one in zip(precisions, vectors, strict=True)]


def second_order(target: Target, kind: Literal["constant", "jacobian"]) -> Product:
    """The product of samples x (B, *shape), whose leaves predict x0 (K, B, *shape), at a level.

    Args:
        kind: "constant" measures the spread of each leaf here, once; "jacobian" that of each sample, whenever asked.

    Raises:
        InputError: "jacobian" for samples of too many numbers.
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
    """The bounded product of Gaussians with the spreads of `local_spreads`.

    >>> level, x = Level(step=0, timestep=500.0, alpha=0.5, next_alpha=0.6), torch.zeros(1, 1)
    >>> x0 = torch.tensor([[[2.0]], [[0.0]]])  # with the precisions 3 + 1 and 1 + 1
    >>> spreads = [Spread(torch.full((1, 1), p), torch.ones(1, 1, 1)) for p in (3.0, 1.0)]
    >>> found = multiply(x, x0, level, (1.0, 1.0), spreads)
    >>> found.mean, found.plain  # 8 / (4 + 2 - 1), and the sum
    (tensor([[1.6000]], dtype=torch.float64), tensor([[2.]], dtype=torch.float64))
    """
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
