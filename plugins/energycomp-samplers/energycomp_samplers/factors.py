"""Products of many components, a few of which are evaluated at a time: `all_of(components, batch=32)`.

Notation: variable -> symbol
    b, n, batch     the weights b_i of the leaves, the number of factors (leaves of positive weight), and m of them
    P, ratio, C     as in `energycomp_samplers.second_order`, with h, of which m = C h is the mean
    shift           P_i mu_i, of the Gaussian N(mu_i, P_i^-1) that stands for a factor, measured where noise is strong
    pull            g_i = (ratio I + P_i) E_i[z | x], what a leaf adds to h

    g_i of the Gaussian = sqrt(alpha_bar) / (1 - alpha_bar) x + P_i mu_i
    h = sum_i b_i g_i of the Gaussians + n / m sum over m factors of b_i (g_i - g_i of the Gaussian)
        + sum over other leaves of b_i (g_i - g_i of the Gaussian)

The expectation of h over the choice of m factors is that of all of them, and it has no variance where factors are
Gaussian: they are control variates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor

from energycomp.components import Composition, EnergyComponent, by_sample, combine
from energycomp.errors import CompositionError, InputError
from energycomp.fields import whole
from energycomp.sampling import Target
from energycomp_samplers.composed_group import ComposedGroup, ComposedLeaf
from energycomp_samplers.second_order import AWAY
from energycomp_samplers.spread import POINTS, Spread, noisiest_timestep, product_spread, spreads_for

CLOSE = 1e-6  # of the sum of the weights


def all_of(components: Sequence[EnergyComponent], *, batch: int = 32, seed: int = 0) -> AllOf:
    """The product of many components, such as posteriors of many observations, at the cost of a few.

    Its prediction is the second-order product of all, of which `batch` are evaluated and the others stand in as
    Gaussians, measured once: exact for Gaussians, and unbiased over the choice of the batch, which is drawn anew at
    each timestep. Costs `batch` + 1 evaluations per sample and step with one u, and once 8 D + 4 for each component of
    D <= 32 numbers, 20 above. Draw from it by `sampler="gauss"`, or by the default sampler.

    Raises:
        CompositionError: no components, or weights that do not sum to 1.
        InputError: a batch below 1; when it predicts, components without a covariance, or whose precisions do not add
            up to that of a Gaussian.
    """
    if not components:
        raise CompositionError("got no components; expected at least one")
    parts = [Composition.of(one) for one in components]
    return AllOf(combine(parts, "product") if len(parts) > 1 else parts[0], batch, seed)


@attrs.frozen(eq=False, repr=False)
class AllOf(ComposedLeaf):
    """The leaf that `all_of` makes."""

    composition: Composition
    batch: int = attrs.field(validator=whole(1))
    seed: int = 0
    group: ComposedGroup = attrs.field(init=False)

    @group.default
    def _group(self) -> ComposedGroup:
        target = Target(self.composition)
        total = sum(target.weights)
        if abs(total - 1.0) > CLOSE:
            got = f"got {len(self.composition.terms)} leaves with weights that sum to {total:g}"
            raise CompositionError(f"{got}; expected 1; give components with one unconditional leaf")
        return ComposedGroup(target, _Batches(target, self.batch, self.seed))

    def __repr__(self) -> str:
        return f"all_of({len(self.composition.terms)} leaves)"


@attrs.define(eq=False)
class _Batches:
    """E[z | x] of the product, by the formulas above."""

    target: Target
    batch: int
    seed: int

    @cached_property
    def spreads(self) -> list[Spread]:
        return spreads_for(self.target, "all_of(...)", "compose these by `&`")

    @cached_property
    def product(self) -> Spread:
        size = math.prod(self.target.noised_space.sample_shape)
        spread, is_product = product_spread(self.spreads, self.target.weights, size)
        if not is_product:
            got = f"got all_of({len(self.spreads)} leaves), whose precisions do not add up to that of a Gaussian"
            raise InputError(f"{got}; expected components that are surer than u; compose these by `&`")
        return spread

    @cached_property
    def shifts(self) -> Tensor:
        """P_i mu_i of each leaf, (K, *shape), in float64, by predictions at strong noise."""
        # P_i mu_i = g_i - sqrt(alpha_bar) / (1 - alpha_bar) x, for any x: the mean over a few
        random = torch.Generator().manual_seed(self.seed)
        x = torch.randn(POINTS, *self.target.noised_space.sample_shape, generator=random).to(self.target.device)
        timestep = torch.full((POINTS,), noisiest_timestep(self.target), device=x.device)
        return self._pulls(x, timestep, range(len(self.spreads)))[1].mean(1)

    def __call__(self, sample: Tensor, timestep: Tensor) -> Tensor:
        mean = torch.empty_like(sample)
        for one in timestep.unique():
            rows = timestep == one
            mean[rows] = self._mean(sample[rows], timestep[rows])
        return mean

    def _mean(self, x: Tensor, timestep: Tensor) -> Tensor:
        # Predict x_0 by the leaves of the batch of this timestep.
        chosen = self._choose(float(timestep[0]))
        x0, pulls = self._pulls(x, timestep, list(chosen))
        # Add: Gaussians for all leaves, and for the chosen ones what they differ by from these.
        weights = self.shifts.new_tensor(self.target.weights)
        scales = self.shifts.new_tensor(list(chosen.values()))
        total = torch.einsum("k,k...->...", weights, self.shifts)[None]
        total = total + torch.einsum("k,k...->...", scales, pulls - self.shifts[list(chosen)][:, None])
        # m = C h, with the part of h that all leaves share.
        ratio = self._ratio(timestep)
        total = total + self._common_pull(x, ratio)
        mean = self.product.apply(total, lambda values: 1.0 / (ratio + values))
        # Stay near the range of the predictions.
        least = min(float(self.spreads[k].values.min()) for k in chosen)
        away = by_sample(AWAY * (ratio[:, 0] + least).rsqrt(), x.ndim)
        return torch.maximum(torch.minimum(mean, x0.amax(0) + away), x0.amin(0) - away).to(x)

    def _choose(self, timestep: float) -> dict[int, float]:
        """The places of the leaves that are evaluated at a timestep, and how much each counts."""
        weights = self.target.weights
        factors = [k for k, b in enumerate(weights) if b > 0.0]
        # m of the n factors, by a seed that the timestep changes; torch seeds by 32 bits. Each counts n / m times.
        random = torch.Generator().manual_seed((1_000_003 * self.seed + round(1000 * timestep)) % 2**32)
        batch = torch.randperm(len(factors), generator=random)[: self.batch].sort().values.tolist()
        share = len(factors) / len(batch)
        # Leaves that are no factors, such as u, always count once.
        counts = {factors[place]: share * weights[factors[place]] for place in batch}
        return counts | {k: b for k, b in enumerate(weights) if b <= 0.0}

    def _pulls(self, x: Tensor, timestep: Tensor, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        """E_i[z | x] of leaves at these places, and g_i without what all leaves share, (k, B, *shape), in float64."""
        # Predict x_0 by these leaves alone, in one batch.
        leaves = list(self.target.composition.terms)
        part = attrs.evolve(self.target, composition=Composition([(leaves[k], 1.0) for k in places]))
        x0 = part.predict(x, timestep, prediction_type="sample").double()
        # g_i = (ratio I + P_i) E_i[z | x].
        ratio = self._ratio(timestep)
        pulls = [self.spreads[k].apply(one, lambda values: ratio + values) for k, one in zip(places, x0, strict=True)]
        return x0, torch.stack(pulls) - self._common_pull(x, ratio)

    def _ratio(self, timestep: Tensor) -> Tensor:
        """alpha_bar / (1 - alpha_bar), (B, 1), in float64."""
        return self.target.log_snr(timestep).double().exp()[:, None]

    @staticmethod
    def _common_pull(x: Tensor, ratio: Tensor) -> Tensor:
        """sqrt(alpha_bar) / (1 - alpha_bar) x, which is (ratio (1 + ratio))^(1/2) x."""
        return by_sample((ratio * (1.0 + ratio)).sqrt()[:, 0], x.ndim) * x.double()
