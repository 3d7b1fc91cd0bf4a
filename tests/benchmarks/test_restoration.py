"""What DPS and DiffPIR of deepinv are given: denoisers and observations in their scale, beside closed forms."""

import pytest
import torch

from benchmarks.baselines.restoration import Problem, interval, right
from energycomp.sampling import Target
from energycomp.seeds import seeded
from energycomp.testing import Gaussian
from energycomp_samplers import observe, pool


@pytest.mark.parametrize("sigma", [0.01, 0.3, 5.0])
def test_the_denoiser_is_the_conditional_mean_of_images_in_0_1(sigma: float) -> None:
    prior = Gaussian(0.6, 0.25, sample_shape=(1, 4, 4))
    problem = Problem(Target(prior), observe(pool(2), torch.zeros(1, 2, 2), 0.1), reach=3.0)
    x = torch.rand(2, 1, 4, 4, generator=seeded(0))
    found = problem.denoiser(x, torch.tensor(sigma))
    # Of x = (z / 3 + 1) / 2 with z ~ N(0.6, 0.25): N(0.6, 0.25 / 36)
    variance = 0.25 / 36.0
    assert torch.allclose(found, (variance * x + sigma**2 * 0.6) / (variance + sigma**2), atol=1e-3)


def test_what_is_seen_of_samples_is_what_is_seen_of_images() -> None:
    """A z = y, of z = 3 (2 x - 1)."""
    z = torch.randn(1, 1, 4, 4, generator=seeded(1))
    y = pool(2).forward(z)[0]
    problem = Problem(Target(Gaussian(sample_shape=(1, 4, 4))), observe(pool(2), y, 0.6), reach=3.0)
    x = (z / 3.0 + 1.0) / 2.0
    assert torch.allclose(problem.seen(5), pool(2).forward(x).expand(5, 1, 2, 2), atol=1e-6)
    assert torch.allclose(problem.samples(x), z, atol=1e-6)
    assert problem.std == pytest.approx(0.1)


@pytest.mark.parametrize("n", [4, 19, 39, 100])
def test_intervals_hold_one_more_sample_as_often_as_they_say(n: int) -> None:
    x = torch.rand(n + 1, 20_000, generator=seeded(2))
    low, high = interval(x[1:])
    inside = float(((x[0] >= low) & (x[0] <= high)).float().mean())
    assert inside == pytest.approx(right(n), abs=0.01)
