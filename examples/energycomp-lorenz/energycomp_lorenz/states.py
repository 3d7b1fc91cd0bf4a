"""The stochastic Lorenz '63 system, a bootstrap particle filter for it, and the networks of its windows."""

from pathlib import Path

import torch
from energycomp.components import EnergyComponent
from energycomp_chain.windows import read_factors, train_factors
from torch import Tensor

STEP, NOISE, SPREAD = 0.05, 1.0, 1.0  # time of a step, and deviations of process and observation
MEAN, SCALE = torch.tensor([0.0, 0.0, 24.0]), torch.tensor([8.0, 9.0, 8.5])  # states are standardised by them
LENGTH, WIDTHS = 5, {5: 128, 1: 64}  # states of a window; widths of the networks of windows and of single states
WEIGHTS = Path(__file__).parent / "weights" / "states.safetensors"


def _drift(x: Tensor) -> Tensor:
    a, b, c = x.unbind(1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], 1)


def advanced(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standardised states (B, 3) one step later: Runge-Kutta of order 4, and normal noise."""
    here = x * SCALE + MEAN
    for _ in range(2):
        h = STEP / 2
        k1 = _drift(here)
        k2 = _drift(here + h / 2 * k1)
        k3 = _drift(here + h / 2 * k2)
        here = here + h / 6 * (k1 + 2 * k2 + 2 * k3 + _drift(here + h * k3))
    return (here + NOISE * torch.randn(here.shape, generator=generator) - MEAN) / SCALE


def trajectories(n: int, states: int, generator: torch.Generator, burn_in: int = 50) -> Tensor:
    """Stationary trajectories (n, 3, states)."""
    x = torch.randn(n, 3, generator=generator)
    path = []
    for _ in range(burn_in + states):
        x = advanced(x, generator)
        path.append(x)
    return torch.stack(path[burn_in:], 2)


def bootstrap_filter(observed: dict[int, float], states: int, n: int, generator: torch.Generator) -> Tensor:
    """Particles (n, 3) of the last state, given observations of the first number at some states (Gordon, 1993)."""
    x = trajectories(n, 1, generator)[:, :, 0]
    for k in range(states):
        x = advanced(x, generator) if k else x
        if k in observed:
            log_weights = -((x[:, 0] - observed[k]) * SCALE[0] / SPREAD).square() / 2
            points = (torch.arange(n) + torch.rand((), generator=generator)) / n
            edges = torch.softmax(log_weights.double(), 0).cumsum(0)
            x = x[torch.searchsorted(edges, points.double()).clamp(max=n - 1)]
    return x


def factors(weights: Path = WEIGHTS) -> tuple[EnergyComponent, EnergyComponent]:
    """The components of windows of 5 states and of single states, with the weights of this package."""
    windows, states = read_factors(weights, 3, WIDTHS)
    return windows, states


def train(steps: int = 8_000, n: int = 20_000, path: Path = WEIGHTS) -> None:
    """Trains both networks, minutes on one core, and writes their weights."""
    generator = torch.Generator().manual_seed(0)
    data = trajectories(n, 4 * LENGTH, generator, burn_in=100)
    train_factors(data, WIDTHS, steps=steps, path=path, generator=generator)
