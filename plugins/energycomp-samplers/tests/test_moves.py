"""Moves at one noise level against closed forms: they leave a distribution as it is, and bring other samples to it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composable, Composition
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.sampling import Run, Target
from energycomp.testing import Gaussian
from energycomp_samplers.chain import Chain, Density, Moves
from energycomp_samplers.hmc import HMC, leapfrog
from energycomp_samplers.kernels import predict_clean
from energycomp_samplers.langevin import Langevin
from energycomp_samplers.mala import MALA
from energycomp_samplers.smc import SMC

N = 4000
MIDDLE = 50  # of 100 steps: half signal, half noise


def normal(shape: tuple[int, ...]) -> Gaussian:
    """N(0, I), which is N(0, I) at every noise level."""
    return Gaussian(0.0, 1.0, sample_shape=shape)


def product(shape: tuple[int, ...] = (1, 1, 1)) -> Composition:
    """Two Gaussians, whose noised densities have another product than the noised product."""
    return Gaussian(1.0, 0.25, sample_shape=shape) + Gaussian(-0.2, 0.5, sample_shape=shape)


LEVEL = Target(Composition.of(Gaussian())).levels(100)[MIDDLE]  # of all targets, which have one schedule


def density_of(component: Any, *, accept: bool | None = None) -> Density:
    """The density at the middle noise level; `accept` decides for the test."""
    run = Run(Target(Composition.of(component)), 1, 100, generator=1)

    def uniform(shape: tuple[int, ...]) -> Tensor:
        drawn = run.uniform(shape)
        return drawn if accept is None else torch.full(shape, 0.0 if accept else float("inf"))

    return Density(run.target, LEVEL, run.noise, uniform)


def moved(component: Any, options: Moves, start: float = 1.0, n: int = N) -> tuple[Tensor, Chain]:
    """Samples after the moves of the middle noise level, which begin as N(0, start^2)."""
    run = Run(Target(Composition.of(component)), n, 100, generator=1)
    x = start * run.noise((1, n))
    chain = Chain(options)
    x, _ = chain.move(Density(run.target, LEVEL, run.noise, run.uniform), x, predict_clean(run.target, x, LEVEL))
    return x, chain


def moments() -> tuple[float, float]:
    """Mean and variance of the noised components' product."""
    parts = [(LEVEL.alpha**0.5 * m, LEVEL.alpha * v + 1 - LEVEL.alpha) for m, v in ((1.0, 0.25), (-0.2, 0.5))]
    precision = sum(1 / v for _, v in parts)
    return sum(m / v for m, v in parts) / precision, 1 / precision


def expect_moments(x: Tensor, mean: float, variance: float) -> None:
    """Within three standard errors, for independent particles and numbers."""
    count = x.numel()
    assert float(x.mean()) == pytest.approx(mean, abs=3 * (variance / count) ** 0.5)
    assert float((x - mean).square().mean()) / variance == pytest.approx(1.0, abs=3 * (2 / count) ** 0.5)


EXACT = [MALA(moves=60), HMC(moves=20, nodes=2), HMC(moves=20, nodes=4)]


@pytest.mark.parametrize("start", [0.3, 2.0])
@pytest.mark.parametrize("options", EXACT, ids=str)
def test_moves_lead_to_the_density(options: Moves, start: float) -> None:
    """From a start that is too narrow or too wide."""
    x, _ = moved(normal((1, 1, 1)), options, start)
    expect_moments(x, 0.0, 1.0)


@pytest.mark.parametrize("options", EXACT, ids=str)
def test_more_dimensions_and_a_product_of_noised_gaussians(options: Moves) -> None:
    expect_moments(moved(normal((3, 4, 4)), options, n=1000)[0], 0.0, 1.0)
    expect_moments(moved(product(), options, 2.0)[0], *moments())


@pytest.mark.parametrize("c", [0.1, 0.5])
def test_langevin_moves_have_the_error_of_their_step(c: float) -> None:
    """Of variance v / (1 - h / (2 v)) around a Gaussian of variance v, from any start."""
    x, chain = moved(normal((1, 1, 1)), Langevin(moves=100, step_size=c), 2.0, n=20_000)
    h = c * (1 - LEVEL.alpha)
    expect_moments(x, 0.0, 1.0 / (1.0 - h / 2.0))
    assert chain.acceptance == {}
    x, _ = moved(product(), Langevin(moves=100, step_size=c), 2.0, n=20_000)
    mean, variance = moments()
    expect_moments(x, mean, variance / (1.0 - h / (2.0 * variance)))


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        (Langevin(moves=5), 1 + 5),
        (MALA(moves=5), 1 + 5 * 3),  # four nodes, of which one is known
        (HMC(moves=5, leapfrogs=3, nodes=2), 1 + 5 * 3),
        (HMC(moves=5, leapfrogs=3, nodes=4), 1 + 5 * 9),
    ],
    ids=str,
)
def test_evaluations(options: Moves, cost: int) -> None:
    with count_rows() as spent:
        moved(product(), options, n=10)
    assert spent.rows == 2 * 10 * cost


@pytest.mark.parametrize(("options", "goal"), [(MALA(moves=100), 0.57), (HMC(moves=100), 0.8)], ids=str)
def test_steps_are_adapted_to_the_acceptance(options: Moves, goal: float) -> None:
    _, chain = moved(normal((3, 4, 4)), options, n=500)
    assert next(iter(chain.acceptance.values())) == pytest.approx(goal, abs=0.06)


def test_leapfrog_steps_lead_back() -> None:
    """From their end, with the opposite momentum, the same steps return to the start."""
    density, size = density_of(product((2, 1, 1))), torch.full((1, 1, 1, 1, 1), 0.3)
    start = density.state(density.normal((1, 5)))
    path, v = leapfrog(density, start, density.normal((1, 5)), size, 3)
    home, _ = leapfrog(density, path[-1], -v, size, 3)
    torch.testing.assert_close(home[-1].x, start.x, rtol=1e-4, atol=1e-5)
    assert float((path[-1].x - start.x).abs().mean()) > 0.1


def test_each_particle_is_tested_by_itself() -> None:
    density = density_of(normal((2, 1, 1)))
    size = torch.full((2, 1, 1, 1, 1), 2.0)
    _, accepted = HMC(leapfrogs=1).move(density, density.state(density.normal((2, 50))), size)
    assert accepted.shape == (2, 50)
    assert 10 < int(accepted.sum()) < 90


def test_what_moves_refuse() -> None:
    for wrong in (MALA, 3, "mala"):
        with pytest.raises(InputError, match=r"moves=.*expected moves, such as MALA\(\), HMC\(\) or Langevin\(\)"):
            SMC(moves=wrong)
    with pytest.raises(InputError, match=r"step_size=3\.0 for Langevin; expected a number above 0, at most 2"):
        Langevin(step_size=3.0)


# alpha_bar whose log signal-to-noise ratio falls evenly, from noise of the deviation 0.005
EVEN = torch.sigmoid(torch.linspace(10.6, -10.0, 1000))


class Off(Composable):
    """A Gaussian whose noise prediction is off by 0.016, as that of a trained network is."""

    def __init__(self, right: Gaussian) -> None:
        self.right = right
        self.noised_space = right.noised_space

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.right.eps(sample, timestep) + 0.016


def gaussian(mean: float, variance: float) -> Gaussian:
    return Gaussian(mean, variance, sample_shape=(10,), alphas_cumprod=EVEN)


@pytest.mark.parametrize("generator", [0, list(range(60))], ids=["one swarm", "each alone"])
@pytest.mark.parametrize(
    ("component", "mean", "variance"),
    [
        (Off(gaussian(1.0, 0.5)), 1.0, 0.5),  # at the last levels its score is off by two deviations
        (2 * gaussian(1.0, 0.5) - gaussian(0.0, 0.3), 6.0, 1.5),  # wider than both, down to low noise
    ],
    ids=["the error of a network", "a wide product"],
)
def test_long_steps_end_where_the_product_changes_no_more(
    component: Any, mean: float, variance: float, generator: Any
) -> None:
    options = {"num_inference_steps": 60, "output_type": "latent", "generator": generator, "progress": False}
    n = len(generator) if isinstance(generator, list) else 150
    x = Composer(component).sample(n, sampler=SMC(weights="none", moves=MALA(moves=4, nodes=2)), **options)
    assert abs(float(x.mean()) - mean) < 0.2 * variance**0.5
    assert abs(float(x.var()) / variance - 1.0) < 0.2
