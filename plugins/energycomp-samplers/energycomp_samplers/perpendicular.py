"""Perpendicular negation: of a negated component, only what is orthogonal to the positive ones is subtracted.

Perp-Neg of Armandpour et al. (2023, "Re-imagine the negative prompt algorithm"), for any number of components.

Notation: variable -> symbol
    x, y            a sample at timestep t, and at the next timestep s < t
    x0              the predictions of x_0 of u and of all components, (K, G, P, C, H, W)
    asked           r = sum_{w_i > 0} w_i (e_i - u), and what the guidance of attributes subtracts
    apart           d_k = e_k - u of a negated component, w_k < 0
    alpha, next_alpha   alpha_bar_t, alpha_bar_s

    d_k' = d_k - (<d_k, r> / <r, r>) r,  for each sample, over all its numbers
    e = u + r + sum_{w_k < 0} w_k d_k'
    y = sqrt(alpha_bar_s) e + sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) (x - sqrt(alpha_bar_t) e)   (DDIM)

Predictions of x_0 and of noise have the same projection, because their residuals are multiples of each other.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import torch
from torch import Tensor

from energycomp.components import AnyWeight
from energycomp.errors import CompositionError
from energycomp.sampling import Generator, Sampled, SchedulerSampler, StepCallback, Target, draw_noise
from energycomp.seeds import as_generators
from energycomp_samplers.kernels import axes, called_back, check_densities, clipped, levels, predicted
from energycomp_samplers.residuals import Residuals, residuals

LEAST = 1e-12  # <r, r> / <u, u> below which there is no direction to be orthogonal to


@attrs.frozen
class Perpendicular:
    """Follows a composition such as `a & ~b` without working against a. Costs what plain sampling costs.

    One evaluation per leaf, sample and step, and one for u where the weights of the other leaves sum to 1. Without a
    negated component it is the default sampler. Not a distribution that is known: it keeps samples where the positive
    components are better than a negative weight does, but does not guarantee that b is absent.

    Raises:
        CompositionError: from `sample`, only negated components, or see `energycomp_samplers.residuals`.

    >>> from energycomp import Composer
    >>> from energycomp.testing import Gaussian
    >>> u = Gaussian(0.0, 1.0, name="u", unconditional="self")
    >>> a, twin = (Gaussian(0.5, 0.2, name, unconditional=u) for name in ("a", "twin"))
    >>> x = Composer(a & ~twin).sample(500, sampler=Perpendicular(), output_type="pt", generator=0, progress=False)
    >>> abs(x.mean() - 0.5) < 0.1, abs(x.var() - 0.2) < 0.1  # nothing of the twin is orthogonal to a
    (tensor(True), tensor(True))
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
        form = residuals(target.composition)
        if form is None:
            return SchedulerSampler().sample(
                target,
                n,
                num_inference_steps=num_inference_steps,
                generator=generator,
                callback_on_step_end=callback_on_step_end,
                progress=progress,
            )
        if not form.positive:
            raise CompositionError(
                f"got {target.composition!r}, negated components only; expected at least one that is not, to which the "
                "others are made orthogonal; write `a & ~b`, or use sampler='rejection'"
            )
        inner = Target(form.leaves, target.mixed_precision)
        shape = (n, 1, *target.noised_space.sample_shape)
        x = draw_noise(shape, generator=as_generators(generator), device=inner.device)
        for level in levels(inner, num_inference_steps, progress=progress):
            x0 = composed(predicted(inner, x, level), form.at(level.timestep))
            noise = (x - level.alpha**0.5 * x0) / (1.0 - level.alpha) ** 0.5
            y = level.next_alpha**0.5 * clipped(x0, target) + (1.0 - level.next_alpha) ** 0.5 * noise
            x = called_back(callback_on_step_end, level, y)
        return Sampled(x.flatten(0, 1))


def composed(x0: Tensor, form: Residuals) -> Tensor:
    """e of the formula above (G, P, *shape) for the predictions x0 (K, G, P, *shape) of `form.leaves`, at one level."""
    u, apart = x0[0], x0[1:] - x0[0]
    asked = _sum(form.positive.values(), apart[: len(form.positive)])
    against = _sum(form.negated.values(), apart[len(form.positive) :])
    size = _dot(asked, asked)
    along = torch.where(size > LEAST * _dot(u, u), _dot(against, asked) / size, 0.0)
    return u + asked + against - along * asked


def _sum(weights: Iterable[AnyWeight], values: Tensor) -> Tensor:
    return torch.einsum("k,k...->...", values.new_tensor(list(weights)), values)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of particles (G, P, *shape) over their shape, which stays as dimensions of size 1."""
    return (a * b).sum(dim=axes(a), keepdim=True)
