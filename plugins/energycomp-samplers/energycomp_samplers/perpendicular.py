"""Perpendicular negation: of a negated component, only what is orthogonal to the positive ones is subtracted.

Perp-Neg of Armandpour et al. (2023, "Re-imagine the negative prompt algorithm"), for any number of components.

Notation: variable -> symbol
    x, y            a sample at timestep t, and at the next timestep s < t
    x0              the predictions of x_0 of u and of all components, (K, n, C, H, W)
    asked           r = sum_{w_i > 0} w_i (e_i - u), and what the guidance of attributes subtracts
    apart           d_k = e_k - u of a negated component, w_k < 0
    alpha, next_alpha   alpha_bar_t, alpha_bar_s

    d_k' = d_k - (<d_k, r> / <r, r>) r,  for each sample, over all its numbers
    e = u + r + sum_{w_k < 0} w_k d_k'
    y = sqrt(alpha_bar_s) e + sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t)) (x - sqrt(alpha_bar_t) e)   (DDIM)

Predictions of x_0 and of noise have the same projection, because their residuals are multiples of each other.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from energycomp.errors import CompositionError
from energycomp.sampling import Level, Run, SchedulerSampler, Steps, Target
from energycomp_samplers.kernels import check_densities, clip, weighted_sum
from energycomp_samplers.residuals import Residuals, residuals

LEAST = 1e-12  # <r, r> / <u, u> below which there is no direction to be orthogonal to


@attrs.frozen
class Perpendicular:
    """Follows a composition such as `a & ~b` without working against a. Costs what plain sampling costs.

    Without a negated component it is the default sampler. It keeps samples where the positive components are better
    than a negative weight does, but does not guarantee that b is absent.

    Raises:
        CompositionError: from `start`, only negated components, or see `energycomp_samplers.residuals`.
    """

    def start(self, run: Run, /) -> Steps:
        check_densities(run.target)
        form = residuals(run.target.composition)
        if form is None:
            return SchedulerSampler().start(run)
        if not form.positive:
            raise CompositionError(
                f"got {run.target.composition!r}, negated components only; expected at least one that is not, to which "
                "the others are made orthogonal; write `a & ~b`, or use sampler='rejection'"
            )
        return _Perpendicular(run, form, Target(form.leaves, run.target.mixed_precision), run.noise())


@attrs.define(eq=False)
class _Perpendicular(Steps):
    run: Run
    form: Residuals
    leaves: Target
    x: Tensor

    def step(self, level: Level, /) -> None:
        # Predict x_0 of u and of all components in one batch, and compose it.
        predictions = self.leaves.predict(self.x, level.rows(self.x), prediction_type="sample")
        x0 = compose(predictions, self.form.at(level.timestep))
        # The noise that this prediction leaves.
        noise = (self.x - level.alpha**0.5 * x0) / (1.0 - level.alpha) ** 0.5
        # Step: DDIM, the clipped prediction with as much of this noise as the next level has.
        x0 = clip(x0, self.run.target)
        self.x = level.next_alpha**0.5 * x0 + (1.0 - level.next_alpha) ** 0.5 * noise


def compose(x0: Tensor, form: Residuals) -> Tensor:
    """e of the formula above (n, *shape) for the predictions x0 (K, n, *shape) of `form.leaves`, at one level."""
    # r, what is asked for, and the sum of all w_k d_k, what is subtracted
    u = x0[0]
    apart = x0[1:] - u
    asked = weighted_sum(form.positive.values(), apart[: len(form.positive)])
    against = weighted_sum(form.negated.values(), apart[len(form.positive) :])
    # <d, r> / <r, r>: the part of it along r is not subtracted, as it would undo what is asked for
    size = _dot(asked, asked)
    along = torch.where(size > LEAST * _dot(u, u), _dot(against, asked) / size, 0.0)
    return u + asked + against - along * asked


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of samples (n, *shape) over their shape, which stays as dimensions of size 1."""
    return (a * b).sum(dim=tuple(range(1, a.ndim)), keepdim=True)
