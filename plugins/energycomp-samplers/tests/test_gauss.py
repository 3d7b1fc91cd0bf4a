"""Second-order products: exact for Gaussians, and no worse than the sum for others."""

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composable, Composition, Mixture, NoisedSpace, cosine_schedule
from energycomp.errors import CompositionError, InputError
from energycomp.sampling import Level, Target
from energycomp.seeds import seeded
from energycomp.testing import Gaussian
from energycomp_samplers.factors import AllOf, all_of
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.hmc import HMC
from energycomp_samplers.mala import MALA
from energycomp_samplers.observation import observe
from energycomp_samplers.second_order import local_spreads, multiply
from energycomp_samplers.spread import Spread, measure_spreads, product_spread

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
    random = seeded(seed)
    root = torch.randn(3, 3, generator=random) / 3
    return Correlated(torch.randn(3, generator=random) / 3, root @ root.T + 0.2 * torch.eye(3), unconditional=u)


def exact(parts: list[Correlated]) -> tuple[Tensor, Tensor]:
    """Mean (3,) and covariance (3, 3) of prod_i p_i / u^(n - 1), where u is N(0, 1.5)."""
    precisions = [torch.linalg.inv(part.covariance.double()) for part in parts]
    covariance = torch.linalg.inv(sum(precisions) - (len(parts) - 1) * torch.eye(3).double() / 1.5)
    return covariance @ sum(p @ part.mean.double() for p, part in zip(precisions, parts, strict=True)), covariance


@pytest.mark.parametrize(
    ("n", "kind", "moves"),
    [
        (1, "constant", None),
        (2, "jacobian", None),
        (2, "jacobian", MALA(moves=1, nodes=2)),
        (10, "constant", MALA(moves=2, nodes=2)),
        (100, "constant", None),
    ],
)
def test_products_of_gaussians_are_exact(drawn: Any, expect_normal: Any, n: int, kind: Any, moves: Any) -> None:
    """In four steps."""
    u = Correlated(torch.zeros(3), 1.5 * torch.eye(3))
    parts = [correlated(seed, u) for seed in range(n)]
    sampler = Gauss(last="draw", covariance=kind, moves=moves)
    x, report = drawn(sum(parts, Composition([])) - (n - 1) * u, sampler, 2000, 4)
    expect_normal(x, *exact(parts))
    assert report.warnings == ()


def test_a_schedule_need_not_end_in_noise(drawn: Any) -> None:
    """Samples begin at the noised product, where a fifth of the signal is left: N(3.2 / 7, 1 / 7), 3 times as wide."""
    schedule = torch.linspace(0.999, 0.2, 100)
    u = Gaussian(0.0, 9.0, alphas_cumprod=schedule, unconditional="self")
    a, b = (Gaussian(mean, 2.25, alphas_cumprod=schedule, unconditional=u) for mean in (3.0, -0.6))
    seen = u & observe(torch.ones(1, 1, 1), torch.full((1, 1, 1), 4.0), std=3.0)
    for component, mean, variance in ((a & b, 9.6 / 7, 9 / 7), (seen, 2.0, 4.5)):
        x, _ = drawn(component, Gauss(last="draw"), 4000, 4)
        assert float(x.mean()) == pytest.approx(mean, abs=3 * (variance / 4000) ** 0.5)
        assert float(x.var()) == pytest.approx(variance, abs=3 * variance * (2 / 4000) ** 0.5)


def test_many_numbers_have_one_variance(drawn: Any) -> None:
    """The product a b / u is N(3.2 / 7, 1 / 7)."""
    u = Gaussian(0.0, 1.0, sample_shape=(40,), unconditional="self")
    a, b = (Gaussian(mean, 0.25, sample_shape=(40,), unconditional=u) for mean in (1.0, -0.2))
    x, _ = drawn(a & b, Gauss(last="draw"), 500, 4)
    assert float(x.mean()) == pytest.approx(3.2 / 7, abs=3 / (7 * 500 * 40) ** 0.5)
    assert float(x.var()) == pytest.approx(1 / 7, abs=3 / 7 * (2 / (500 * 40)) ** 0.5)


def test_what_is_measured_is_the_covariance_and_is_kept() -> None:
    target = Target(correlated(0, None))
    (found,) = measure_spreads(target)
    (leaf,) = target.composition.terms
    assert torch.allclose(found.matrix(3), torch.linalg.inv(leaf.covariance.double()), rtol=1e-3, atol=1e-3)
    assert measure_spreads(Target(2.0 * leaf)) == [found]


@attrs.frozen(eq=False, repr=False)
class Learned(Correlated):
    """With the error of a network, which is no gradient."""

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return super().eps(sample, timestep) + 0.03 * (2 * sample.roll(1, 1)).sin()


def test_the_error_of_a_network_is_no_covariance() -> None:
    """Where noise is strong it is as large as the variance 1/2."""
    target = Target(Learned(torch.zeros(3), 0.5 * torch.eye(3)))
    (found,) = measure_spreads(target)
    assert not found.problem
    assert torch.allclose(found.values, torch.full((3,), 2.0).double(), rtol=0.2)
    level, x = target.levels(50)[5], torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    (each,) = local_spreads(target, x, level)
    assert float(each.values.max()) < 20


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


@pytest.mark.parametrize("kind", ["constant", "jacobian"])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_several_modes_are_no_worse_than_by_the_sum(drawn: Any, name: str, kind: Any) -> None:
    """Wasserstein distance to the exact product, beside plain sampling."""
    product = sum((weight * mixture for mixture, weight in PRODUCTS[name]), Composition([]))
    wanted = quantiles(PRODUCTS[name], 500)
    samples = (drawn(product, sampler, 500, 30)[0].flatten().double() for sampler in (None, Gauss(covariance=kind)))
    plain, second = (float((x.sort().values - wanted).abs().mean()) for x in samples)
    assert second <= plain + 0.05


@pytest.mark.parametrize("name", ["a mode shared", "no mode shared"])
def test_jumps_bring_back_strays_and_mend_the_shares_of_modes(drawn: Any, name: str) -> None:
    """Wasserstein distance to the exact product, with jumps and without, and what jumps cost."""
    product = sum((weight * mixture for mixture, weight in PRODUCTS[name]), Composition([]))
    wanted = quantiles(PRODUCTS[name], 1000)
    found = {jumps: drawn(product, Gauss(last="draw", jumps=jumps), 1000, 50) for jumps in (0, 1)}
    without, jumped = (float((found[j][0].flatten().double().sort().values - wanted).abs().mean()) for j in (0, 1))
    assert jumped < 0.5 * without
    assert found[1][1].evaluations - found[0][1].evaluations == 1000 * 3 * 8


def test_samples_that_do_not_depend_on_each_other_do_not_jump(drawn: Any) -> None:
    product = Gaussian(0.5, 0.25) + Gaussian(0.0, 0.5)
    for options in ({"generator": list(range(8))}, {"n": 3}):
        given = {"n": 8, "num_inference_steps": 4} | options
        x, jumped = (
            drawn(product, Gauss(jumps=jumps), given["n"], 4, generator=given.get("generator", 0))[0]
            for jumps in (0, 1)
        )
        assert torch.equal(x, jumped)


@attrs.frozen(eq=False, repr=False)
class Crescent(Composable):
    """Equal shares of N(mean, 0.01 I), with the means (P, 2) on an arc."""

    means: Tensor
    unconditional: Any
    noised_space: NoisedSpace = attrs.field(factory=lambda: attrs.evolve(SPACE, sample_shape=(2,)))

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        signal, noise = (float(level[0]) for level in self.noised_space.levels(timestep))
        total = 0.01 * signal**2 + noise**2
        apart = sample[:, None] - signal * self.means
        share = (-apart.square().sum(2) / (2 * total)).softmax(1)
        return noise / total * torch.einsum("bp,bpd->bd", share, apart)


def test_moves_find_where_crescents_cross(drawn: Any) -> None:
    """Whitened distance from the exact mean of a b / u: a mixture of a Gaussian for each pair of parts."""
    angle = torch.linspace(-1.5, 1.5, 41)
    arc = torch.stack([angle.cos(), angle.sin()], 1)
    u = Gaussian(0.0, 1.0, sample_shape=(2,), space="gaussian", unconditional="self")
    a, b = (Crescent(arc + torch.tensor(shift), u) for shift in ([-0.9, 0.2], [-0.6, -0.5]))
    # N(z; m, 1 / 100) N(z; n, 1 / 100) / N(z; 0, 1) is that of the mean 100 (m + n) / 199 and precision 199, times
    # its share.
    total = 100 * (a.means[:, None] + b.means).flatten(0, 1)
    apart = (a.means[:, None] - b.means).flatten(0, 1)
    share = (total.square().sum(1) * (1 / 199 - 1 / 200) / 2 - 25 * apart.square().sum(1)).softmax(0)
    wanted = share @ total / 199
    each = total / 199 - wanted
    root = torch.linalg.cholesky(each.T @ (share[:, None] * each) + torch.eye(2) / 199)
    off = []
    for moves in (None, MALA(moves=1, nodes=2)):
        sampler = Gauss(last="draw", covariance="jacobian", moves=moves, jumps=0)
        x, report = drawn(a & b, sampler, 500, 15)
        off.append(float(torch.linalg.solve_triangular(root, x.mean(0)[:, None] - wanted[:, None], upper=False).norm()))
        assert len(report.acceptance) == (0 if moves is None else 15)
    assert off[1] < 0.6 * off[0]


@pytest.mark.parametrize("seeds", [0, [1, 2, 3]])
def test_moves_keep_what_was_observed(drawn: Any, seeds: Any) -> None:
    """N(1, 1) seen as 3 with variance 1 is N(2, 1 / 2); samples of generators do not depend on their batch."""
    scene = Gaussian(1.0, 1.0) & observe(torch.ones(1, 1, 1), torch.full((1, 1, 1), 3.0), std=1.0)
    sampler = Gauss(last="draw", moves=HMC(moves=1, leapfrogs=2, nodes=2))

    if isinstance(seeds, list):
        whole, part = (drawn(scene, sampler, len(some), 4, generator=some)[0] for some in (seeds, seeds[1:]))
        assert torch.allclose(whole[1:], part, atol=1e-5)
        return
    x, _ = drawn(scene, sampler, 2000, 4, generator=seeds)
    assert float(x.mean()) == pytest.approx(2.0, abs=3 * (0.5 / 2000) ** 0.5)
    assert float(x.var()) == pytest.approx(0.5, abs=1.5 * (2 / 2000) ** 0.5)


@pytest.mark.parametrize("timestep", [900.0, 500.0, 50.0])
def test_the_covariance_at_a_sample_is_that_of_the_modes_that_noise_leaves_open(timestep: float) -> None:
    """Of a mixture of two Gaussians in the plane, in closed form: within each mode, and between them."""
    means, variance = torch.tensor([[-1.0, 0.5], [1.0, -0.2]]), torch.tensor([0.3, 0.02])
    shape = {"sample_shape": (2,)}
    target = Target(Mixture([Gaussian(mean, variance, **shape) for mean in means]) + Gaussian(0.0, 1.0, **shape))
    level = Level(
        step=0, timestep=timestep, alpha=float(target.noised_space.alphas_cumprod[int(timestep)]), next_alpha=1
    )
    x = torch.tensor([[0.1, 0.2], [-0.7, 0.4], [0.0, 0.0]])
    found, plain = local_spreads(target, x, level)
    ratio = level.alpha / (1 - level.alpha)
    # Responsibilities of the modes, and the mean and variance that each leaves.
    total = level.alpha * variance + 1 - level.alpha
    apart = x[:, None] - level.alpha**0.5 * means
    share = (-apart.square() / (2 * total)).sum(2).softmax(1)[..., None]
    each = means + level.alpha**0.5 * variance / total * apart
    between = each - (share * each).sum(1, keepdim=True)
    wanted = torch.einsum("bmi,bmj->bij", share * between, between) + torch.diag(variance * (1 - level.alpha) / total)
    got = torch.linalg.inv(found.matrix(2) + ratio * torch.eye(2))
    assert torch.allclose(got.float(), wanted, rtol=0.02, atol=2e-4)
    assert torch.allclose(plain.matrix(2), torch.eye(2).double(), atol=0.02 * (1 + ratio))


def test_a_direction_in_which_the_product_is_not_sure_follows_the_sum() -> None:
    """Of two numbers, a says much of the first one; of the second u is surer than both: only the first one moves."""
    level, x = Level(step=0, timestep=500.0, alpha=0.5, next_alpha=0.6), torch.zeros(1, 2)
    spreads = [Spread(torch.tensor([p]), torch.eye(2)[None]) for p in ([9.0, 1.0], [1.0, 1.0], [1.0, 5.0])]
    x0 = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]], [[0.0, 0.5]]])
    found = multiply(x, x0, level, (1.0, 1.0, -1.0), spreads)
    assert torch.allclose(found.plain, torch.tensor([[1.0, 0.5]]).double())
    assert torch.allclose(found.mean, torch.tensor([[1.0, 0.5]]).double())  # 10 / (10 + 2 - 2), and the sum
    assert torch.allclose(found.spread.values.sort().values, torch.tensor([[1.0, 9.0]]).double())


def test_a_product_that_is_no_gaussian_follows_the_sum_and_says_so(drawn: Any) -> None:
    product = 2.0 * Gaussian(0.0, 1.0) - Gaussian(0.0, 0.5)  # precision 2 - 2
    with pytest.warns(UserWarning, match="the precisions of the components do not add up"):
        x = Composer(product).sample(50, sampler="gauss", num_inference_steps=10, output_type="latent", progress=False)
    assert bool(x.isfinite().all())
    spread, is_product = product_spread(measure_spreads(Target(product)), (2.0, -1.0), 1)
    assert not is_product
    assert float(spread.values) == pytest.approx(1.0, rel=0.01)


def test_factors_in_batches_are_the_product_of_all(drawn: Any, expect_normal: Any) -> None:
    """200 Gaussians, 32 of them at a time, at 33 evaluations per sample and step."""
    u = Gaussian(0.0, 1.5, sample_shape=(3,), unconditional="self")
    parts = [correlated(seed, u) for seed in range(200)]
    many = all_of(parts, batch=32)
    drawn(many, Gauss(), 1, 1)  # measures the parts
    x, report = drawn(many, Gauss(last="draw"), 2000, 4)
    expect_normal(x, *exact(parts))
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
    assert bool(((found.mean(0) - exact).abs() < 3.5 * found.std(0) / 50**0.5).all())
    assert bool(((found - exact).abs().mean(0) > 0.01).all())


def test_what_cannot_be_multiplied_is_refused(drawn: Any) -> None:
    u = Gaussian(0.0, 0.5, unconditional="self")
    wide = all_of([Gaussian(0.0, 2.0, unconditional=u), Gaussian(1.0, 2.0, unconditional=u)])
    many = Gaussian(0.0, 1.0, sample_shape=(40,))
    for error, message, call in (
        (InputError, "at most 32", lambda: drawn(many, Gauss(covariance="jacobian"), 2, 2)),
        (CompositionError, "no components", lambda: all_of([])),
        (CompositionError, "sum to 2", lambda: AllOf(Gaussian(0.0, 0.5) + Gaussian(1.0, 0.5), 2)),
        (InputError, "batch", lambda: all_of([Gaussian()], batch=0)),
        (InputError, "do not add up", lambda: wide.eps(torch.zeros(1, 1, 1, 1), torch.zeros(1))),
    ):
        with pytest.raises(error, match=message):
            call()
