"""The step of the particles of `energycomp_samplers.smc`, and their weights. Its notation and formulas are there."""

from __future__ import annotations

import attrs
from torch import Tensor

from energycomp.sampling import Level, Target
from energycomp_samplers.kernels import sum_of_squares, weighted_sum


@attrs.frozen
class Proposal:
    """The proposal and the weights of the formulas of `smc`; particles (G, P, *shape), weights (G, P)."""

    b: tuple[float, ...]
    back: float
    level: Level

    @classmethod
    def at(cls, level: Level, target: Target, weights: str) -> Proposal:
        b = target.weights_at(level.timestep)
        return cls(b, sum(b) if weights == "energy" else 1.0, level)

    @property
    def total(self) -> float:
        return sum(self.b)

    @property
    def scale(self) -> float:
        return self.total + (self.back - self.total) * (1.0 - self.level.beta)

    @property
    def variance(self) -> float:
        return self.level.beta / self.scale

    def mean(self, x0: Tensor) -> Tensor:
        return weighted_sum(self.b, x0) / self.total

    def centre(self, x: Tensor, x0: Tensor) -> Tensor:
        """mu of the proposal, for the mean prediction x0."""
        # sum_i b_i mu_i = B mu(x, mean of x0), since mu is linear in x0
        kept = (self.back - self.total) * (1.0 - self.level.beta) ** 0.5
        return (self.total * self.level.mean(x, x0) + kept * x) / self.scale

    def rne(self, x: Tensor, x0: Tensor) -> Tensor:
        """The log weights of the Radon-Nikodym estimator."""
        # sum_i b_i |mu_i - mu|^2: how far the reverse kernels of the components are apart
        centre = self.centre(x, self.mean(x0))
        apart = weighted_sum(self.b, sum_of_squares(self.level.mean(x, x0) - centre, x))
        # (1 - B) |x - sqrt(1 - beta) mu|^2, of the forward kernel
        if self.total != 1.0:
            kept = (1.0 - self.level.beta) ** 0.5
            apart = apart + (1.0 - self.total) * sum_of_squares(x - kept * centre, x)
        return -apart / (2.0 * self.level.beta)

    def change(self, x: Tensor, x0: Tensor) -> Tensor:
        """The log weights of "rne" for a unit of the log signal-to-noise ratio, (G, P)."""
        return self.rne(x, x0) * (1.0 - self.level.alpha) / self.level.beta

    def fkc(self, x: Tensor, x0: Tensor) -> Tensor:
        """|G|^2 - sum_i b_i |s_i|^2 = B (B - 1) |s|^2 - sum_i b_i |s_i - s|^2 with the mean score s = G / B."""
        # Scores by Tweedie's formula, and their mean, about which squares lose no digits
        scores = (self.level.alpha**0.5 * x0 - x) / (1.0 - self.level.alpha)
        mean = self.mean(scores)
        apart = self.total * (self.total - 1.0) * sum_of_squares(mean, x)
        apart = apart - weighted_sum(self.b, sum_of_squares(scores - mean, x))
        return 0.5 * self.level.beta * apart

    def log_ratio(self, x: Tensor, y: Tensor, centre: Tensor) -> Tensor:
        """log L(x | y) - log p(y | x) up to a constant."""
        kept = (1.0 - self.level.beta) ** 0.5
        backward = self.back * sum_of_squares(x - kept * y, x)
        return (self.scale * sum_of_squares(y - centre, x) - backward) / (2.0 * self.level.beta)
