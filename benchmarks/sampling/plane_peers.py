"""What the peers do with two components in the plane, from its description: chains at fixed steps, and lift.

Notation: variable -> symbol
    L           log density of the composition at a timestep, -E; G = grad L
    h           step of Langevin moves, 0.001 at every timestep
    step        of the leapfrog, 0.03 at every timestep; v the momentum, of mass 1
    damping     d = 0.5, of the momentum: v = d v + sqrt(1 - d^2) n

Ten moves at each timestep, from noise N(0, I) down to timestep 0, without reverse steps (Du et al., 2023, "Reduce,
reuse, recycle"):
    ULA     x + h G + sqrt(2 h) n
    MALA    with the test L(y) - L(x) + (|y - x - h G(x)|^2 - |x - y - h G(y)|^2) / 4h
    U-HMC   3 leapfrog steps
    HMC     with the test L(y) - L(x): the released code changes the momentum in place, so that the kinetic energies
            cancel, and does not turn the momentum round after a rejection

OR: the networks hold sigma_t times -log p, and CompLift mixes their noise predictions by softmax(-sigma_t E).
Lift (Yu and Gao, 2025, "CompLift"): the mean of |eps - 0.9 eps_i|^2 - |eps - eps_i|^2 over draws of noise eps and
timesteps; samples stay where it is positive (negation: not positive). 0.9 eps_i stands for an unconditional prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from energycomp import Composable
from energycomp.components import NoisedSpace, signal_noise

__all__ = ["Chain", "WarmOr", "is_lost", "lift"]

MOVES, LEAPS = 10, 3
STEP, LEAP, DAMPING = 0.001, 0.03, 0.5
FAR = 10.0  # from the origin: chains beyond it are lost

Reference = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The prediction that a component is compared with, from (sample, timestep, the component's prediction)."""


def is_lost(x: Tensor) -> Tensor:
    """Which samples (B, 2) are not finite or far away."""
    return ~(x.abs() <= FAR).all(dim=1)


@attrs.frozen(eq=False)
class WarmOr(Composable):
    """The mixture of CompLift: energies times sigma_t, which is too warm where sigma_t is small."""

    a: Any
    b: Any

    @property
    def noised_space(self) -> NoisedSpace:
        """That of both."""
        space: NoisedSpace = self.a.noised_space
        return space

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Predictions in the shares softmax(-sigma E)."""
        share = torch.softmax(self._logits(sample, timestep)[0], dim=0)[..., None, None, None]
        return share[0] * self.a.eps(sample, timestep) + share[1] * self.b.eps(sample, timestep)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-logsumexp(-sigma E) / sigma, whose gradient times sigma is eps."""
        logits, sigma = self._logits(sample, timestep)
        return -torch.logsumexp(logits, dim=0) / sigma

    def _logits(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        _, sigma = signal_noise(self.noised_space.alphas_cumprod, timestep, sample.dtype)
        energies = torch.stack([part.energy(sample, timestep) for part in (self.a, self.b)])
        return -sigma.flatten() * energies, sigma.flatten()


@attrs.frozen
class Chain:
    """Moves at every timestep of a composition, at fixed steps. The score and the energy of a state are kept.

    Args:
        kind: "ULA", "MALA", "U-HMC" or "HMC".
    """

    kind: Literal["ULA", "MALA", "U-HMC", "HMC"]

    def sample(self, target: Any, n: int, generator: torch.Generator) -> Tensor:
        """n samples (n, 2) at timestep 0; those of chains that left the square of side 20 are NaN."""
        x, v = (torch.randn(n, 2, generator=generator) for _ in range(2))
        lost = torch.zeros(n, dtype=torch.bool)
        for t in reversed(range(len(target.noised_space.alphas_cumprod))):
            level = _Level(target, torch.full((n,), float(t)), is_tested=self.kind in ("MALA", "HMC"))
            state = level.state(x, v)
            for _ in range(MOVES):
                noise = torch.randn(n, 2, generator=generator)
                new, log_ratio = level.leap(state, noise) if "HMC" in self.kind else level.step(state, noise)
                if level.is_tested:
                    accepted = torch.rand(n, generator=generator).log() < log_ratio
                    new = state.where(accepted, new)
                lost |= is_lost(new.x)
                state = new.without(lost)
            x, v = state.x, state.v
        return torch.where(lost[:, None], torch.nan, x)


@attrs.frozen(eq=False)
class _State:
    """Samples and momenta (B, 2), the score (B, 2) and the energy (B,) there."""

    x: Tensor
    v: Tensor
    score: Tensor
    energy: Tensor

    def where(self, accepted: Tensor, new: _State) -> _State:
        chosen = accepted[:, None]
        return _State(
            torch.where(chosen, new.x, self.x),
            torch.where(chosen, new.v, self.v),
            torch.where(chosen, new.score, self.score),
            torch.where(accepted, new.energy, self.energy),
        )

    def without(self, lost: Tensor) -> _State:
        """Lost chains rest at the origin."""
        one = lost[:, None]
        kept = (value.masked_fill(one, 0.0) for value in (self.x, self.v, self.score))
        return _State(*kept, self.energy.masked_fill(lost, 0.0))


@attrs.frozen(eq=False)
class _Level:
    """One timestep of a chain; samples (B, 2)."""

    target: Any
    timestep: Tensor
    is_tested: bool

    def state(self, x: Tensor, v: Tensor) -> _State:
        sigma = signal_noise(self.target.noised_space.alphas_cumprod, self.timestep[:1], x.dtype)[1].item()
        sample = x[..., None, None]
        energy = self.target.energy(sample, self.timestep) if self.is_tested else x.new_zeros(len(x))
        return _State(x, v, -self.target.eps(sample, self.timestep).flatten(1) / sigma, energy)

    def step(self, state: _State, noise: Tensor) -> tuple[_State, Tensor]:
        """The proposal of Langevin moves, and the log ratio of its test."""
        new = self.state(state.x + STEP * state.score + (2 * STEP) ** 0.5 * noise, state.v)
        forward = (new.x - state.x - STEP * state.score).square().sum(1)
        back = (state.x - new.x - STEP * new.score).square().sum(1)
        return new, state.energy - new.energy + (forward - back) / (4 * STEP)

    def leap(self, state: _State, noise: Tensor) -> tuple[_State, Tensor]:
        """The end of the leapfrog, and the log ratio of its test."""
        v = DAMPING * state.v + (1 - DAMPING**2) ** 0.5 * noise
        new = attrs.evolve(state, v=v)
        for _ in range(LEAPS):
            half = new.v + 0.5 * LEAP * new.score
            new = self.state(new.x + LEAP * half, half)
            new = attrs.evolve(new, v=half + 0.5 * LEAP * new.score)
        return new, state.energy - new.energy


def lift(component: Any, x: Tensor, reference: Reference, generator: torch.Generator, *, draws: int = 50) -> Tensor:
    """How much better a component predicts noise than a reference, (B,), for samples (B, 2).

    The draws are spread evenly over the timesteps. Where those are at equal distances of log SNR, the lift is the log
    ratio of the two densities at the sample, up to a factor (Kong et al., 2023).
    """
    table, total = component.noised_space.alphas_cumprod, torch.zeros(len(x))
    for draw in range(draws):
        t = torch.full((len(x),), (draw + 0.5) / draws * (len(table) - 1))
        noise = torch.randn(*x.shape, 1, 1, generator=generator)
        signal, sigma = signal_noise(table, t)
        noised = signal * x[..., None, None] + sigma * noise
        eps = component.eps(noised, t)
        errors = [(noise - guess).square().sum((1, 2, 3)) for guess in (reference(noised, t, eps), eps)]
        total += errors[0] - errors[1]
    return total / draws
