"""Mixtures `a | b` from noise predictions: the share of each component is estimated along the path of a sample.

The superposition "OR" of Skreta et al. (2025, "The superposition of diffusion models", Algorithm 1) in discrete time.
The forward kernel is the same for all components, so that the density of component k at a particle, relative to the
others, is that of its reverse kernels along the path.

Notation: variable -> symbol
    x, y        a particle at timestep t, and at the next timestep s < t
    mean        mu_k, the mean of the reverse kernel m_k(y | x) = N(mu_k, beta I) of component k: see `Level`
    path        l_k = sum over steps of log m_k(y | x)
    log_w       log w_k, of the mixture
    share       r_k = softmax_k(log w_k + l_k)

    y ~ N(sum_k r_k mu_k, beta I),  l_k += -|y - mu_k|^2 / (2 beta)
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from energycomp.components import Composition, Mixture, is_constant, noise_share, number_at
from energycomp.errors import CompositionError
from energycomp.sampling import Level, Run, Steps, Target
from energycomp_samplers.kernels import check_densities, clip, sum_of_squares


@attrs.frozen
class MixtureSampler:
    """Samples of a mixture whose components need no energy. Costs one evaluation per distinct leaf, sample and step.

    A composition that is no mixture is a mixture of one component, which follows the sum of the scores. A mixture that
    is guided as a whole, `3 * (a | b) & u`, is the mixture of its guided components.

    >>> from energycomp import Composer
    >>> from energycomp.components import Mixture
    >>> from energycomp.testing import Gaussian
    >>> mixture = Mixture([Gaussian(-2.0, 0.1), Gaussian(2.0, 0.1)], torch.tensor([0.2, 0.8]).log())
    >>> x = Composer(mixture).sample(2000, sampler=MixtureSampler(), output_type="pt", generator=0, progress=False)
    >>> abs((x > 0).float().mean() - 0.8) < 0.03
    tensor(True)
    """

    def start(self, run: Run, /) -> _Paths:
        """n independent samples of noise; a list of n generators makes each independent of its batch."""
        check_densities(run.target)
        mixture = _mixture_of(run.target.composition)
        leaves = Target(mixture.leaves, run.target.mixed_precision)
        # Without this sampler, a mixture needs energies: leaving it out is no cure.
        check_densities(leaves, "sample the components of the mixture one at a time")
        return _Paths(run, mixture, leaves, run.noise())


@attrs.define(eq=False)
class _Paths(Steps):
    """Samples x (n, *shape), and l_k of their paths (J, n)."""

    run: Run
    mixture: Mixture
    leaves: Target
    x: Tensor
    log_w: Tensor = attrs.field(init=False)
    path: Tensor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.log_w = torch.tensor(self.mixture.log_weights, dtype=torch.float64, device=self.x.device)[:, None]
        self.path = self.log_w.new_zeros(len(self.log_w), self.run.n)

    def step(self, level: Level, /) -> None:
        # Predict x_0 by every leaf in one batch, and sum the leaves of each component.
        x0 = self.leaves.predict(self.x, level.rows(self.x), prediction_type="sample")
        x0 = torch.einsum("jk,k...->j...", _weights(self.mixture, level).to(x0), x0)
        # mu_k of the reverse kernel of each component, (J, n, *shape).
        mean = level.mean(self.x, clip(x0, self.run.target))
        # Step: y ~ N(sum_k r_k mu_k, beta I), by the shares r_k of the components along the path so far.
        share = torch.softmax(self.log_w + self.path, dim=0)
        y = torch.einsum("jn,jn...->n...", share.to(self.x.dtype), mean)
        if not level.is_last:
            y = y + level.beta**0.5 * self.run.noise()
            # Count what each component thinks of the step: log m_k(y | x).
            self.path = self.path - sum_of_squares(y - mean, mean) / (2.0 * level.beta)
        self.x = y


def _mixture_of(composition: Composition) -> Mixture:
    mixtures = [leaf for leaf in composition.terms if isinstance(leaf, Mixture)]
    if not mixtures:
        return Mixture([composition])
    mixture: Mixture = mixtures[0]
    weight = composition.terms[mixture]
    # The mixture alone.
    if len(composition.terms) == 1 and is_constant(weight, 1.0, composition.noised_space.sample_shape):
        return mixture
    # A guided mixture: each component is guided.
    if len(composition.terms) == 2:
        u = mixture.unconditional
        if (weight * mixture & u).terms == composition.terms:
            return Mixture([weight * part & u for part in mixture.components], mixture.log_weights)
    raise CompositionError(
        f"got {composition!r}, a sum with a mixture in it; expected a mixture alone, or a guided one; write the "
        "mixture last, such as `(a & c) | (b & c)`"
    )


def _weights(mixture: Mixture, level: Level) -> Tensor:
    """The weight of each leaf in each of J components at a level, (J, K)."""
    leaves = list(mixture.leaves.terms)
    space = mixture.noised_space
    share = float(noise_share(torch.tensor([level.timestep]), len(space.alphas_cumprod)))

    def row(part: Composition) -> list[float]:
        return [number_at(part.terms.get(leaf, 0.0), share, space.sample_shape) for leaf in leaves]

    return torch.tensor([row(part) for part in mixture.components])
