"""Second order and forecasts against integrals on a grid, closed forms, and what is sampled."""

import math
from typing import Any

import pytest
import torch

from energycomp.components import Mixture
from energycomp.errors import EnergycompError
from energycomp.sampling import Target
from energycomp.testing import Gaussian, tiny_model
from energycomp_samplers import forecast, observe
from energycomp_samplers.second_order import SecondOrder
from energycomp_samplers.spread import measure_spreads


def over(variance: float, *moments: tuple[float, float]) -> tuple[Gaussian, list[Gaussian]]:
    """u, and Gaussians over it of these means and variances, named a, b, ..."""
    u = Gaussian(0.0, variance, name="u", unconditional="self")
    return u, [Gaussian(*one, name=name, unconditional=u) for one, name in zip(moments, "abc", strict=False)]


@pytest.mark.parametrize("step", [0, 4, 8])
def test_second_order_is_the_integral_over_clean_samples(step: int) -> None:
    """Of a^2 b / u^1.5, weights of sum 1.5, by a grid over z: its mean and its overlap."""
    u, (a, b) = over(1.0, (0.5, 0.4), (-0.8, 0.7))
    target = Target(2.0 * a + b - 1.5 * u)
    level = target.levels(10)[step]
    x = torch.tensor([-1.0, 0.0, 0.7]).reshape(3, 1, 1, 1)
    x0 = target.predict(x, level.rows(x), prediction_type="sample")
    found = SecondOrder.of(x, x0, level, target.weights, measure_spreads(target))
    # Conditional densities of z of each leaf, and the kernel of the noise.
    z = torch.linspace(-8.0, 8.0, 4001, dtype=torch.float64)
    ratio = level.alpha / (1.0 - level.alpha)
    log = torch.zeros(3, 4001, dtype=torch.float64)
    for leaf, weight, mean in zip(target.composition.terms, target.weights, x0.double(), strict=True):
        width = (ratio + 1.0 / leaf.variance) ** -0.5
        log += weight * torch.distributions.Normal(mean.reshape(3, 1), width).log_prob(z)
    noise = torch.distributions.Normal(level.alpha**0.5 * z, (1.0 - level.alpha) ** 0.5)
    log += -0.5 * noise.log_prob(x.double().reshape(3, 1))
    means = (torch.softmax(log, 1) * z).sum(1)
    integral = log.logsumexp(1) + math.log(16.0 / 4000)
    assert torch.allclose(found.mean.flatten(), means, atol=0.01)
    assert torch.allclose(found.log_overlap, integral, atol=0.03)


def test_the_overlap_is_the_integral_of_the_product() -> None:
    """a b / u of N(1, 0.3), N(-0.6, 0.4) and N(0, 1)."""
    u, (a, b) = over(1.0, (1.0, 0.3), (-0.6, 0.4))
    z = torch.linspace(-8.0, 8.0, 4001)
    log = sum(w * torch.distributions.Normal(p.mean, p.variance**0.5).log_prob(z) for p, w in ((a, 1), (b, 1), (u, -1)))
    assert forecast(a & b).overlap == pytest.approx(float(log.exp().sum()) * 16.0 / 4000, rel=0.05)


def test_verdicts() -> None:
    """One component works, as does what u says; two sharp ones need weights; distant ones contradict each other."""
    u, (a, b, c) = over(1.0, (0.3, 0.2), (-0.4, 0.6), (-3.0, 0.1))
    same = Gaussian(0.2, 1.0, name="same", unconditional=u)
    for works in (a, a & u, a & same):
        said = forecast(works)
        assert (said.verdict, said.plain > 0.9, said.ess > 0.8) == ("works", True, True)
    two = Mixture([Gaussian(-1.0, 0.09), Gaussian(1.0, 0.09)])
    said = forecast(two + Gaussian(0.5, 0.25, name="b") - u)
    assert (said.verdict, said.plain < 0.2) == ("use SMC(particles=64)", True)
    assert "a and c contradict each other at timesteps 999 to" in str(forecast(a & b & c))


def test_costs_and_seeds() -> None:
    _, (a, b) = over(1.0, (0.5, 0.2), (-0.4, 0.3))
    first, again, other = forecast(a & b), forecast([a, b, -1.0 * a.unconditional]), forecast(a & b, generator=1)
    assert first.evaluations == 3 * (8 + 16 * 10)
    assert again.evaluations == 3 * 16 * 10  # covariances are kept
    assert first.disagreement == pytest.approx(again.disagreement, rel=1e-6)
    assert first.disagreement != pytest.approx(other.disagreement, rel=1e-6)
    assert [level.timestep for level in first.levels] == [999.0 - 100 * step for step in range(10)]


def test_many_numbers_are_compared_with_one_variance() -> None:
    """Halves of 64 numbers: those that change different ones agree, and those that change the same do not."""
    u = Gaussian(0.0, 1.0, sample_shape=(64,), unconditional="self")
    left, right = torch.zeros(64), torch.zeros(64)
    left[:32] = right[32:] = 2.0
    a, b, c = (
        Gaussian(mean, torch.where(mean != 0, 0.05, 1.0), sample_shape=(64,), name=name, unconditional=u)
        for mean, name in ((left, "a"), (right, "b"), (-left, "c"))
    )
    apart, same = forecast(a & b), forecast(a & c)
    assert (apart.plain, apart.verdict) == (None, "works")
    assert "a and c change the same numbers" in same.verdict


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Gaussian() + Gaussian(1.0), "weights that sum to 2"),
        (lambda: Gaussian() & observe(torch.ones(1, 1, 1), torch.zeros(1, 1, 1), 1.0), "without the observation"),
    ],
)
def test_what_cannot_be_forecast(made: Any, said: str) -> None:
    with pytest.raises(EnergycompError, match=said):
        forecast(made())


def test_what_has_no_covariance_gets_no_verdict() -> None:
    model = tiny_model()
    said = forecast(model(0.2, 0.2) & model(0.8, 0.8))
    assert said.verdict.startswith("nothing can be said: ")
    assert said.problem in said.verdict
    wide = forecast(2.0 * Gaussian(0.0, 1.0) - Gaussian(0.0, 0.5))
    assert "do not add up to that of a Gaussian" in wide.problem
