"""What SMC weighs particles by, beside the product: constraints, observations, and a second-order proposal.

A constraint asks for samples of p(x) exp(-w f(x)), and f has no noise levels. Notation: variable -> symbol
    x0          E[x_0 | x_t = x], the prediction for a particle x at timestep t
    raw         -alpha_bar_t^2 w f(x0)
    best, top   the largest raw of the particles of a sample, and the quantile of raw that a tenth of them exceed
    log_psi     log psi_t(x) = max(raw, best - min(3 + 10 (best - top), 3 / sqrt(1 - alpha_bar_t))) at timestep t, and
                log psi_0(x_0) = -w f(x_0) at the end
    drift       grad_x raw, through the network

SMC weighs its particles by psi_s(y) / psi_t(x) for each step from x to y. The product of these over a run is psi_0, so
that the particles have the weights of p(x) exp(-w f(x)) at the end, however good f is at blurred samples (twisted
diffusion sampler; Wu et al., 2023). The factor alpha_bar_t^2 allows for what E[x_0 | x_t] does not say of x_0: without
it few particles are left at high noise levels.

The best psi_t is E[exp(-w f(x_0)) | x_t = x]. Where f is steep, x0 may break the constraint by far while many x_0 from
x do not, and the reverse. With raw alone such particles end, at each level again, and samples stay away from the
boundary. The limit of psi_t from below keeps a share of them: exp(-3) of the best where a tenth is as good as the best,
as behind a boundary; less where f falls everywhere, such as a linear reward, and at low noise levels.

A drift moves the proposal, to N(mu + v drift, v I) in place of N(mu, v I), and weights are corrected by the ratio of
the two. Its length is limited to 0.5 / sqrt(v), which moves by half a standard deviation, or to the lower quartile of
its lengths among the particles of a sample where that is more: few particles outside a steep boundary would be thrown
far across it, while a gradient that all particles share is followed.

Observations are factors of the same kind: log_psi_t = log N(y; A x0, A C A' + R), in the notation of
`energycomp_samplers.observation`. Their drift moves the mean of the proposal to that for E[x_0 | x, y] in place of x0.
It needs no limit, and no gradient through the network. The last step ends at a draw z of p(x_0 | x, y), or at its mean.
An operator that is not linear weighs z by p(y | z) itself.

Second order is a twist of the product: log Z of `energycomp_samplers.second_order`, and 0 at the end. Its drift, the
pull, is the gradient of log Z where components are Gaussian, and moves the mean of the proposal to that for the mean of
the product. It is weighed with the product, and no longer where that is not weighed: constraints are weighed to the
end. So the proposal q = N(mu + v (pull + drift), v I) is corrected in two parts, by p / q_p and by q_p / q, with
q_p = N(mu + v pull, v I).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import function_name
from energycomp.errors import InputError
from energycomp.sampling import Level, Target
from energycomp_samplers.constraints import RULED_OUT, Constraint
from energycomp_samplers.evidence import Evidence
from energycomp_samplers.kernels import axes, predicted, sum_of_squares
from energycomp_samplers.local import Product
from energycomp_samplers.observation import Observation, evidence_of, given_variance, spread_of
from energycomp_samplers.particles import taken
from energycomp_samplers.proposal import Proposal
from energycomp_samplers.spread import Spread
from energycomp_samplers.stationary import Stationary

DEPTH = 3.0  # the limit of log psi below the best particle: at the noisy end, and where a tenth is as good as the best
TOP = 0.9  # the quantile of `top`


@attrs.define(eq=False)
class Twist:
    """The log psi of particles (G, P) at the last noise level, and what a drift changed of their proposals.

    The same of a second-order proposal: log Z, the pull, and what it changed.

    Args:
        evidence, spread: of observations, and the spread of clean samples; None without observations.
        product: of a second-order proposal; None without one.
    """

    constraint: Constraint | None
    target: Target
    log_psi: Tensor
    evidence: Evidence | None = None
    spread: Spread | Stationary | None = None
    product: Product | None = None
    correction: Tensor | float = 0.0  # log q_p(y | x) - log q(y | x), of the proposals without and with the drift
    drift: Tensor | None = None
    log_overlap: Tensor | float = 0.0
    of_pull: Tensor | float = 0.0  # log p(y | x) - log q_p(y | x), of the proposals without and with the pull
    pull: Tensor | None = None
    last: Tensor | None = None  # clean samples of p(x_0 | x, y) at the last level, (G, P, *shape)
    calls: int = 0
    rules_out_all: bool = False  # of a group, in the end

    @classmethod
    def of(
        cls,
        constraint: Constraint | None,
        target: Target,
        observations: Sequence[Observation],
        log_psi: Tensor,
        product: Product | None,
    ) -> Twist:
        """What weighs particles beside the product: a constraint, observations, a proposal, or nothing."""
        if not observations:
            return cls(constraint, target, log_psi, product=product)
        spread = spread_of(target, given_variance(observations))
        return cls(constraint, target, log_psi, evidence_of(observations, target), spread, product)

    @property
    def constrains(self) -> bool:
        """Whether samples are those of another density than the product."""
        return self.constraint is not None or self.evidence is not None

    def follows(self, level: Level) -> bool:
        """Whether gradients are followed at a level: clean samples move no further."""
        return self.constraint is not None and self.constraint.gradient and not level.is_last

    def predicted(self, x: Tensor, level: Level, copies: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Particles and their x0, with gradients where they are followed; see `kernels.predicted` for `copies`."""
        if not self.follows(level):
            return x, predicted(self.target, x, level, copies)
        # The gradient of f(x0) with respect to x goes through the network
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return x, predicted(self.target, x, level)

    def weighed_product(self, x: Tensor, x0: Tensor, level: Level) -> Tensor | None:
        """What second order adds to the log weights, (G, P), for the predictions x0 (K, G, P, *shape)."""
        if self.product is None:
            return None
        # Z at this level, and 1 at clean samples: there the twist is gone
        before = self.log_overlap
        self.pull = None
        self.log_overlap = torch.zeros_like(self.log_psi)
        if not level.is_last:
            self.log_overlap = self._of_second_order(self.product, x.detach(), x0.detach(), level)
        # Z_s(y) / Z_t(x), and what the pull of the last step changed
        return self.log_overlap - before + self.of_pull

    def weighed(
        self, x: Tensor, x0: Tensor, proposal: Proposal, noise: tuple[Tensor, Tensor] | None = None
    ) -> Tensor | None:
        """What constraints add to the log weights, (G, P), for the predictions x0 (K, G, P, *shape).

        Args:
            noise: normal noise, as of particles and as of what is seen, by which the last level draws clean samples.
        """
        if not self.constrains:
            return None
        level = proposal.level

        def clean() -> Tensor:
            return proposal.clean(x, x0, self.target)

        # psi of this level: of the constraint times that of the observations
        log_psi = torch.zeros_like(self.log_psi)
        self.drift = None
        if self.constraint is not None:
            log_psi = self._of_constraint(self.constraint, x, clean, level, proposal.variance)
        if self.evidence is not None and self.spread is not None:
            log_psi = log_psi + self._of_observations(self.evidence, self.spread, clean().detach(), level, noise)
        # psi_s(y) / psi_t(x), and what the drift of the last step changed.
        increment = log_psi - self.log_psi + self.correction
        self.log_psi = log_psi
        return increment

    def _of_constraint(
        self, constraint: Constraint, x: Tensor, clean: Callable[[], Tensor], level: Level, variance: float
    ) -> Tensor:
        """log psi of the constraint, (G, P)."""
        # The density of the constraint at clean samples, and its gradient through the network.
        with torch.set_grad_enabled(self.follows(level)):
            raw = constraint.log_density(self.target, clean())
            if not level.is_last:
                raw = raw * level.alpha**2
            if self.follows(level):
                self.drift = _shortened(_gradient(raw, x, constraint.f), 0.5 / variance**0.5)
        # On the way the limit keeps some particles that break the constraint; in the end psi is that of f itself
        log_psi = raw.detach() if level.is_last else _limited(raw.detach(), level.alpha)
        self.calls += log_psi.numel()
        self.rules_out_all = bool((log_psi <= -RULED_OUT).all(1).any())
        return log_psi

    def _of_observations(
        self,
        evidence: Evidence,
        spread: Spread | Stationary,
        clean: Tensor,
        level: Level,
        noise: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """log psi of the observations, (G, P)."""
        x0 = clean.flatten(0, 1)
        covariance = spread.covariance(torch.tensor([level.alpha / (1.0 - level.alpha)], device=x0.device))
        # The end: draws of clean samples that y says, or their means
        if level.is_last:
            if noise is None:
                last, log_psi = evidence.conditioned(x0, covariance)
            else:
                normal, error = (one.flatten(0, 1) for one in noise)
                last, log_psi = evidence.drawn(x0, covariance, covariance.root(normal), error)
            self.last = last.reshape(clean.shape)
            return log_psi.reshape(self.log_psi.shape)
        # Condition the Gaussian around the predicted x0 on y: mean and log evidence (Kalman's update)
        mean, log_psi = evidence.conditioned(x0, covariance)
        # The mean of the proposal moves by sqrt(alpha_bar_s) beta B / (D (1 - alpha_bar_t)) for each number of x0.
        total = sum(self.target.weights_at(level.timestep))
        pull = total * level.next_alpha**0.5 / (1.0 - level.alpha)
        self._add_drift(pull * (mean - x0).reshape(clean.shape))
        return log_psi.reshape(self.log_psi.shape)

    def _of_second_order(self, product: Product, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """log Z, (G, P); 0 where the product is no Gaussian."""
        # log Z of the product of the Gaussians of all leaves
        found = product(x.flatten(0, 1), x0.flatten(1, 2), level)
        if not found.is_gaussian:
            return torch.zeros_like(self.log_psi)
        # The drift from the mean of first order to that of second
        pull = level.next_alpha**0.5 / (1.0 - level.alpha)
        self.pull = (pull * (found.mean - found.plain)).to(x).reshape(x.shape)
        return found.log_overlap.reshape(self.log_psi.shape)

    def _add_drift(self, drift: Tensor) -> None:
        self.drift = drift if self.drift is None else self.drift + drift

    def take(self, places: Tensor) -> None:
        """Keeps the particles at these places."""
        self.log_psi = taken(self.log_psi, places)
        self.drift = None if self.drift is None else taken(self.drift, places)
        self.log_overlap = taken(self.log_overlap, places) if isinstance(self.log_overlap, Tensor) else 0.0
        self.pull = None if self.pull is None else taken(self.pull, places)
        self.last = None if self.last is None else taken(self.last, places)

    def ended(self, centre: Tensor) -> Tensor:
        """The clean samples at which the last step ends, from the mean of the proposal without observations."""
        return centre if self.last is None else self.last

    def proposed(self, centre: Tensor, variance: float, noise: Tensor) -> Tensor:
        """The particles y of the proposal with the drift, by normal noise."""
        # The means of q_p, the proposal with the pull, and of q, with the drift, too
        pulled = centre if self.pull is None else centre + variance * self.pull
        moved = pulled if self.drift is None else pulled + variance * self.drift
        # y ~ q
        y = moved + variance**0.5 * noise

        # log p(y | x) - log q_p(y | x) and log q_p(y | x) - log q(y | x), for the next level
        def log_ratio(without: Tensor, with_it: Tensor) -> Tensor:
            return (sum_of_squares(y - with_it, y) - sum_of_squares(y - without, y)) / (2.0 * variance)

        self.of_pull = 0.0 if self.pull is None else log_ratio(centre, pulled)
        self.correction = 0.0 if self.drift is None else log_ratio(pulled, moved)
        return y


def _limited(raw: Tensor, alpha: float) -> Tensor:
    """log psi_t of raw (G, P), by the formula above.

    >>> _limited(torch.tensor([[0.0, -1.0, -1e6, 0.0]]), 0.0)  # a boundary
    tensor([[ 0., -1., -3.,  0.]])
    """
    # Where a tenth is nearly as good as the best, the others may be behind a boundary, and keep exp(-depth) of its psi.
    best = raw.amax(dim=1, keepdim=True)
    top = raw.quantile(TOP, dim=1, keepdim=True)
    depth = (DEPTH + 10.0 * (best - top)).clamp(max=DEPTH / (1.0 - alpha) ** 0.5)
    return torch.maximum(raw, best - depth)


def _shortened(drift: Tensor, least: float) -> Tensor:
    """A drift (G, P, *shape) no longer than `least`, or than the lower quartile of its lengths.

    >>> _shortened(torch.tensor([[[0.0], [0.0], [0.0], [9.0]], [[8.0], [8.0], [8.0], [9.0]]]), 2.0).squeeze(-1)
    tensor([[0., 0., 0., 2.],
            [8., 8., 8., 8.]])
    """
    # The longest that is allowed: a gradient that most particles share is followed, that of a few outliers is not
    lengths = sum_of_squares(drift, drift).sqrt()
    most = lengths.quantile(0.25, dim=1, keepdim=True).clamp(min=least)
    # Shorten those beyond, in their directions
    share = (most / lengths).clamp(max=1.0).to(drift)  # 1 where the drift is 0
    return drift * share.reshape(*share.shape, *[1] * len(axes(drift)))


def _gradient(raw: Tensor, x: Tensor, f: Any) -> Tensor:
    """The gradient of raw (G, P) with respect to particles (G, P, *shape)."""
    name = function_name(f)
    instead = "correct it, or leave gradient= out"
    if not raw.requires_grad:
        raise InputError(f"got no gradient of the constraint {name}; expected torch operations on samples; {instead}")
    (gradient,) = torch.autograd.grad(raw.sum(), x, materialize_grads=True)
    if not bool(gradient.isfinite().all()):
        raise InputError(f"got a gradient of the constraint {name} that is not finite; expected numbers; {instead}")
    return gradient
