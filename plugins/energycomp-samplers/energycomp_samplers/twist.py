"""Factors by which SMC weighs particles beside the product: a constraint, observations, second order.

Notation: variable -> symbol
    x0          E[x_0 | x_t = x], the prediction for a particle x at timestep t
    log_psi     log psi_t(x), of a factor
    drift       by which a factor moves the mean mu of the proposal N(mu, v I), to mu + v drift
    raw         -alpha_bar_t^2 w f(x0), of a constraint f
    best, top   the largest raw of the particles of a sample, and the quantile of raw that a tenth of them exceed

Particles are weighed by psi_s(y) / psi_t(x) for each step from x to y, and by the ratio of the proposals without and
with the drift (twisted diffusion sampler; Wu et al., 2023). The product of these over a run is psi_0.

Constraint: psi_0 = exp(-w f), so that samples are those of p(x) exp(-w f(x)) in the end, however good f is at blurred
samples. The best psi_t is E[exp(-w f(x_0)) | x_t = x], for which
    log psi_t(x) = max(raw, best - min(3 + 10 (best - top), 3 / sqrt(1 - alpha_bar_t)))
stands on the way. alpha_bar_t^2 allows for what E[x_0 | x_t] does not say of x_0: without it few particles are left at
high noise levels. The limit from below keeps exp(-3) of the particles behind a boundary, whose x_0 may be in front of
it; fewer where f falls everywhere, such as a linear reward, and at low noise levels. The drift is grad_x raw, through
the network. Its length is at most 0.5 / sqrt(v), half a standard deviation, or the lower quartile of the lengths of the
particles of a sample where that is more: a gradient that all share is followed, and few are not thrown across a
boundary.

Observations: log psi_t = log N(y; A x0, A C A' + R), in the notation of `energycomp_samplers.observation`. The drift
moves the mean of the proposal to that for E[x_0 | x, y] in place of x0. The last step ends at a draw z of
p(x_0 | x, y), or at its mean; an operator that is not linear weighs z by p(y | z) itself.

Second order: log psi_t = log Z of `energycomp_samplers.second_order`, and 0 at the end. The drift moves the mean of the
proposal to that for the mean of the product. It changes which particles are on the way and not what arrives, and so is
weighed with the product, and no longer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from energycomp.components import function_name
from energycomp.errors import InputError
from energycomp.sampling import Level, Run, Target
from energycomp.seeds import draw_noise
from energycomp_samplers.constraints import RULED_OUT, Constraint
from energycomp_samplers.evidence import Evidence
from energycomp_samplers.kernels import as_column, sum_of_squares
from energycomp_samplers.observation import Observation, evidence_of, given_variance, spread_of
from energycomp_samplers.particles import Particles, take
from energycomp_samplers.projection import ProjectedEvidence
from energycomp_samplers.second_order import Product, second_order
from energycomp_samplers.spread import Spread, ratio_of
from energycomp_samplers.stationary import Stationary

TOP = 0.9  # the quantile of `top`


@attrs.define(eq=False)
class Factor(ABC):
    """A factor psi of the weights of particles (G, P).

    Args:
        log_psi: at the last level.
        drift: (G, P, *shape); None where the factor does not move the proposal.
        correction: log of the proposal without the drift less that with it, at the particles that were drawn.
    """

    log_psi: Tensor
    drift: Tensor | None = attrs.field(default=None, kw_only=True)
    correction: Tensor | float = attrs.field(default=0.0, kw_only=True)

    def weigh(self, particles: Particles) -> Tensor:
        """log psi_s(y) - log psi_t(x), and what the drift of the last step changed, (G, P)."""
        before = self.log_psi
        self.drift = None
        self.log_psi = self.evaluate(particles)
        return self.log_psi - before + self.correction

    @abstractmethod
    def evaluate(self, particles: Particles) -> Tensor:
        """log psi at a level; sets the drift of the next step."""

    def take(self, places: Tensor) -> None:
        self.log_psi = take(self.log_psi, places)
        self.drift = None if self.drift is None else take(self.drift, places)


@attrs.define(eq=False)
class SecondOrderFactor(Factor):
    """The overlap Z of what the components of a target predict; its product is made at the first level."""

    target: Target
    kind: Literal["constant", "jacobian"]
    product: Product | None = None

    def evaluate(self, particles: Particles) -> Tensor:
        level = particles.proposal.level
        # At clean samples the twist is gone
        if level.is_last:
            return torch.zeros_like(self.log_psi)
        # How sure each component is, is measured once
        if self.product is None:
            self.product = second_order(self.target, self.kind)
        x = particles.x.detach()
        found = self.product(x.flatten(0, 1), particles.x0.detach().flatten(1, 2), level)
        if not found.is_gaussian:
            return torch.zeros_like(self.log_psi)
        # From the mean of first order to that of second
        slope = level.next_alpha**0.5 / (1.0 - level.alpha)
        self.drift = (slope * (found.mean - found.plain)).to(x).reshape(x.shape)
        return found.log_overlap.reshape(self.log_psi.shape)


@attrs.define(eq=False)
class ConstraintFactor(Factor):
    """A constraint f of clean samples.

    Args:
        depth: nats below the best particle that log psi is at most, at the noisy end.
        calls: samples of which f was evaluated.
        rules_out_all: whether f ruled out all particles of a sample at the last level.
    """

    constraint: Constraint
    depth: float
    calls: int = 0
    rules_out_all: bool = False

    def follows(self, level: Level) -> bool:
        """Whether gradients are followed at a level: clean samples move no further."""
        return self.constraint.gradient and not level.is_last

    def evaluate(self, particles: Particles) -> Tensor:
        level = particles.proposal.level
        # The density of the constraint at clean samples, and its gradient through the network.
        with torch.set_grad_enabled(self.follows(level)):
            raw = self.constraint.log_density(particles.target, particles.clean)
            if not level.is_last:
                raw = raw * level.alpha**2
            if self.follows(level):
                gradient = _gradient(raw, particles.x, self.constraint.f)
                self.drift = _shorten(gradient, 0.5 / particles.proposal.variance**0.5)
        raw = raw.detach()
        # On the way the limit keeps some particles that break the constraint; in the end psi is that of f itself
        log_psi = raw if level.is_last else _limit(raw, level.alpha, self.depth)
        self.calls += log_psi.numel()
        self.rules_out_all = bool((log_psi <= -RULED_OUT).all(1).any())
        return log_psi


@attrs.define(eq=False)
class ObservationFactor(Factor):
    """Observations of clean samples; `last` has those that they say at the last level, (G, P, *shape)."""

    run: Run
    evidence: Evidence | ProjectedEvidence
    spread: Spread | Stationary
    ends_at_draw: bool
    last: Tensor | None = None

    @classmethod
    def of(cls, observations: Sequence[Observation], run: Run, log_psi: Tensor, *, ends_at_draw: bool) -> Any:
        spread = spread_of(run.target, given_variance(observations))
        return cls(log_psi, run, evidence_of(observations, run.target), spread, ends_at_draw)

    def evaluate(self, particles: Particles) -> Tensor:
        level = particles.proposal.level
        clean = particles.clean.detach()
        x0 = clean.flatten(0, 1)
        covariance = self.spread.covariance(ratio_of(level, x0).float())
        # The end: draws of clean samples that y says.
        if level.is_last and self.ends_at_draw:
            rows = tuple(self.log_psi.shape)
            seen = (*rows, *self.evidence.y.shape[1:])
            error = draw_noise(seen, generator=self.run.generator, device=self.run.target.device).flatten(0, 1)
            draw = covariance.root(self.run.noise(rows).flatten(0, 1))
            last, log_psi = self.evidence.draw(x0, covariance, draw, error)
            self.last = last.reshape(clean.shape)
            return log_psi.reshape(self.log_psi.shape)
        # Condition the Gaussian around the predicted x0 on y: mean and log evidence (Kalman's update).
        mean, log_psi = self.evidence.condition(x0, covariance)
        if level.is_last:
            self.last = mean.reshape(clean.shape)
            return log_psi.reshape(self.log_psi.shape)
        # The mean of the proposal moves by sqrt(alpha_bar_s) beta B / (D (1 - alpha_bar_t)) for each number of x0.
        slope = particles.proposal.total * level.next_alpha**0.5 / (1.0 - level.alpha)
        self.drift = slope * (mean - x0).reshape(clean.shape)
        return log_psi.reshape(self.log_psi.shape)

    def take(self, places: Tensor) -> None:
        super().take(places)
        self.last = None if self.last is None else take(self.last, places)


def propose(factors: Sequence[Factor], centre: Tensor, variance: float, noise: Tensor) -> Tensor:
    """The particles y of the proposal that the factors move one after the other, by normal noise."""
    means = [centre]
    for factor in factors:
        means.append(means[-1] if factor.drift is None else means[-1] + variance * factor.drift)
    y = means[-1] + variance**0.5 * noise
    # For the next level: log N(y; mu, v I) - log N(y; mu + v drift, v I)
    for factor, without, moved in zip(factors, means, means[1:], strict=False):
        factor.correction = 0.0
        if factor.drift is not None:
            factor.correction = (sum_of_squares(y - moved, y) - sum_of_squares(y - without, y)) / (2.0 * variance)
    return y


def _limit(raw: Tensor, alpha: float, depth: float) -> Tensor:
    """log psi_t of raw (G, P), by the formula above."""
    # Where a tenth is nearly as good as the best, the others may be behind a boundary, and keep exp(-depth) of its psi.
    best = raw.amax(dim=1, keepdim=True)
    top = raw.quantile(TOP, dim=1, keepdim=True)
    below = (depth + 10.0 * (best - top)).clamp(max=depth / (1.0 - alpha) ** 0.5)
    return torch.maximum(raw, best - below)


def _shorten(drift: Tensor, least: float) -> Tensor:
    """A drift (G, P, *shape) no longer than `least`, or than the lower quartile of its lengths."""
    # A gradient that most particles share is followed, that of a few outliers is not
    lengths = sum_of_squares(drift, drift).sqrt()
    most = lengths.quantile(0.25, dim=1, keepdim=True).clamp(min=least)
    share = (most / lengths).clamp(max=1.0).to(drift)  # 1 where the drift is 0
    return drift * as_column(share, drift)


def _gradient(raw: Tensor, x: Tensor, f: Any) -> Tensor:
    name = function_name(f)
    instead = "correct it, or leave gradient= out"
    if not raw.requires_grad:
        raise InputError(f"got no gradient of the constraint {name}; expected torch operations on samples; {instead}")
    (gradient,) = torch.autograd.grad(raw.sum(), x, materialize_grads=True)
    if not bool(gradient.isfinite().all()):
        raise InputError(f"got a gradient of the constraint {name} that is not finite; expected numbers; {instead}")
    return gradient
