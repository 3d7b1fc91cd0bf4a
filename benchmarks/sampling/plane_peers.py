"""What the peers do with two components in the plane, from its description: chains at fixed steps, and lift.

Notation: variable -> symbol
    L           log density of the composition at a timestep, -E; G = grad L
    h           step of Langevin moves, 0.001 at every timestep
    step        of the leapfrog, 0.03 at every timestep; v the momentum, of mass 1
    damping     d = 0.5, of the momentum: v = d v + sqrt(1 - d^2) n

Ten moves at each timestep, from noise N(0, I) down to timestep 0, without reverse steps (Du et al., 2023, "Reduce, reuse,
recycle"):
    ULA     x + h G + sqrt(2 h) n
    MALA    with the test L(y) - L(x) + (|y - x - h G(x)|^2 - |x - y - h G(y)|^2) / 4h
    U-HMC   3 leapfrog steps
    HMC     with the test L(y) - L(x): the released code changes the momentum in place, so that the kinetic energies
            cancel, and does not turn the momentum round after a rejection

OR: the networks hold sigma_t times -log p, and CompLift mixes their noise predictions by softmax(-sigma_t E).
Lift (Yu et al., 2025, "CompLift"): the mean of |eps - 0.9 eps_i|^2 - |eps - eps_i|^2 over draws of noise eps and timesteps;
samples stay where it is positive (negation: not positive). 0.9 eps_i stands for an unconditional prediction.
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
    """Moves at every timestep of a composition, at fixed steps.

    Args:
        kind: "ULA", "MALA", "U-HMC" or "HMC".
    """

    kind: Literal["ULA", "MALA", "U-HMC", "HMC"]

    def sample(self, target: Any, n: int, generator: torch.Generator) -> Tensor:
        """n samples (n, 2) at timestep 0; those of chains that left the square of side 20 are NaN."""
        x, v = (torch.randn(n, 2, generator=generator) for _ in range(2))
        lost = torch.zeros(n, dtype=torch.bool)
        for t in reversed(range(len(target.noised_space.alphas_cumprod))):
            level = _Level(target, torch.full((n,), float(t)), generator)
            for _ in range(MOVES):
                x, v = level.leap(x, v, self.kind) if "HMC" in self.kind else (level.step(x, self.kind), v)
                lost |= is_lost(x)
                x, v = (torch.where(lost[:, None], 0.0, value) for value in (x, v))
        return torch.where(lost[:, None], torch.nan, x)


@attrs.frozen(eq=False)
class _Level:
    """One timestep of a chain; samples (B, 2)."""

    target: Any
    timestep: Tensor
    generator: torch.Generator

    def step(self, x: Tensor, kind: str) -> Tensor:
        score = self._score(x)
        y = x + STEP * score + (2 * STEP) ** 0.5 * torch.randn(x.shape, generator=self.generator)
        if kind == "ULA":
            return y
        forward = (y - x - STEP * score).square().sum(1)
        back = (x - y - STEP * self._score(y)).square().sum(1)
        return torch.where(self._accepted(self._gain(x, y) + (forward - back) / (4 * STEP)), y, x)

    def leap(self, x: Tensor, v: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        v = DAMPING * v + (1 - DAMPING**2) ** 0.5 * torch.randn(v.shape, generator=self.generator)
        y, w, score = x, v, self._score(x)
        for _ in range(LEAPS):
            w = w + 0.5 * LEAP * score
            y = y + LEAP * w
            score = self._score(y)
            w = w + 0.5 * LEAP * score
        if kind == "U-HMC":
            return y, w
        accepted = self._accepted(self._gain(x, y))
        return torch.where(accepted, y, x), torch.where(accepted, w, v)

    def _score(self, x: Tensor) -> Tensor:
        sigma = signal_noise(self.target.noised_space.alphas_cumprod, self.timestep[:1], x.dtype)[1].item()
        return -self.target.eps(x[..., None, None], self.timestep).flatten(1) / sigma

    def _gain(self, x: Tensor, y: Tensor) -> Tensor:
        """L(y) - L(x)."""
        before, after = (self.target.energy(part[..., None, None], self.timestep) for part in (x, y))
        return before - after

    def _accepted(self, log_ratio: Tensor) -> Tensor:
        return (torch.rand(len(log_ratio), generator=self.generator).log() < log_ratio)[:, None]


def lift(component: Any, x: Tensor, reference: Reference, generator: torch.Generator, *, draws: int = 50) -> Tensor:
    """How much better a component predicts noise than a reference, (B,), for samples (B, 2)."""
    table, total = component.noised_space.alphas_cumprod, torch.zeros(len(x))
    for _ in range(draws):
        t = torch.randint(len(table), (len(x),), generator=generator).float()
        noise = torch.randn(*x.shape, 1, 1, generator=generator)
        signal, sigma = signal_noise(table, t)
        noised = signal * x[..., None, None] + sigma * noise
        eps = component.eps(noised, t)
        errors = [(noise - guess).square().sum((1, 2, 3)) for guess in (reference(noised, t, eps), eps)]
        total += errors[0] - errors[1]
    return total / draws
