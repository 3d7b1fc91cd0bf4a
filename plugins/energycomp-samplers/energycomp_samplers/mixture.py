"""Mixtures `a | b` from noise predictions: the share of each component is estimated along the path of a sample.

The superposition "OR" of Skreta et al. (2025, "The superposition of diffusion models", Algorithm 1) in discrete time.
The forward kernel is the same for all components, so that the density of component k at a particle, relative to the
others, is that of its reverse kernels along the path.

Notation: variable -> symbol
    x, y        a particle at timestep t, and at the next timestep s < t
    mean        mu_k, the mean of the reverse kernel m_k(y | x) = N(mu_k, beta I) of component k: see `kernels`
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
from energycomp.sampling import Generator, Sampled, StepCallback, Target, draw_noise
from energycomp.seeds import as_generators
from energycomp_samplers.kernels import (
    Level,
    called_back,
    check_densities,
    clipped,
    levels,
    predicted,
    sum_of_squares,
)


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

    def sample(
        self,
        target: Target,
        n: int,
        *,
        num_inference_steps: int,
        generator: Generator = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool = True,
    ) -> Sampled:
        """n independent samples; a list of n generators makes each independent of its batch."""
        check_densities(target)
        mixture = _mixture_of(target.composition)
        inner = Target(mixture.leaves, target.mixed_precision)
        check_densities(inner)
        generator, shape, device = as_generators(generator), target.noised_space.sample_shape, inner.device
        log_w = torch.tensor(mixture.log_weights, dtype=torch.float64, device=device)[:, None]
        path = torch.zeros(len(log_w), n, dtype=torch.float64, device=device)
        x = draw_noise((n, 1, *shape), generator=generator, device=device)
        for level in levels(inner, num_inference_steps, progress=progress):
            weights = _weights(mixture, level).to(device)
            x0 = torch.einsum("jk,k...->j...", weights, predicted(inner, x, level))
            mean = level.mean(x, clipped(x0, target))  # (J, n, 1, *shape)
            share = torch.softmax(log_w + path, dim=0)
            y = torch.einsum("jn,jn...->n...", share.to(x.dtype), mean)
            if not level.is_last:
                y = y + level.beta**0.5 * draw_noise((n, 1, *shape), generator=generator, device=device)
                path = path - sum_of_squares(y - mean, y)[..., 0] / (2.0 * level.beta)
            x = called_back(callback_on_step_end, level, y)
        return Sampled(x.flatten(0, 1))


def _mixture_of(composition: Composition) -> Mixture:
    """The mixture that a composition is, or that of one component."""
    mixtures = [leaf for leaf in composition.terms if isinstance(leaf, Mixture)]
    if not mixtures:
        return Mixture([composition])
    mixture: Mixture = mixtures[0]
    weight = composition.terms[mixture]
    guided = weight * mixture & mixture.unconditional if len(composition.terms) == 2 else composition
    shape = composition.noised_space.sample_shape
    if len(composition.terms) == 1 and is_constant(weight, 1.0, shape):
        return mixture
    if len(composition.terms) == 2 and guided.terms == composition.terms:
        parts = [weight * part & mixture.unconditional for part in mixture.components]
        return Mixture(parts, mixture.log_weights)
    raise CompositionError(
        f"got {composition!r}, a sum with a mixture in it; expected a mixture alone, or a guided one; write the "
        "mixture last, such as `(a & c) | (b & c)`"
    )


def _weights(mixture: Mixture, level: Level) -> Tensor:
    """The weight of each leaf in each of J components at a level, (J, K)."""
    leaves = list(mixture.leaves.terms)
    space = mixture.noised_space
    share = float(noise_share(torch.tensor([level.timestep]), len(space.alphas_cumprod)))
    return torch.tensor(
        [
            [number_at(part.terms.get(leaf, 0.0), share, space.sample_shape) for leaf in leaves]
            for part in mixture.components
        ]
    )
