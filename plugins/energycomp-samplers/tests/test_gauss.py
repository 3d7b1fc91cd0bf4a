"""Second-order products: exact for Gaussians, and no worse than the sum for others."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composable, Composition, Mixture, NoisedSpace, cosine_schedule
from energycomp.errors import CompositionError, InputError
from energycomp.sampling import SamplingReport, Target
from energycomp.testing import Gaussian
from energycomp_samplers.factors import AllOf, all_of
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.spread import product_spread, spreads_of

OPTIONS: dict[str, Any] = {"output_type": "latent", "generator": 0, "progress": False}
SPACE = NoisedSpace(cosine_schedule(), (3,), "gaussian")


@attrs.frozen(eq=False, repr=False)
class Correlated(Composable):
    """N(mean (D,), covariance (D, D))."""

    mean: Tensor
    covariance: Tensor
    noised_space: NoisedSpace = SPACE
    unconditional: Any = None

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        signal, noise = (float(level[0]) for level in self.noised_space.levels(timestep))
        total = signal**2 * self.covariance + noise**2 * torch.eye(len(self.mean))
        return noise * torch.linalg.solve(total, (sample - signal * self.mean).T).T


def correlated(seed: int, u: Any) -> Correlated:
    random = torch.Generator().manual_seed(seed)
    root = torch.randn(3, 3, generator=random) / 3
    return Correlated(torch.randn(3, generator=random) / 3, root @ root.T + 0.2 * torch.eye(3), unconditional=u)


def drawn(component: Any, n: int, sampler: Any, steps: int) -> tuple[Tensor, SamplingReport]:
    reports: list[SamplingReport] = []
    options = OPTIONS | {"num_inference_steps": steps, "report": reports.append}
    return Composer(component).sample(n, sampler=sampler, **options), reports[0]


@pytest.mark.parametrize("n", [1, 2, 10, 100])
def test_products_of_gaussians_are_exact(n: int) -> None:
    """prod_i p_i / u^(n - 1), in four steps: squared errors of whitened moments are chi-square within 3 s.e."""
    u = Correlated(torch.zeros(3), 1.5 * torch.eye(3))
    parts = [correlated(seed, u) for seed in range(n)]
    precisions = [torch.linalg.inv(part.covariance.double()) for part in parts]
    precision = sum(precisions) - (n - 1) * torch.eye(3).double() / 1.5
    covariance = torch.linalg.inv(precision)
    mean = covariance @ sum(p @ part.mean.double() for p, part in zip(precisions, parts, strict=True))
    product = sum(parts, Composition([])) - (n - 1) * u
    x, report = drawn(product, 2000, Gauss(last="draw"), 4)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (x.double() - mean).T, upper=False)
    assert float(2000 * white.mean(1).square().sum()) < 3 + 3 * 6**0.5
    assert float(1000 * (white @ white.T / 2000 - torch.eye(3)).square().sum()) < 6 + 3 * 12**0.5
    assert report.warnings == ()


def test_many_numbers_have_one_variance() -> None:
    u = Gaussian(0.0, 1.0, sample_shape=(40,), unconditional="self")
    a, b = (Gaussian(mean, 0.25, sample_shape=(40,), unconditional=u) for mean in (1.0, -0.2))
    x, _ = drawn(a & b, 500, Gauss(last="draw"), 4)
    # a b / u: N(3.2 / 7, 1 / 7).
    assert float(x.mean()) == pytest.approx(3.2 / 7, abs=3 / (7 * 500 * 40) ** 0.5)
    assert float(x.var()) == pytest.approx(1 / 7, abs=3 / 7 * (2 / (500 * 40)) ** 0.5)


def test_what_is_measured_is_the_covariance_and_is_kept() -> None:
    target = Target(correlated(0, None))
    (found,) = spreads_of(target)
    (leaf,) = target.composition.terms
    assert torch.allclose(found.matrix(3), torch.linalg.inv(leaf.covariance.double()), rtol=1e-3, atol=1e-3)
    assert spreads_of(Target(2.0 * leaf)) == [found]


def quantiles(components: list[tuple[Mixture, float]], n: int) -> Tensor:
    """Quantiles (n,) of the product of mixtures of two modes, by a grid."""
    z = torch.linspace(-5.0, 5.0, 4001, dtype=torch.float64)
    log_density = torch.zeros_like(z)
    for mixture, weight in components:
        parts = [next(iter(part.terms)) for part in mixture.components]
        logs = [-((z - p.mean) ** 2) / (2 * p.variance) - 0.5 * torch.tensor(p.variance).log() for p in parts]
        log_density += weight * torch.stack(logs).logsumexp(0)
    cumulative = torch.softmax(log_density, 0).cumsum(0)
    return z[torch.searchsorted(cumulative, (torch.arange(n) + 0.5) / n).clamp(max=len(z) - 1)]


def modes(a: float, b: float, variance: float) -> Mixture:
    return Mixture([Gaussian(a, variance), Gaussian(b, variance)])


PRODUCTS = {
    "a mode shared": [(modes(-1.0, 1.0, 0.1), 1.0), (modes(1.0, 2.0, 0.1), 1.0), (modes(-1.5, 1.5, 1.0), -1.0)],
    "no mode shared": [(modes(-1.5, 0.0, 0.1), 1.0), (modes(0.8, 2.0, 0.1), 1.0), (modes(-1.0, 1.0, 1.0), -1.0)],
    "as sure as u": [(modes(-1.0, 1.0, 0.05), 1.0), (modes(0.9, 1.1, 0.05), 1.0), (modes(-1.0, 1.0, 0.05), -1.0)],
    "sharpened": [(modes(-1.0, 1.0, 0.2), 3.0), (modes(-1.2, 1.2, 0.4), -2.0)],
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_several_modes_are_no_worse_than_by_the_sum(name: str) -> None:
    """Wasserstein distance to the exact product, beside plain sampling."""
    components = PRODUCTS[name]
    product = sum((weight * mixture for mixture, weight in components), Composition([]))
    wanted = quantiles(components, 500)
    apart = {}
    for sampler in (None, Gauss()):
        x, _ = drawn(product, 500, sampler, 30)
        apart[sampler] = float((x.flatten().double().sort().values - wanted).abs().mean())
    assert apart[Gauss()] <= apart[None] + 0.05


def test_a_product_that_is_no_gaussian_follows_the_sum_and_says_so() -> None:
    wide, narrow = Gaussian(0.0, 1.0), Gaussian(0.0, 0.5)
    product = 2.0 * wide - narrow  # precision 2 - 2
    with pytest.warns(UserWarning, match="the precisions of the components do not add up"):
        x = Composer(product).sample(50, sampler="gauss", num_inference_steps=10, **OPTIONS)
    assert bool(x.isfinite().all())
    spread, is_product = product_spread(spreads_of(Target(product)), (2.0, -1.0), 1)
    assert not is_product
    assert float(spread.values) == pytest.approx(1.0, rel=0.01)


def test_generators_make_each_sample_independent_of_its_batch() -> None:
    a, b = Gaussian(0.5, 0.3), Gaussian(0.0, 0.2)

    def sample(seeds: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        options = OPTIONS | {"generator": generators, "num_inference_steps": 5}
        return Composer(a + b - Gaussian()).sample(len(seeds), sampler="gauss", **options)

    assert torch.allclose(sample([1, 2, 3])[1:], sample([2, 3]), atol=1e-6)


def test_factors_in_batches_are_the_product_of_all() -> None:
    """200 Gaussians, 32 of them at a time: moments within 3 s.e., at 33 evaluations per sample and step."""
    u = Gaussian(0.0, 1.5, sample_shape=(3,), unconditional="self")
    parts = [correlated(seed, u) for seed in range(200)]
    precisions = [torch.linalg.inv(part.covariance.double()) for part in parts]
    covariance = torch.linalg.inv(sum(precisions) - 199 * torch.eye(3).double() / 1.5)
    mean = covariance @ sum(p @ part.mean.double() for p, part in zip(precisions, parts, strict=True))
    many = all_of(parts, batch=32)
    drawn(many, 1, Gauss(), 1)  # measures the parts
    x, report = drawn(many, 2000, Gauss(last="draw"), 4)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (x.double() - mean).T, upper=False)
    assert float(2000 * white.mean(1).square().sum()) < 3 + 3 * 6**0.5
    assert float(1000 * (white @ white.T / 2000 - torch.eye(3)).square().sum()) < 6 + 3 * 12**0.5
    assert report.evaluations == 2000 * 4 * 33


def test_batches_have_the_prediction_of_all_factors_in_the_mean() -> None:
    """Of mixtures, whose Gaussians are wrong: the mean over batches is that of all, and a batch alone is off."""
    u = Gaussian(0.0, 1.5, unconditional="self")
    parts = [Mixture([Gaussian(-1.0, 0.02 + k / 40), Gaussian(0.5 + k / 9, 0.1)]) for k in range(8)]
    whole = sum(parts, Composition([])) - 7 * u
    x, timestep = torch.tensor([-0.1, 0.1]).reshape(2, 1, 1, 1), torch.tensor([400.0, 400.0])
    mean = AllOf(whole, 2).group.mean
    every = []
    for mean.seed in range(50):
        every.append(mean(x, timestep))
    found = torch.stack(every)
    exact = AllOf(whole, 8).group.mean(x, timestep)
    error = found.std(0) / 50**0.5
    assert bool(((found.mean(0) - exact).abs() < 3.5 * error).all())
    assert bool(((found - exact).abs().mean(0) > 0.01).all())


def test_all_of_what_cannot_be_multiplied_is_refused() -> None:
    with pytest.raises(CompositionError, match="no components"):
        all_of([])
    with pytest.raises(CompositionError, match="sum to 2"):
        AllOf(Gaussian(0.0, 0.5) + Gaussian(1.0, 0.5), 2)
    with pytest.raises(InputError, match="batch"):
        all_of([Gaussian()], batch=0)
    u = Gaussian(0.0, 0.5, unconditional="self")
    wide = all_of([Gaussian(0.0, 2.0, unconditional=u), Gaussian(1.0, 2.0, unconditional=u)])
    with pytest.raises(InputError, match="do not add up"):
        wide.eps(torch.zeros(1, 1, 1, 1), torch.zeros(1))
