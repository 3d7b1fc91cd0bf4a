"""Densities in the plane and their noised forms, exactly: modes, boxes and circles, as components to compose.

Notation: variable -> symbol
    signal, sigma   sqrt(alpha_bar_t), sqrt(1 - alpha_bar_t), of x_t = signal x_0 + sigma noise
    x               a sample (B, 2)
    energy          -log p_t(x), normalised: the integral of exp(-energy) is 1
    score           grad log p_t(x) = -eps / sigma

    Modes   Gaussians of one standard deviation sd and equal weights stay Gaussians, of the variance
            (signal sd)^2 + sigma^2
    Box     for each axis, with the half width h, the distance d from the centre and the standard normal Phi:
            p = (Phi((d + h) / sigma) - Phi((d - h) / sigma)) / 2h
    Circle  with the radius a and the distance r from the centre (a Rice distribution along r):
            p = exp(-(r - a)^2 / 2 sigma^2) i0e(a r / sigma^2) / (2 pi sigma^2)
All lengths but sigma are scaled by signal. Everything is float64, because densities fall to exp(-10^5).
"""

from __future__ import annotations

import math
from typing import Protocol

import attrs
import torch
from torch import Tensor

from energycomp import Composable
from energycomp.components import NoisedSpace, signal_noise

__all__ = ["Box", "Circle", "Density", "Modes", "Shape", "even_schedule", "linear_schedule", "plane"]

SHAPE = (2, 1, 1)
CLEAN, NOISY = 0.003, -7.0  # of `even_schedule`: sigma at the first timestep, log SNR at the last


def linear_schedule(steps: int = 50) -> Tensor:
    """alphas_cumprod (T,) for beta from 1e-4 to 0.02, as CompLift uses it: the last one is 0.603, not noise."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64), 0)


def even_schedule(steps: int = 50) -> Tensor:
    """alphas_cumprod (T,) at equal distances of log SNR, from sigma 0.003, a tenth of the narrowest mode, to noise."""
    first = math.log(1 / CLEAN**2 - 1)
    return torch.sigmoid(torch.linspace(first, NOISY, steps, dtype=torch.float64))


def plane(alphas_cumprod: Tensor) -> NoisedSpace:
    """The space of samples (2, 1, 1) under a noise schedule."""
    return NoisedSpace(alphas_cumprod, SHAPE, "plane")


class Shape(Protocol):
    """A density in the plane; x (B, 2), signal and sigma (B, 1), all float64."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n clean samples (n, 2)."""
        ...

    def energy(self, x: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """-log p_t(x), (B,)."""
        ...

    def score(self, x: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Its gradient, negative, (B, 2)."""
        ...


@attrs.frozen
class Modes:
    """Gaussians of equal weights around some centres.

    >>> x, one = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    >>> Modes(((0.0, 0.0),), sd=0.0).energy(x, one, one)  # log 2 pi
    tensor([1.8379], dtype=torch.float64)
    """

    centres: tuple[tuple[float, float], ...]
    sd: float = 0.03

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """As many of each mode as chance has it."""
        chosen = torch.randint(len(self.centres), (n,), generator=generator)
        return self._centres()[chosen] + self.sd * normal((n, 2), generator)

    def energy(self, x: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Closed form."""
        logits, _, variance = self._logits(x, signal, sigma)
        return (2 * torch.pi * variance[:, 0]).log() + math.log(len(self.centres)) - logits.logsumexp(1)

    def score(self, x: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Closed form."""
        logits, offset, variance = self._logits(x, signal, sigma)
        return -torch.einsum("bk,bki->bi", logits.softmax(1), offset) / variance

    def _centres(self) -> Tensor:
        return torch.tensor(self.centres, dtype=torch.float64)

    def _logits(self, x: Tensor, signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        offset = x[:, None] - signal[..., None] * self._centres()  # (B, K, 2)
        variance = (signal * self.sd).square() + sigma.square()
        return -offset.square().sum(-1) / (2 * variance), offset, variance


@attrs.frozen
class Box:
    """Uniform in a rectangle."""

    low: tuple[float, float]
    high: tuple[float, float]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Uniform numbers."""
        low, high = (torch.tensor(corner, dtype=torch.float64) for corner in (self.low, self.high))
        return low + (high - low) * torch.rand(n, 2, generator=generator, dtype=torch.float64)

    def energy(self, x: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Closed form; the difference of two Phi is taken of their logarithms, at the side where both are small."""
        return -self._parts(x, signal, sigma)[0].sum(1)

    def score(self, x: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Closed form."""
        log_p, side, near, far, width = self._parts(x, signal, sigma)
        scale = -0.5 * math.log(2 * torch.pi) - sigma.log() - width.log() - log_p
        return side * ((scale - far.square() / 2).exp() - (scale - near.square() / 2).exp())

    def _parts(self, x: Tensor, signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        low, high = (signal * torch.tensor(corner, dtype=torch.float64) for corner in (self.low, self.high))
        offset, half = x - (low + high) / 2, (high - low) / 2
        near, far = (half - offset.abs()) / sigma, (half + offset.abs()) / sigma
        upper, lower = torch.special.log_ndtr(near), torch.special.log_ndtr(-far)
        log_p = upper + (-torch.expm1(lower - upper)).log() - (2 * half).log()
        return log_p, offset.sign(), near, far, 2 * half


@attrs.frozen
class Circle:
    """Uniform on a circle, a density only where there is noise.

    >>> x, one = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    >>> Circle((0.0, 0.0)).energy(x, one, one)  # log 2 pi + 1 / 2
    tensor([2.3379], dtype=torch.float64)
    """

    centre: tuple[float, float]
    radius: float = 1.0

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Uniform angles."""
        angle = 2 * torch.pi * torch.rand(n, generator=generator, dtype=torch.float64)
        return torch.tensor(self.centre) + self.radius * torch.stack([angle.cos(), angle.sin()], 1)

    def energy(self, x: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Closed form."""
        _, r, a, z = self._polar(x, signal, sigma)
        log_p = torch.special.i0e(z).log() - ((r - a) / sigma).square() / 2 - (2 * torch.pi * sigma.square()).log()
        return -log_p[:, 0]

    def score(self, x: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Closed form."""
        offset, r, a, z = self._polar(x, signal, sigma)
        pull = a * torch.special.i1e(z) / torch.special.i0e(z) - r
        return pull / sigma.square() * offset / r.clamp(min=1e-12)

    def _polar(self, x: Tensor, signal: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        offset = x - signal * torch.tensor(self.centre, dtype=torch.float64)
        r, a = offset.norm(dim=1, keepdim=True), signal * self.radius
        return offset, r, a, a * r / sigma.square()


@attrs.frozen(eq=False, repr=False)
class Density(Composable):
    """The component of a shape: its exact noise prediction and energy at every timestep.

    >>> density = Density(Circle((0.0, 0.0)), plane(even_schedule()))
    >>> density.energy(torch.ones(3, 2, 1, 1), torch.tensor([0.0, 20.0, 49.0])).shape
    torch.Size([3])
    """

    shape: Shape
    noised_space: NoisedSpace

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Noise prediction (B, 2, 1, 1)."""
        x, signal, sigma = self._moments(sample, timestep)
        return (-sigma * self.shape.score(x, signal, sigma)).view_as(sample).to(sample.dtype)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log p_t (B,), normalised."""
        return self.shape.energy(*self._moments(sample, timestep)).to(sample.dtype)

    def _moments(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        signal, sigma = signal_noise(self.noised_space.alphas_cumprod, timestep, torch.float64)
        return sample.flatten(1).double(), signal[:, :, 0, 0], sigma[:, :, 0, 0]

    def __repr__(self) -> str:
        return repr(self.shape)


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)
