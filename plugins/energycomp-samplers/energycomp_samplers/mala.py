"""Metropolis-adjusted Langevin moves, which leave the composed density at one noise level as it is.

Besag (1994), Roberts and Tweedie (1996). As moves between reverse steps: Du et al. (2023, "Reduce, reuse, recycle").

Notation: variable -> symbol
    x, y        a particle at timestep t, and the proposal
    score       G(x) = sum_i b_i s_i(x), the gradient of log pi_t
    h           the step, c sigma_t^2 with sigma_t^2 = 1 - alpha_bar_t; c is adapted to the rate of acceptance
    d           y - x

    y = x + h G(x) + sqrt(2 h) n,  n ~ N(0, I)
    log a = log pi_t(y) - log pi_t(x) + (|y - x - h G(x)|^2 - |x - y - h G(y)|^2) / (4 h)
    accept with probability min(1, a), each particle by itself;  log c += 0.2 (rate - goal) after every move

The difference of log pi_t is that of the energies ("energy"), or the line integral of the score by the trapezoidal rule
("score"; Sjöberg et al., 2023): int_0^1 G(x + r d) . d dr. With 2 nodes it needs no further evaluation, but its error
shows in samples of distant modes. It is exact where the sum of the predicted scores is a gradient and the rule is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import attrs
import torch
from torch import Tensor

from energycomp.fields import number, one_of, whole
from energycomp.sampling import Target
from energycomp_samplers.kernels import Level, predicted, sum_of_squares

__all__ = ["MALA"]

START, RATE = 0.3, 0.2  # c at the noisy end, and how fast log c follows the acceptance
Noise = Callable[[tuple[int, ...]], Tensor]


@attrs.frozen
class MALA:
    """Moves at every noise level. Each costs nodes - 1 evaluations per component and particle.

    Args:
        moves: at each noise level.
        test: "score" (the line integral of the score) or "energy" (energies of all components; costs as many more
            evaluations as three nodes).
        nodes: of the line integral, at least 2.
        acceptance: the rate to which steps are adapted.
    """

    moves: int = attrs.field(default=2, validator=whole(1))
    test: Literal["score", "energy"] = attrs.field(default="score", validator=one_of(("score", "energy")))
    nodes: int = attrs.field(default=4, validator=whole(2, 100))
    acceptance: float = attrs.field(default=0.57, validator=number(most=0.99))


@attrs.define
class Chain:
    """The moves of one run: the adapted step, and the rate of acceptance at each timestep."""

    options: MALA
    target: Target
    log_c: float = math.log(START)
    acceptance: dict[float, float] = attrs.field(factory=dict)

    def move(self, x: Tensor, x0: Tensor, level: Level, normal: Noise, uniform: Noise) -> tuple[Tensor, Tensor]:
        """Particles (G, P, C, H, W) and the predictions x0 (K, G, P, C, H, W) there, after the moves.

        Args:
            normal, uniform: noise (G, P, C, H, W), and uniform numbers (G, P), for the shape (G, P).
        """
        rates = []
        for _ in range(self.options.moves):
            h = math.exp(self.log_c) * (1.0 - level.alpha)
            score = self._score(x, x0, level)
            y = x + h * score + (2.0 * h) ** 0.5 * normal(tuple(x.shape[:2]))
            y0 = predicted(self.target, y, level)
            other = self._score(y, y0, level)
            forward, back = sum_of_squares(y - x - h * score), sum_of_squares(x - y - h * other)
            log_ratio = self._difference(x, y, score, other, level) + (forward - back) / (4.0 * h)
            accepted = uniform(tuple(x.shape[:2])).log() < log_ratio
            rates.append(float(accepted.double().mean()))
            self.log_c += RATE * (rates[-1] - self.options.acceptance)
            chosen = accepted[..., None, None, None]
            x, x0 = torch.where(chosen, y, x), torch.where(chosen, y0, x0)
        self.acceptance[level.timestep] = sum(rates) / len(rates)
        return x, x0

    def _score(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """G, from the predictions of all components."""
        scores = (level.alpha**0.5 * x0 - x) / (1.0 - level.alpha)
        return torch.einsum("k,k...->...", x.new_tensor(self.target.weights), scores)

    def _difference(self, x: Tensor, y: Tensor, score: Tensor, other: Tensor, level: Level) -> Tensor:
        """log pi_t(y) - log pi_t(x), (G, P)."""
        if self.options.test == "energy":
            rows = torch.cat([x.flatten(0, 1), y.flatten(0, 1)])
            energies = self.target.energies(rows, level.rows(rows)).double()
            before, after = torch.einsum("k,kb->b", energies.new_tensor(self.target.weights), energies).chunk(2)
            return (before - after).unflatten(0, x.shape[:2])
        total, spaces = (score + other) / 2.0, self.options.nodes - 1
        for node in range(1, spaces):
            between = torch.lerp(x, y, node / spaces)
            total = total + self._score(between, predicted(self.target, between, level), level)
        return (total.double() * (y - x).double()).sum(dim=(-3, -2, -1)) / spaces
