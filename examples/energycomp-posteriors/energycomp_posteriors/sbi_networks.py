"""What `NPSE` of sbi trained, as components: `p = from_sbi(posterior)`, and `p(x_1) & p(x_2)` is the posterior of both.

Notation: variable -> symbol
    mean, std       c_t, s_t of the noise of sbi: theta_t = c_t theta + s_t eps, t in [t_min, t_max]
    scale           k_t = (c_t^2 + s_t^2)^(1/2), by which it is a noised sample here: x = theta_t / k_t
    alphas          alpha_bar_t = c_t^2 / k_t^2

    eps = -s_t score(k_t x, t)
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import attrs
import torch
from energycomp.components import Composable, Gaussian, NoisedSpace
from energycomp.errors import InputError
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, Uniform

T = 1000
EDGE = 1e-7  # of alpha_bar
FUNCTIONS = ("score", "mean_t_fn", "std_fn")


@attrs.frozen(eq=False, repr=False)
class Box(Composable):
    """The uniform prior between `low` (D,) and `high` (D,): its noise prediction in closed form."""

    low: Tensor
    high: Tensor
    noised_space: NoisedSpace

    @property
    def unconditional(self) -> Box:
        """Itself."""
        return self

    def __repr__(self) -> str:
        return "prior"

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """(phi(b) - phi(a)) / (Phi(b) - Phi(a)) of the sides a < b of the box in units of the noise, (B, D)."""
        signal, noise = (level.double() for level in self.noised_space.levels(timestep))
        a = (signal * self.low - sample.double()) / noise
        b = (signal * self.high - sample.double()) / noise
        # Beyond the right side as beyond the left one, where Phi has digits.
        is_right = a + b < 0.0
        a, b = torch.where(is_right, a, -b), torch.where(is_right, b, -a)
        log_mass = torch.special.log_ndtr(b) + torch.log1p(
            -torch.exp(torch.special.log_ndtr(a) - torch.special.log_ndtr(b)).clamp(max=1 - 1e-12)
        )
        found = torch.exp(-a.square() / 2 - log_mass) - torch.exp(-b.square() / 2 - log_mass)
        return (torch.where(is_right, -found, found) / math.sqrt(2 * math.pi)).to(sample)

    def inside(self, eps: Tensor, sample: Tensor, timestep: Tensor) -> Tensor:
        """A noise prediction whose expected parameters are in the box.

        Networks know nothing of it outside, where samples would be driven away by the n - 1 priors that are divided by.
        """
        signal, noise = (level.double() for level in self.noised_space.levels(timestep))
        expected = (sample.double() - noise * eps.double()) / signal
        kept = torch.maximum(torch.minimum(expected, self.high.double()), self.low.double())
        return ((sample.double() - signal * kept) / noise).to(sample)


@attrs.frozen(eq=False, repr=False)
class Observed(Composable):
    """p(parameters | x) of one observation x (M,)."""

    posterior: Posterior
    observation: Tensor

    @property
    def noised_space(self) -> NoisedSpace:
        """That of the prior."""
        return self.posterior.unconditional.noised_space

    @property
    def unconditional(self) -> Any:
        """The prior."""
        return self.posterior.unconditional

    def __repr__(self) -> str:
        shown = [f"{float(x):.2g}" for x in self.observation[:3]] + ["..."] * (len(self.observation) > 3)
        return f"p(. | {', '.join(shown)})"

    @torch.no_grad()
    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The score times -s_t, (B, D); of a prior in a box, for an expectation inside of it."""
        estimator = self.posterior.estimator
        times = self.posterior.times(timestep)
        mean, std = (f(times).reshape(-1, 1) for f in (estimator.mean_t_fn, estimator.std_fn))
        scale = (mean.square() + std.square()).sqrt()
        found = -std * estimator.score(scale * sample, self.observation.expand(len(sample), -1), times)
        return self.unconditional.inside(found, sample, timestep) if isinstance(self.unconditional, Box) else found


@attrs.frozen(eq=False)
class Posterior:
    """A score network of sbi, or what has its three functions, and its prior. Called with x (M,), it is a component."""

    estimator: Any
    prior: Any

    @classmethod
    def of(cls, estimator: Any, prior: Any) -> Posterior:
        """Checks both."""
        missing = [name for name in FUNCTIONS if not callable(getattr(estimator, name, None))]
        if missing:
            got = f"got a network of {type(estimator).__name__} without {', '.join(missing)}"
            raise InputError(f"{got}; expected a score network, as NPSE of sbi trains it; train one by NPSE")
        if getattr(estimator, "compose_enabled", False):
            got = "got a network that sbi trained with compose_standardization=True"
            raise InputError(f"{got}; expected parameters in their own units; train it without")
        made = cls(estimator, prior)
        _ = made.unconditional  # raises
        return made

    def __call__(self, observation: Any) -> Observed:
        """The posterior of one observation."""
        x = torch.as_tensor(observation, dtype=torch.float32).flatten()
        if not bool(x.isfinite().all()):
            raise InputError("got an observation with NaN or infinite numbers; expected numbers; leave them out")
        return Observed(self, x)

    def times(self, timestep: Tensor) -> Tensor:
        """T of sbi at timesteps 0 to T - 1."""
        least, most = (getattr(self.estimator, name, default) for name, default in (("t_min", 0.0), ("t_max", 1.0)))
        return (least + (most - least) * (timestep + 1.0) / T).clamp(max=most)

    @cached_property
    def alphas(self) -> Tensor:
        """alpha_bar at all timesteps, (T,)."""
        times = self.times(torch.arange(T, dtype=torch.float32))
        mean, std = (f(times).reshape(T, -1)[:, 0].double() for f in (self.estimator.mean_t_fn, self.estimator.std_fn))
        return (mean.square() / (mean.square() + std.square())).clamp(EDGE, 1 - EDGE).detach()

    @cached_property
    def unconditional(self) -> Any:
        """The prior as u: N(mean, diag(variance)), or uniform in a box."""
        inside = self.prior
        while isinstance(inside, Independent):
            inside = inside.base_dist
        shape = tuple(self.prior.event_shape)
        space: dict[str, Any] = {"alphas_cumprod": self.alphas, "sample_shape": shape, "space": "parameters"}
        if isinstance(inside, Uniform):
            return Box(inside.low, inside.high, NoisedSpace(self.alphas, shape, "parameters"))
        is_diagonal = isinstance(inside, Normal)
        if isinstance(inside, MultivariateNormal):
            covariance = inside.covariance_matrix
            is_diagonal = torch.equal(covariance, covariance.diag().diag())
        if not is_diagonal:
            got = f"got the prior {self.prior!r}"
            raise InputError(
                f"{got}; expected a normal one without correlations, or BoxUniform; train with one of these"
            )
        return Gaussian(self.prior.mean, self.prior.variance, name="prior", unconditional="self", **space)


def from_sbi(posterior: Any) -> Posterior:
    """The posterior of one observation that sbi learned, to be composed.

    Args:
        posterior: what `NPSE(...).build_posterior()` of sbi returns, of any of its noises ("vp", "ve", "subvp").

    Raises:
        InputError: another posterior, or a prior that is neither normal without correlations nor uniform in a box.
    """
    estimator, prior = (getattr(posterior, name, None) for name in ("vector_field_estimator", "prior"))
    if estimator is None or prior is None:
        got = f"got {type(posterior).__name__}"
        raise InputError(f"{got}; expected the posterior that NPSE(...).build_posterior() of sbi returns; give that")
    return Posterior.of(estimator, prior)
