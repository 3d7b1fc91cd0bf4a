"""The noise prediction of every composition is sigma times the finite differences of its energy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Mixture, signal_noise
from energycomp.testing import Gaussian

SHAPE = (2, 1, 2)
STEP = 1e-5


def leaf(mean: float, variance: float, u: Any = "self") -> Gaussian:
    """A Gaussian whose numbers have means and variances of their own."""
    spread = torch.linspace(-0.5, 0.5, 4, dtype=torch.float64).view(SHAPE)
    return Gaussian(mean + spread, variance * (1 + spread), sample_shape=SHAPE, unconditional=u)


U = leaf(0.0, 1.0)
A, B, C = leaf(1.0, 0.25, U), leaf(-0.6, 0.5, U), leaf(0.3, 0.1, U)
COMPOSITIONS: dict[str, Callable[[], Any]] = {
    "one": lambda: A,
    "sum": lambda: A + B,
    "sum of three": lambda: Composer([A, B, C], rule="sum"),
    "mean": lambda: Composer([A, B, C], rule="mean"),
    "product": lambda: A & B & C,
    "negation": lambda: A & ~B,
    "guidance": lambda: 7.5 * A & U,
    "two guidance weights": lambda: 3.0 * A & 1.5 * B & U,
    "difference": lambda: 2 * A - B / 2,
    "mixture": lambda: A | B,
    "weighted mixture": lambda: Mixture([A, B, C], [0.0, -1.0, 0.5]),
    "mixture of products": lambda: (A & B) | (A & ~C),
    "product of mixtures": lambda: (A | B) & (B | C),
    "nested": lambda: 2.0 * ((A & B) | C) + 0.5 * (A | B) - U,
}


def differences(energy: Callable[[Tensor, Tensor], Tensor], x: Tensor, timestep: Tensor) -> Tensor:
    """Central differences of the energy by every number of a sample, (B, C, H, W)."""
    slopes = torch.zeros_like(x)
    for place in range(x[0].numel()):
        shift = torch.zeros_like(x).flatten(1)
        shift[:, place] = STEP
        shift = shift.view_as(x)
        slope = (energy(x + shift, timestep) - energy(x - shift, timestep)) / (2 * STEP)
        slopes.view(len(x), -1)[:, place] = slope
    return slopes


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_eps_is_the_gradient_of_the_energy(name: str) -> None:
    composition = COMPOSITIONS[name]()
    timestep = torch.tensor([5.0, 150.5, 400.0, 700.0, 980.0], dtype=torch.float64)
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, sigma = signal_noise(composition.noised_space.alphas_cumprod, timestep, torch.float64)
    expected = sigma.view(-1, 1, 1, 1) * differences(composition.energy, x, timestep)
    torch.testing.assert_close(composition.eps(x, timestep), expected, rtol=1e-6, atol=1e-7)
