"""What `NPSE` of sbi trained, as components: `p = from_sbi(posterior)`, and `p(x_1) & p(x_2)` is the posterior of both.

Notation: variable -> symbol
    mean, std       c_t, s_t of the noise of sbi: theta_t = c_t theta + s_t eps, t in [t_min, t_max]
    centre, width   mu, w of the prior: theta = mu + w z has standardised parameters z
    scale           k_t = (w^2 c_t^2 + s_t^2)^(1/2), for a noised sample of z: x = (theta_t - c_t mu) / k_t
    alphas          alpha_bar_t = w^2 c_t^2 / k_t^2

    eps = -s_t score(k_t x + c_t mu, t)

The noise of sbi has one deviation for all parameters, so w is one number: the root of their mean variance. Samplers begin
at N(0, I), which no prior is noised to in its own units where its mean or width is large beside the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import attrs
import torch
from energycomp.components import Composable, Gaussian, NoisedSpace, count_component
from energycomp.errors import InputError
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, Uniform

T = 1000
EDGE = 1e-7  # of alpha_bar
CLEAR = 1e-5  # the least 1 - alpha_bar, which float32 has digits of
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

    @property
    def group(self) -> Estimated:
        """Predicts all observations of the network in one batch."""
        return self.posterior.group

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The noise prediction (B, D); of a prior in a box, for an expectation inside of it."""
        return self.group.predict([self], sample, timestep)[0]


@attrs.frozen(eq=False)
class Estimated:
    """The group of the observations of one network: K of them are one batch, and samples are given back in its units."""

    posterior: Posterior

    prediction_type = "epsilon"
    rule = None
    device = None

    @torch.no_grad()
    def predict(self, leaves: Sequence[Observed], sample: Tensor, timestep: Tensor) -> list[Tensor]:
        """The score times -s_t of each observation, (B, D)."""
        posterior, prior = self.posterior, self.posterior.unconditional
        times = posterior.times(timestep)
        mean, std = (f(times).reshape(-1, 1) for f in (posterior.estimator.mean_t_fn, posterior.estimator.std_fn))
        scale = ((posterior.width * mean).square() + std.square()).sqrt()
        noised = scale * sample + mean * posterior.centre
        seen = torch.stack([leaf.observation for leaf in leaves]).repeat_interleave(len(sample), 0)
        rows = len(leaves)
        with count_component(len(seen)):
            score = posterior.estimator.score(noised.repeat(rows, 1), seen, times.repeat(rows))
        found = (-std.repeat(rows, 1) * score).chunk(rows)
        return [prior.inside(one, sample, timestep) if isinstance(prior, Box) else one for one in found]

    def decode(self, samples: Tensor) -> Tensor:
        """Theta = mu + w z, (B, D)."""
        return self.posterior.centre + self.posterior.width * samples


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

    @cached_property
    def group(self) -> Estimated:
        """Predicts the observations of this network."""
        return Estimated(self)

    @cached_property
    def centre(self) -> Tensor:
        """mu, (D,)."""
        return torch.as_tensor(self.prior.mean, dtype=torch.float32)

    @cached_property
    def width(self) -> float:
        """W."""
        return float(self.prior.variance.double().mean().sqrt())

    def _ratio(self, times: Tensor) -> Tensor:
        """alpha_bar at times of sbi, in float64."""
        mean, std = (f(times).reshape(len(times), -1)[:, 0].double() for f in self._noise)
        return (self.width * mean).square() / ((self.width * mean).square() + std.square())

    @property
    def _noise(self) -> tuple[Any, Any]:
        return self.estimator.mean_t_fn, self.estimator.std_fn

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest time of sbi; those with less noise than float32 can tell are left out."""
        least, most = (float(getattr(self.estimator, name, end)) for name, end in (("t_min", 0.0), ("t_max", 1.0)))
        every = torch.linspace(least, most, 10 * T)
        clear = every[self._ratio(every) <= 1.0 - CLEAR]
        return float(clear[0]) if len(clear) else least, most

    @cached_property
    def grid(self) -> Tensor:
        """Times of sbi at timesteps 0 to T - 1, (T,), at which log alpha_bar / (1 - alpha_bar) falls by equal steps.

        Equal steps of time would end at a tenth of the width of the prior, which is wide beside a narrow posterior.
        """
        every = torch.linspace(*self.ends, 10 * T)
        level = self._ratio(every).clamp(EDGE, 1.0 - EDGE).logit()
        wanted = torch.linspace(float(level[0]), float(level[-1]), T, dtype=torch.float64)
        # Between the two times around each wanted level.
        above = torch.searchsorted(-level, -wanted).clamp(1, len(every) - 1)
        part = (level[above - 1] - wanted) / (level[above - 1] - level[above])
        return torch.lerp(every[above - 1], every[above], part.clamp(0.0, 1.0).float())

    def times(self, timestep: Tensor) -> Tensor:
        """Times of sbi at real timesteps in [0, T - 1]."""
        below = timestep.floor().long().clamp(0, T - 2)
        grid = self.grid.to(timestep.device)
        return torch.lerp(grid[below], grid[below + 1], (timestep - below).clamp(0.0, 1.0))

    @cached_property
    def alphas(self) -> Tensor:
        """alpha_bar at all timesteps, (T,)."""
        return self._ratio(self.times(torch.arange(T, dtype=torch.float32))).clamp(EDGE, 1 - EDGE).detach()

    @cached_property
    def unconditional(self) -> Any:
        """The prior as u, of standardised parameters: N(0, diag(variance / w^2)), or uniform in a box."""
        inside = self.prior
        while isinstance(inside, Independent):
            inside = inside.base_dist
        shape = tuple(self.prior.event_shape)
        units = f"(parameters - {[round(float(x), 6) for x in self.centre]}) / {self.width:.6g}"
        space: dict[str, Any] = {"alphas_cumprod": self.alphas, "sample_shape": shape, "space": units}
        if isinstance(inside, Uniform):
            low, high = ((side - self.centre) / self.width for side in (inside.low, inside.high))
            return Box(low, high, NoisedSpace(self.alphas, shape, units))
        is_diagonal = isinstance(inside, Normal)
        if isinstance(inside, MultivariateNormal):
            covariance = inside.covariance_matrix
            is_diagonal = torch.equal(covariance, covariance.diag().diag())
        if not is_diagonal:
            got = f"got the prior {self.prior!r}"
            raise InputError(
                f"{got}; expected a normal one without correlations, or BoxUniform; train with one of these"
            )
        variance = (self.prior.variance / self.width**2).float()
        return Gaussian(0.0, variance, name="prior", unconditional="self", **space)


def from_sbi(posterior: Any) -> Posterior:
    """The posterior of one observation that sbi learned, to be composed.

    Args:
        posterior: what `NPSE(...).build_posterior()` of sbi returns, of any of its noises ("vp", "ve", "subvp").
    """
    estimator, prior = (getattr(posterior, name, None) for name in ("vector_field_estimator", "prior"))
    if estimator is None or prior is None:
        got = f"got {type(posterior).__name__}"
        raise InputError(f"{got}; expected the posterior that NPSE(...).build_posterior() of sbi returns; give that")
    return Posterior.of(estimator, prior)
