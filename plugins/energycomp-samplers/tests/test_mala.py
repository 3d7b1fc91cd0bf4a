"""Metropolis moves against closed forms: they leave a distribution as it is, and bring other samples to it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from energycomp.components import Composition
from energycomp.sampling import Target
from energycomp.testing import Gaussian
from energycomp_samplers.kernels import Level, levels, predicted
from energycomp_samplers.mala import MALA, Chain

PRODUCT = Gaussian(1.0, 0.25) + Gaussian(-0.2, 0.5)  # N(0.6, 1 / 6) where nothing is noised


def moved(component: Any, options: MALA, start: float, n: int = 4000) -> tuple[Tensor, Chain]:
    """Samples after many moves at the last noise level, which begin as N(0, start^2)."""
    target, generator = Target(Composition.of(component)), torch.Generator().manual_seed(0)
    level = list(levels(target, 100, progress=False))[50]  # half signal, half noise
    x = start * torch.randn(1, n, 1, 1, 1, generator=generator)
    chain = Chain(options, target)

    def normal(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(*shape, 1, 1, 1, generator=generator)

    def uniform(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=generator)

    x, _ = chain.move(x, predicted(target, x, level), level, normal, uniform)
    return x, chain


def noised(level: Level, mean: float, variance: float) -> tuple[float, float]:
    return level.alpha**0.5 * mean, level.alpha * variance + 1 - level.alpha


@pytest.mark.parametrize("test", ["score", "energy"])
@pytest.mark.parametrize("start", [0.3, 1.0, 2.0])
def test_moves_lead_to_the_density(test: Any, start: float) -> None:
    """N(0, 1) at every noise level: the variance within three standard errors, from a start too narrow or too wide."""
    x, chain = moved(Gaussian(0.0, 1.0), MALA(moves=60, test=test), start)
    assert float(x.var()) == pytest.approx(1.0, abs=3 * (2 / 4000) ** 0.5)
    assert float(x.mean()) == pytest.approx(0.0, abs=3 / 4000**0.5)
    assert chain.target.evaluations == 4000 * (1 + 60 * 3)  # four nodes, or a prediction and two energies


def test_a_product_of_noised_gaussians() -> None:
    x, _ = moved(PRODUCT, MALA(moves=80), 1.0)
    level = list(levels(Target(Composition.of(PRODUCT)), 100, progress=False))[50]
    moments = [noised(level, 1.0, 0.25), noised(level, -0.2, 0.5)]
    precision = sum(1 / variance for _, variance in moments)
    mean = sum(mean / variance for mean, variance in moments) / precision
    assert float(x.mean()) == pytest.approx(mean, abs=3 / (4000 * precision) ** 0.5)
    assert float(x.var()) * precision == pytest.approx(1.0, abs=3 * (2 / 4000) ** 0.5)


def test_steps_are_adapted_to_the_acceptance() -> None:
    _, chain = moved(Gaussian(0.0, 1.0), MALA(moves=200), 1.0)
    assert next(iter(chain.acceptance.values())) == pytest.approx(0.57, abs=0.08)


def test_both_tests_agree() -> None:
    first, second = (moved(PRODUCT, MALA(moves=5, test=test), 1.0)[0] for test in ("score", "energy"))
    assert float((first - second).abs().mean()) < 1e-2  # the trapezoidal rule is exact for a linear score
