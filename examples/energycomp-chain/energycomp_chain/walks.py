"""Short walks around a building: the process, what is legal, and what its windows are learned from."""

from pathlib import Path

import torch
from energycomp.components import EnergyComponent
from torch import Tensor

from energycomp_chain.windows import read_factors, train_factors

STEP, BUILDING, RING, WIDTH, LONGEST = 0.3, 0.6, 1.4, 0.25, 1.2  # walks keep 0.1 more from the building
LENGTH, WIDTHS = 4, {4: 96, 1: 48}  # points of a window; widths of the networks of windows and of single points
WEIGHTS = Path(__file__).parent / "weights" / "walks.safetensors"


def distance(x: Tensor, place: Tensor) -> Tensor:
    """The least distance of each step of walks (B, 2, N) from a place (2,), (B, N - 1)."""
    start, step = x[:, :, :-1] - place[:, None], x.diff(dim=2)
    share = (-(start * step).sum(1) / step.square().sum(1).clamp(min=1e-9)).clamp(0, 1)
    return (start + share[:, None] * step).norm(dim=1)


def is_legal(x: Tensor) -> Tensor:
    """Whether walks (B, 2, N) take no step longer than 1.2, do not cross the building, and stay near it, (B,)."""
    steps = x.diff(dim=2).norm(dim=1)
    apart = distance(x, torch.zeros(2))
    return (steps < LONGEST).all(1) & (apart > BUILDING).all(1) & (x.norm(dim=1) < 2.5).all(1)


def walks(n: int, points: int, generator: torch.Generator, burn_in: int = 30) -> Tensor:
    """Random walks (n, 2, points): normal steps, drawn again where they leave the ring or come near the building."""
    here = torch.randn(n, 2, generator=generator)
    here = RING * here / here.norm(dim=1, keepdim=True)
    path = []
    for _ in range(burn_in + points):
        path.append(here)
        here = here.clone()
        left = torch.arange(n)
        while len(left):
            tried = path[-1][left] + STEP * torch.randn(len(left), 2, generator=generator)
            chance = torch.exp(-((tried.norm(dim=1) - RING) / WIDTH).square() / 2)
            free = distance(torch.stack([path[-1][left], tried], 2), torch.zeros(2))[:, 0] > BUILDING + 0.1
            good = free & (torch.rand(len(left), generator=generator) < chance)
            here[left[good]] = tried[good]
            left = left[~good]
    return torch.stack(path[burn_in:], 2)


def factors(weights: Path = WEIGHTS) -> tuple[EnergyComponent, EnergyComponent]:
    """The components of windows of 4 points and of single points, with the weights of this package."""
    windows, points = read_factors(weights, 2, WIDTHS)
    return windows, points


def train(steps: int = 6000, walkers: int = 20_000, path: Path = WEIGHTS) -> None:
    """Trains both networks, two minutes on one core, and writes their weights."""
    generator = torch.Generator().manual_seed(0)
    data = walks(walkers, 5 * LENGTH, generator)
    train_factors(data, WIDTHS, steps=steps, path=path, generator=generator)
