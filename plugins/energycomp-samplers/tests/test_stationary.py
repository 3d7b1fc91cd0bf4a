"""Observations of images whose pixels are alike: the exact posterior, by dense matrices."""

import math
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp.components import Composable, NoisedSpace, cosine_schedule, predict
from energycomp.sampling import Target
from energycomp.seeds import seeded
from energycomp_samplers import blur, observe, pool
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.observation import evidence_of, spread_of
from energycomp_samplers.spread import measure_spreads
from energycomp_samplers.stationary import Stationary, rings

SHAPE = (3, 4, 8)
SIZE = math.prod(SHAPE)
SPACE = NoisedSpace(cosine_schedule(), SHAPE)


@attrs.frozen(eq=False, repr=False)
class Smooth(Composable):
    """N(mean, F' diag(variances) F), of the Fourier transform F of all axes; white noise has variances of 1."""

    variances: Tensor
    mean: float = 0.2
    noised_space: NoisedSpace = SPACE
    unconditional: Any = None

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        signal, noise = self.noised_space.levels(timestep)
        away = torch.fft.fftn(sample - signal * self.mean, dim=(1, 2, 3))
        return noise * torch.fft.ifftn(away / (signal**2 * self.variances + noise**2), dim=(1, 2, 3)).real

    def posterior(self, one: Any) -> tuple[Tensor, Tensor]:
        """Mean (D,) and covariance (D, D) under an observation."""
        eye = torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, *SHAPE)
        precision = torch.fft.ifftn(torch.fft.fftn(eye, dim=(1, 2, 3)) / self.variances, dim=(1, 2, 3)).real.flatten(1)
        a = getattr(one.operator, "forward", one.operator)(eye.float()).flatten(1).double().T
        weight = 1.0 / one.std.double().flatten().square()
        h = precision @ torch.full((SIZE,), self.mean, dtype=torch.float64) + a.T @ (weight * one.y.double().flatten())
        covariance = torch.linalg.inv(precision + a.T * weight @ a)
        return covariance @ h, covariance


def smooth(share: float = 1.0) -> Smooth:
    """Low frequencies vary most, and grey more than colour."""
    ring = rings(SHAPE)
    return Smooth(share * 4.0 * torch.exp(-0.4 * ring.float()))


RANDOM = torch.randn(9, SIZE, generator=seeded(1)) / 5
MASK = (torch.rand(1, *SHAPE[1:], generator=seeded(2)) < 0.5).float().expand(SHAPE)
KERNEL = torch.tensor([[0.0, 0.1, 0.0], [0.3, 0.4, 0.1], [0.0, 0.1, 0.0]])
Y = torch.randn(SHAPE, generator=seeded(3))
CASES = {
    "mask": observe(MASK, Y, 0.2),
    "blur": observe(blur(KERNEL), Y, 0.2),
    "blur, noises": observe(blur(KERNEL), Y, torch.linspace(0.2, 0.4, SIZE).reshape(SHAPE)),
    "pool": observe(pool(2), pool(2).forward(Y), 0.2),
    "pool of a whole side": observe(pool(4), pool(4).forward(Y), 0.05),
    "pool, noises": observe(pool(2), pool(2).forward(Y), torch.linspace(0.2, 0.4, SIZE // 4).reshape(3, 2, 4)),
    "pair": observe(
        (lambda z: z.flatten(1) @ RANDOM.T, lambda w: (w @ RANDOM).reshape(-1, *SHAPE)), Y.flatten()[:9], 0.1
    ),
    "function": observe(lambda z: z.flatten(1) @ RANDOM.T, Y.flatten()[:9], 0.1),
}


def test_what_is_measured_is_the_variance_of_each_frequency() -> None:
    prior = smooth()
    (found,) = measure_spreads(Target(prior))
    assert found.spectrum is not None
    assert torch.allclose(1.0 / found.spectrum, prior.variances.double(), rtol=1e-2)


@pytest.mark.parametrize("name", CASES)
def test_the_prediction_is_the_exact_conditional_mean(name: str) -> None:
    """One variance for all numbers, 0.6, would be wrong by up to 1.7."""
    prior = smooth()
    seen = prior & CASES[name]
    # Where noise is strong, x_t says nothing: the mean is that of the posterior.
    x = torch.randn(1, *SHAPE, generator=seeded(4))
    found = predict(seen, x, torch.tensor([999.0]), prediction_type="sample")
    assert torch.allclose(found.flatten().double(), prior.posterior(CASES[name])[0], atol=0.02)


@pytest.mark.parametrize("name", ["mask", "pool"])
def test_samples_of_gauss_are_those_of_the_exact_posterior(drawn: Any, expect_normal: Any, name: str) -> None:
    prior = smooth()
    x, report = drawn(prior & CASES[name], Gauss(last="draw"), 500, 4)
    expect_normal(x, *prior.posterior(CASES[name]))
    assert all("unless the components contradict y" in note for note in report.warnings)  # y is no image of the prior


def test_the_density_of_an_observation_is_that_of_dense_matrices() -> None:
    """Of a product, whose precisions add up."""
    target = Target(smooth() + smooth(0.5))
    spread = spread_of(target, None)
    assert isinstance(spread, Stationary)
    covariance = spread.covariance(torch.tensor([0.7]))
    dense = covariance(torch.eye(SIZE, dtype=torch.float64).reshape(SIZE, *SHAPE)).flatten(1)
    assert torch.allclose(
        dense.inverse().diagonal().mean(), 0.7 + 3.0 * (1.0 / smooth().variances).double().mean(), rtol=1e-2
    )
    for one in CASES.values():
        x0 = torch.randn(2, *SHAPE, generator=seeded(5))
        _, found = evidence_of([one], target).condition(x0, covariance)
        a = getattr(one.operator, "forward", one.operator)(torch.eye(SIZE).reshape(SIZE, *SHAPE)).flatten(1).double().T
        total = a @ dense @ a.T + torch.diag(one.std.double().flatten().square())
        missed = one.y.double().flatten() - x0.flatten(1).double() @ a.T
        wanted = -0.5 * (missed * torch.linalg.solve(total, missed.T).T).sum(1)
        if callable(one.operator):  # its determinant may differ between samples
            wanted = wanted - 0.5 * torch.logdet(total)
        assert torch.allclose(found, wanted, rtol=1e-3)


def test_roots_and_products_keep_the_covariance_of_pixels() -> None:
    spread = Stationary(1.0 / smooth().variances.double())
    covariance = spread.covariance(torch.tensor([2.0]))
    v = torch.randn(2, *SHAPE, generator=seeded(6))
    assert torch.allclose(covariance.root(covariance.root(v)), covariance(v), atol=1e-5)
