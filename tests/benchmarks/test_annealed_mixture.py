"""The annealed mixture: its component and its exact samples against Gaussians, its metrics against closed forms."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.sampling import annealed_mixture as bench
from energycomp.components import Mixture, NoisedSpace, cosine_schedule
from energycomp.testing import Gaussian

SHAPE = (2, 1, 1)


def test_the_component_is_the_mixture_of_its_modes() -> None:
    means = torch.tensor([[-1.0, 0.5], [0.3, 0.8], [1.2, -0.4]])
    modes = bench.GaussianModes(means, 0.3, NoisedSpace(cosine_schedule(), SHAPE, "gaussian"))
    written = Mixture([Gaussian(mean.view(SHAPE), 0.09, sample_shape=SHAPE) for mean in means])
    x = torch.randn(50, *SHAPE, generator=torch.Generator().manual_seed(0))
    for timestep in (0.0, 300.0, 700.0, 999.0):
        t = torch.full((50,), timestep)
        torch.testing.assert_close(modes.eps(x, t), written.eps(x, t), rtol=1e-3, atol=1e-4)
        off = modes.energy(x, t) - written.energy(x, t)  # a constant of the timestep
        torch.testing.assert_close(off, off[:1].expand(50), rtol=0, atol=1e-3)


def test_the_schedule_is_that_of_the_paper() -> None:
    alphas = bench.component().noised_space.alphas_cumprod
    sigma = (1 / alphas - 1).sqrt()
    assert alphas.dtype == torch.float64  # in float32, 1 - alpha_bar would have one digit at the clean end
    assert float(sigma[-1]) == pytest.approx(10.0, rel=1e-5)
    assert float(sigma[499]) == pytest.approx(0.01 * (1000 - 1) ** 0.5, rel=1e-5)


def test_exact_samples_have_the_density_of_the_third_power() -> None:
    """Two modes one apart, where the cross terms count: the density is p^3 up to a factor."""
    means = torch.tensor([[-1.0, 0.0], [2.0, 1.0]])
    annealed = bench.Annealed.of(means)
    assert float(annealed.weights.sum()) == pytest.approx(1.0)
    points = np.random.default_rng(0).normal(size=(100, 2)) * 2
    p = torch.cdist(torch.from_numpy(points), means.double()).square().mul(-1 / (2 * bench.SD**2)).logsumexp(1)
    off = annealed.log_density(points) - bench.BETA * p.numpy()
    assert np.ptp(off) < 1e-6
    x = annealed.sample(20_000, torch.Generator().manual_seed(0))
    assert x.mean(0) == pytest.approx([0.5, 0.5], abs=0.05)
    grid = np.stack(np.meshgrid(*[np.linspace(-15, 15, 301)] * 2), axis=-1).reshape(-1, 2)
    density = np.exp(annealed.log_density(grid))
    assert density.sum() * 0.01 == pytest.approx(1.0, abs=1e-3)
    assert x.var(0) == pytest.approx((density[:, None] * (grid - 0.5) ** 2).sum(0) * 0.01, rel=0.05)


def test_total_variation_leaves_out_what_is_outside() -> None:
    points = np.random.default_rng(0).uniform(size=(4000, 2))
    far = np.concatenate([points, points + 50])
    assert bench.total_variation(far, points) == 0.0
    half = points[points[:, 0] < 0.5]
    share = len(half) / len(points)
    assert bench.total_variation(half, points) == pytest.approx(1 - share)


def test_wasserstein_of_a_shift_and_of_two_modes() -> None:
    points = np.random.default_rng(0).normal(size=(200, 2))
    shifted = points[::-1] + np.array([3.0, 4.0])
    assert [bench.wasserstein(points, shifted, power) for power in (1, 2)] == pytest.approx([5.0, 5.0])
    two, other = np.repeat([[0.0, 0.0], [10.0, 0.0]], [100, 100], 0), np.repeat([[0.0, 0.0], [10.0, 0.0]], [60, 140], 0)
    assert bench.wasserstein(two, other, 1) == pytest.approx(2.0)
    assert bench.wasserstein(two, other, 2) == pytest.approx(20**0.5)


def test_mmd_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(700, 2)), rng.normal(size=(700, 2)) + 0.3

    def kernels(a: np.ndarray, b: np.ndarray) -> float:
        squares = np.square(a[:, None] - b).sum(-1)
        return sum(float(np.exp(-squares / (2 * width**2)).mean()) for width in bench.WIDTHS)

    assert bench.mmd(x, y) == pytest.approx(kernels(x, x) + kernels(y, y) - 2 * kernels(x, y), abs=1e-5)


def test_energy_w2_of_equal_samples_is_0() -> None:
    target = bench.Annealed.of(torch.zeros(1, 2))
    x = target.sample(100, torch.Generator().manual_seed(0))
    assert bench.energy_w2(x, x[::-1].copy(), target) == 0.0
    variance = bench.SD**2 / bench.BETA
    edge = np.array([[math.sqrt(2 * variance), 0.0]])  # log density 1 below that of the mean
    assert bench.energy_w2(edge, np.zeros((1, 2)), target) == pytest.approx(1.0)


def test_the_command_prints_the_published_rows_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["-n", "200", "--steps", "10", "--transport", "100", "--runs", "2", "-o", str(tmp_path)]
    arguments = ["annealed_mixture.py", *few, "--samplers", bench.EXACT, "energy"]
    monkeypatch.setattr(sys, "argv", arguments)
    bench.main()
    text = capsys.readouterr().out
    assert "| paper: target score + FKC | 1000 | 0.372 ± 0.020 |" in text
    monkeypatch.setattr(sys, "argv", [*arguments, "--json"])
    bench.main()
    printed = capsys.readouterr()
    assert printed.err == ""  # nothing is run a second time
    assert json.loads(printed.out)["energy"]["evaluations"] == 20
