"""What the moves at one noise level share: the density, the Metropolis test, and the adaptation of the step size.

Notation: variable -> symbol
    x, y        a particle at timestep t, and the proposal
    score       G(x) = sum_i b_i s_i(x), the gradient of log pi_t
    d           y - x
    noise       sigma_t^2 = 1 - alpha_bar_t
    c           the step size in units of the noise; see `langevin`, `mala` and `hmc`

    log pi_t(y) - log pi_t(x) = int_0^1 G(x + r d) . d dr
    accept with probability min(1, a), each particle by itself;  log c += 0.2 (rate - goal) after every move

The line integral is computed by the trapezoidal rule (Sjöberg et al., 2023), on every segment of the path of a move. It
is exact where the sum of the predicted scores is a gradient and the rule is, as for Gaussians.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeAlias

import attrs
import torch
from torch import Tensor

from energycomp.components import by_sample
from energycomp.fields import legal
from energycomp.sampling import Level, Target
from energycomp_samplers.kernels import as_column, axes, predict_clean, weighted_sum

Noise: TypeAlias = Callable[[tuple[int, ...]], Tensor]


@attrs.frozen(eq=False)
class State:
    """Particles x (G, P, *shape), with the predictions x0 (K, G, P, *shape) and the score there."""

    x: Tensor
    x0: Tensor
    score: Tensor

    def accept(self, accepted: Tensor, proposed: State) -> State:
        """The proposal where it is accepted (G, P), and this state elsewhere."""
        wide = as_column(accepted, self.x)
        x = torch.where(wide, proposed.x, self.x)
        x0 = torch.where(wide, proposed.x0, self.x0)
        return State(x, x0, torch.where(wide, proposed.score, self.score))


@attrs.frozen(eq=False)
class Density:
    """The composed density pi_t at one noise level, and the random numbers of the run.

    Args:
        normal, uniform: noise (G, P, *shape), and uniform numbers (G, P), for the shape (G, P).
        mean: E[x_0 | x_t] (B, *shape) of samples x (B, *shape) with the predictions x0 (K, B, *shape), by which the
            score is that of another density than the sum of the scores.
        copies: groups (G,) whose particles are copies of each other, see `predict_clean`.
    """

    target: Target
    level: Level
    normal: Noise
    uniform: Noise
    mean: Callable[[Tensor, Tensor], Tensor] | None = None
    copies: Tensor | None = None

    @property
    def noise(self) -> float:
        """sigma_t^2."""
        return 1.0 - self.level.alpha

    def state(self, x: Tensor, x0: Tensor | None = None) -> State:
        """The state at x. Costs one evaluation per component and particle, unless x0 is known."""
        if x0 is None:
            x0 = predict_clean(self.target, x, self.level, self.copies)
        # Tweedie: the score from E[x_0 | x_t], or that of each component from its own
        if self.mean is not None:
            mean = self.mean(x.flatten(0, 1), x0.flatten(1, 2)).reshape(x.shape)
            return State(x, x0, (self.level.alpha**0.5 * mean - x) / self.noise)
        scores = (self.level.alpha**0.5 * x0 - x) / self.noise
        return State(x, x0, weighted_sum(self.target.weights_at(self.level.timestep), scores))

    def log_ratio(self, path: Sequence[State], nodes: int) -> Tensor:
        """log pi_t at the end of a path minus that at its start, (G, P). Costs nodes - 2 evaluations a segment."""
        return torch.stack([self._integrate(*pair, nodes) for pair in pairwise(path)]).sum(dim=0)

    def accepts(self, log_ratio: Tensor) -> Tensor:
        """Whether each proposal is accepted, (G, P)."""
        # Metropolis and Hastings: u < ratio
        return self.uniform(tuple(log_ratio.shape)).log() < log_ratio

    def _integrate(self, one: State, other: State, nodes: int) -> Tensor:
        # The trapezoidal rule over nodes - 1 segments of equal length.
        spaces = nodes - 1
        total = (one.score + other.score) / 2.0
        for node in range(1, spaces):
            total = total + self.state(torch.lerp(one.x, other.x, node / spaces)).score
        # int G . d dr, along the straight line
        return (total.double() * (other.x - one.x).double()).sum(dim=axes(one.x)) / spaces


class Moves(ABC):
    """Moves that leave pi_t as it is: `Langevin` up to the error of its step, `MALA` and `HMC` exactly.

    `moves` is their number at each noise level, `step_size` is c of the first one, and `acceptance` the rate to which
    c is adapted: None for moves without a test, whose c is fixed.
    """

    moves: int
    step_size: float
    acceptance: float | None

    @abstractmethod
    def move(self, density: Density, state: State, c: Tensor) -> tuple[State, Tensor | None]:
        """The state after a move of step size c (G, 1, .., 1), and which particles accepted it (G, P)."""


MOVES = legal(lambda value: isinstance(value, Moves), "moves, such as MALA(), HMC() or Langevin()")


@attrs.define(eq=False)
class Chain:
    """The moves of one run: the step size of each group, and the rate of acceptance at each timestep.

    The groups of a run do not depend on each other: each adapts a step size of its own.

    Args:
        most: the largest step size.
        rate: how fast log c follows the acceptance; slower needs more moves to arrive, faster leaves it noisy.
    """

    options: Moves
    most: float = math.inf
    rate: float = 0.2
    log_c: Tensor | None = None  # (G,)
    acceptance: dict[float, float] = attrs.field(factory=dict)

    def move(self, density: Density, x: Tensor, x0: Tensor, most: Tensor | float = math.inf) -> tuple[Tensor, Tensor]:
        """Particles (G, P, *shape) and the predictions x0 (K, G, P, *shape) there, after the moves of a level.

        Args:
            most: the largest step size of this level, (G,), beside that of the chain.
        """
        # The first level begins at the given step size; later ones go on with the adapted one
        if self.log_c is None:
            self.log_c = torch.full((len(x),), math.log(self.options.step_size), dtype=torch.float64, device=x.device)
        # No step is larger than the chain and this level allow
        highest = torch.full((len(x),), self.most, dtype=torch.float64, device=x.device).clamp(max=most).log()
        self.log_c = torch.minimum(self.log_c, highest)
        # Begin where the particles are, at the scores of their predictions
        state = density.state(x, x0)
        goal = self.options.acceptance
        rates = []
        for _ in range(self.options.moves):
            # Move, and test each particle.
            state, accepted = self.options.move(density, state, by_sample(self.log_c.exp(), x.ndim))
            if accepted is None or goal is None:
                continue
            # Adapt the step size of each group to its rate of acceptance.
            rate = accepted.double().mean(dim=1)
            self.log_c = torch.minimum(self.log_c + self.rate * (rate - goal), highest)
            rates.append(float(rate.mean()))
        # What the report says of this level.
        if rates:
            self.acceptance[density.level.timestep] = sum(rates) / len(rates)
        return state.x, state.x0
