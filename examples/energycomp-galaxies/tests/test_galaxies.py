"""Draws beside the closed form, blends whose galaxies are found, and the example of the README."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from energycomp_galaxies.blends import find, separated
from energycomp_galaxies.galaxies import NOISE, Prior, blend, placed, stamps
from energycomp_galaxies.table import by_scipy, compared

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def prior() -> Prior:
    return Prior.of(stamps(300, torch.Generator().manual_seed(0), 0.3))


def test_the_prior_has_the_moments_of_drawn_galaxies(prior: Prior) -> None:
    galaxy = prior.about(200.0)
    z = galaxy.mean + torch.randn(4000, 24, generator=torch.Generator().manual_seed(0))
    flux = galaxy.stamp(z).sum((1, 2))
    # Log-uniform from 100 to 600: mean 500 / log 6, mean square 350000 / (2 log 6).
    assert float(flux.mean()) == pytest.approx(279.1, abs=8.0)
    assert float(flux.std()) == pytest.approx((97669 - 279.1**2) ** 0.5, rel=0.05)
    # Shapes vary as those of galaxies of flux 200 do, beside what their flux does.
    drawn = stamps(300, torch.Generator().manual_seed(0), 0.3)
    shapes = 200.0 * drawn / drawn.sum((1, 2), keepdim=True)
    expected = shapes.var(0).sum() + 140.6**2 * shapes.mean(0).div(200.0).square().sum()
    assert float(galaxy.stamp(z).var(0).sum()) == pytest.approx(float(expected), rel=0.05)


def test_draws_are_those_of_the_posterior_in_closed_form(prior: Prior) -> None:
    """All pixels, without the projection that makes it fast."""
    image, places, _ = blend(2, torch.Generator().manual_seed(3))
    galaxies = [prior.about(200.0), prior.about(400.0)]
    found = separated(image, places, galaxies, None, 2000)
    a = torch.cat([placed(one.stamp(torch.eye(24)), at).flatten(1) for one, at in zip(galaxies, places, strict=True)])
    a, mean = a.double(), torch.cat([one.mean for one in galaxies]).double()
    covariance = torch.linalg.inv(a @ a.T / NOISE**2 + torch.eye(48, dtype=torch.float64))
    exact = mean + covariance @ a @ (image.flatten().double() - mean @ a) / NOISE**2
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (found.samples.flatten(1).double() - exact).T, upper=False
    )
    assert float(2000 * white.mean(1).square().sum()) < 48 + 3 * 96**0.5
    assert float(white.square().mean()) == pytest.approx(1.0, abs=0.02)


def test_galaxies_are_counted_and_weighed(prior: Prior) -> None:
    image, places, galaxies = blend(2, torch.Generator().manual_seed(5))
    found = find(image, prior)
    low, high = found.interval()
    bounds = (np.array(found.places), found.flux.mean(0).numpy(), low.numpy(), high.numpy())
    line = compared(bounds, np.array(places), galaxies.sum((1, 2)).numpy())
    assert (line["count"], line["found"]) == (1.0, 1.0)
    assert line["error"] < 0.2
    assert max(found.counts, key=lambda count: found.counts[count]) == 2
    assert float(found.residual.square().mean()) == pytest.approx(NOISE**2, abs=0.15)


def test_an_aperture_has_the_light_of_a_galaxy_alone() -> None:
    image = placed(300.0 * torch.ones(1, 25, 25) / 625, (16, 16))[0]
    image[16, 16] += 200.0
    places, flux, low, high = by_scipy(image, 1.0)
    assert places.tolist() == [[16, 16]]
    assert flux.tolist() == pytest.approx([200.0 + 29 * 0.48])
    assert ((low + high) / 2).tolist() == pytest.approx(flux.tolist())


def test_the_readme_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, str(README), "exec"), names)  # noqa: S102
    assert getattr(names["low"], "shape", None) == (4,)
