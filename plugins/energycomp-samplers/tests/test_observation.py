"""Observations: exact posteriors of Gaussians, mixtures by quadrature, the algebra, and what is refused."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composition, Mixture, combine, compositions_in, per_sample, predict
from energycomp.errors import CompositionError, EnergycompWarning, InputError
from energycomp.sampling import Target
from energycomp.seeds import seeded
from energycomp.testing import Gaussian, TintedSquare, tinted_model, tiny_model
from energycomp_samplers import blur, observe, operators, pool
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.operators import Pair, solve
from energycomp_samplers.smc import SMC
from energycomp_samplers.spread import Spread, measure_spreads

SHAPE = (1, 4, 4)
SIZE = 16
RANDOM = torch.randn(5, SIZE, generator=seeded(1)) / 2
LEFT = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(4, 4)
KERNEL = torch.tensor([[0.0, 0.1, 0.0], [0.3, 0.4, 0.1], [0.0, 0.1, 0.0]])
WIDTHS = torch.linspace(0.2, 0.8, SIZE).reshape(SHAPE)


def seen(z: Tensor) -> Tensor:
    return z.flatten(1) @ RANDOM.T


class Seen(torch.nn.Module):
    """The same as a module, such as a classifier."""

    def forward(self, z: Tensor) -> Tensor:
        return seen(z)


def pulled(w: Tensor) -> Tensor:
    return (w @ RANDOM).reshape(-1, *SHAPE)


def posterior(prior: Gaussian, observations: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) in closed form, by the matrices of the operators."""
    shape = prior.noised_space.sample_shape
    size = math.prod(shape)
    precision = torch.diag(1.0 / torch.as_tensor(prior.variance).double().expand(shape).flatten())
    h = precision @ torch.full((size,), float(prior.mean), dtype=torch.float64)
    for one in observations:
        see = getattr(one.operator, "forward", one.operator)
        a = see(torch.eye(size).reshape(size, *shape)).flatten(1).double().T
        weight = 1.0 / one.std.double().flatten().square()
        h = h + a.T @ (weight * one.y.double().flatten())
        precision = precision + a.T * weight @ a
    covariance = torch.linalg.inv(precision)
    return covariance @ h, covariance


def values(*shape: int) -> Tensor:
    return torch.linspace(-1.0, 1.5, math.prod(shape)).reshape(shape)


def wide(variance: Any = 0.5) -> Gaussian:
    return Gaussian(0.3, variance, sample_shape=SHAPE)


CASES: dict[str, tuple[Any, list[Any]]] = {
    "one number": (Gaussian(-0.2, 0.6), [observe(torch.ones(1, 1, 1), torch.ones(1, 1, 1), 0.3)]),
    "mask": (wide(), [observe(LEFT, values(*SHAPE), 0.3)]),
    "mask, widths": (wide(WIDTHS), [observe(LEFT, values(*SHAPE), 0.05)]),
    "pool": (wide(), [observe(pool(2), values(1, 2, 2), 0.1)]),
    "pool, given widths": (wide(WIDTHS), [observe(pool(2), values(1, 2, 2), 0.1, variance=WIDTHS)]),
    "blur": (wide(), [observe(blur(KERNEL), values(*SHAPE), 0.2)]),
    "blur, given": (wide(), [observe(blur(KERNEL), values(*SHAPE), 0.2, variance=0.5)]),
    "pair": (wide(WIDTHS), [observe((seen, pulled), values(5), 0.1)]),
    "function": (wide(), [observe(seen, values(5), torch.linspace(0.1, 0.5, 5))]),
    "module": (wide(), [observe(Seen(), values(5), 0.1)]),
    "two": (wide(), [observe((seen, pulled), values(5), 0.1), observe(LEFT, values(*SHAPE), 0.3)]),
}


def composed(prior: Any, observations: Sequence[Any]) -> Any:
    for one in observations:
        prior = prior & one
    return prior


@pytest.mark.parametrize("name", CASES)
def test_samples_of_gauss_are_those_of_the_exact_posterior(drawn: Any, expect_normal: Any, name: str) -> None:
    prior, observations = CASES[name]
    x, report = drawn(composed(prior, observations), Gauss(last="draw"), 2000, 4)
    expect_normal(x, *posterior(prior, observations))
    assert report.warnings == ()


@pytest.mark.parametrize("name", CASES)
def test_the_prediction_is_the_exact_conditional_mean(name: str) -> None:
    prior, observations = CASES[name]
    x = torch.randn(3, *prior.sample_shape, generator=seeded(2))
    timestep = torch.tensor([100.0, 400.0, 800.0])
    found = predict(composed(prior, observations), x, timestep, prediction_type="sample")
    for one, t, result in zip(x, timestep, found, strict=True):
        # x_t is an observation of z, too.
        signal, noise = (float(level) for level in prior.noised_space.levels(t[None]))
        itself = observe(torch.ones(prior.sample_shape), one / signal, noise / signal)
        mean, _ = posterior(prior, [*observations, itself])
        assert torch.allclose(result.flatten().double(), mean, atol=2e-3)


def test_smc_samples_the_exact_posterior(drawn: Any) -> None:
    prior, observations = CASES["mask"]
    x, report = drawn(composed(prior, observations), SMC(), 2000, 40)
    mean, covariance = posterior(prior, observations)
    error = x.flatten(1).double().mean(0) - mean
    assert float(report.ancestors * (error @ torch.linalg.inv(covariance) @ error)) < SIZE + 3.0 * (2.0 * SIZE) ** 0.5
    assert torch.allclose(torch.cov(x.flatten(1).double().T), covariance, atol=0.07)


@pytest.mark.parametrize(
    ("f", "y"), [(lambda z: z, 0.3), (lambda z: z, 1.0), (lambda z: z + 0.3 * z**3, 0.4)], ids=["0.3", "1.0", "cubic"]
)
def test_smc_corrects_an_observation_of_a_mixture(drawn: Any, f: Callable[[Tensor], Tensor], y: float) -> None:
    """Two modes, by quadrature."""
    prior = Mixture([Gaussian(-1.0, 0.1), Gaussian(1.0, 0.1)], torch.tensor([0.7, 0.3]).log())
    z = torch.linspace(-4.0, 4.0, 2001, dtype=torch.float64)
    density = 0.7 * torch.exp(-((z + 1) ** 2) / 0.2) + 0.3 * torch.exp(-((z - 1) ** 2) / 0.2)
    density *= torch.exp(-((y - f(z)) ** 2) / (2 * 0.5**2))
    density /= density.sum()
    mean = float((density * z).sum())
    variance = float((density * (z - mean) ** 2).sum())
    x, report = drawn(prior & observe(f, torch.full((1, 1, 1), y), 0.5), SMC(), 2000, 60)
    assert float(x.mean()) == pytest.approx(mean, abs=3.0 * (variance / report.ancestors) ** 0.5)
    assert float(x.var()) == pytest.approx(variance, rel=0.15)


def test_images_are_observed_in_the_units_of_pt(drawn: Any) -> None:
    prior = Gaussian(0.2, 0.01, sample_shape=SHAPE, value_range=(-1.0, 1.0))
    scene = prior & observe(pool(2), torch.full((1, 2, 2), 0.65), 0.02)
    x, _ = drawn(scene, "gauss", 500, 5, output_type="pt")
    # In [0, 1]: N(0.6, 0.0025), whose means of four have the variance 0.0025 / 4.
    share = (0.0025 / 4) / (0.0025 / 4 + 0.02**2)
    assert float(x.mean()) == pytest.approx(0.6 + 0.05 * share, abs=0.002)


@attrs.frozen(eq=False)
class Decoded:
    """The group of a component whose data are 2 z + 1."""

    leaf: Any
    prediction_type = "epsilon"
    rule = None
    device = None

    def predict(self, leaves: Sequence[Any], sample: Tensor, timestep: Tensor) -> list[Tensor]:
        return [self.leaf.eps(sample, timestep) for _ in leaves]

    def decode(self, samples: Tensor) -> Tensor:
        return 2.0 * samples + 1.0


@attrs.frozen(eq=False)
class Latent(Gaussian):
    @property
    def group(self) -> Decoded:
        return Decoded(Gaussian(self.mean, self.variance, sample_shape=self.sample_shape))


def test_latents_are_observed_through_their_codec(drawn: Any, expect_normal: Any) -> None:
    prior, first = Latent(0.3, 0.5, sample_shape=(3,)), torch.tensor([1, 0, 0])
    x, _ = drawn(prior & observe(first, 2.2 * first, 0.4), Gauss(last="draw"), 2000, 4)
    expect_normal(x, *posterior(Gaussian(0.3, 0.5, sample_shape=(3,)), [observe(first, 0.6 * first, 0.2)]))


def test_the_order_of_components_and_observations_does_not_matter(drawn: Any, expect_normal: Any) -> None:
    u = Gaussian(0.0, 1.0, sample_shape=SHAPE, unconditional="self")
    a, b = (Gaussian(m, 0.4, sample_shape=SHAPE, unconditional=u) for m in (0.5, -0.3))
    one, two = observe(LEFT, values(*SHAPE), 0.3), observe(pool(2), values(1, 2, 2), 0.1)
    x, t = torch.ones(2, *SHAPE), torch.full((2,), 500.0)
    wanted = predict(a & b & one & two, x, t)
    for other in (
        a & one & b & two,
        (a & one) & (b & two),
        two & (one & (a & b)),
        Composer(a & b) & one & two,
        a & (one & b & two),
        Composer(a) & (b & one) & two,
        combine([a, one & b & two], "product"),
        Composer(a & one) & two & b,
    ):
        assert torch.allclose(predict(other, x, t), wanted, atol=1e-4)
    # A product under an observation: exact, by "gauss". a b / u is N(0.125, 0.25).
    x, _ = drawn(a & one & b, Gauss(last="draw"), 2000, 4)
    expect_normal(x, *posterior(Gaussian(0.125, 0.25, sample_shape=SHAPE), [one]))


def test_a_pair_is_solved_as_its_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blur that loses nearly all of some directions, and little noise."""
    given = blur(torch.full((5, 5), 1 / 25))
    v = given.forward(torch.rand(1, 1, 24, 24, generator=seeded(0))) - 0.5
    how: Any = (Spread(torch.tensor([4.0])).covariance(torch.ones(1)), torch.full_like(v, 1e-6), v)
    found, wanted = (one.adjoint(solve(one, *how)) for one in (Pair(given.forward, given.adjoint), given))
    assert float((found - wanted).norm()) < 1e-3 * float(wanted.norm())
    monkeypatch.setattr(operators, "STEPS", 20)
    with pytest.warns(EnergycompWarning, match="conjugate gradients of an observation left .* after 20 steps"):
        solve(Pair(given.forward, given.adjoint), *how)


def test_operators_do_not_run_in_the_precision_of_networks() -> None:
    scene = wide() & observe((seen, pulled), values(5), 0.02)
    x, t = torch.ones(1, *SHAPE), torch.tensor([300.0])
    wanted = predict(scene, x, t)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(predict(scene, x, t), wanted)


def test_an_observation_costs_what_it_measures_once(drawn: Any) -> None:
    scene = Gaussian(0.3, 0.5, sample_shape=(1, 8, 8)) & observe(pool(2), values(1, 4, 4), 0.1)
    costs = [drawn(scene, sampler, 3, 5)[1].evaluations for sampler in ("gauss", "gauss", None)]
    assert costs == [3 * 5 + 16, 3 * 5, 3 * 5]


def test_a_network_is_observed_whatever_the_sampler(drawn: Any) -> None:
    model = tiny_model()
    scene = model(0.3, 0.3) & model(0.7, 0.6) & observe(pool(4), torch.full((3, 4, 4), 0.8), 0.01, variance=0.3)
    for sampler in (None, "gauss", "smc"):
        x, _ = drawn(scene, sampler, 2, 4, output_type="pt")
        assert x.shape == (2, 3, 16, 16)
        assert float((pool(4).forward(x) - 0.8).abs().mean()) < 0.1  # 0.3 without the observation


T = torch.tensor([500.0])


def scene(operator: Any, *shape: int, y: Tensor | None = None) -> Tensor:
    """The prediction of wide() under an observation, which is looked at with it."""
    return predict(wide() & observe(operator, values(*shape) if y is None else y, 0.1), torch.zeros(1, *SHAPE), T)


def test_nan_that_was_not_seen_is_left_out(drawn: Any) -> None:
    y = torch.where(LEFT > 0, 0.5, math.nan).reshape(SHAPE)
    assert bool(scene(LEFT, y=y).isfinite().all())
    x, _ = drawn(Gaussian(0.2, 0.01, sample_shape=SHAPE) & observe(LEFT, y, 0.01), "gauss", 2, 3)
    assert bool(x.isfinite().all())


def of_network() -> Tensor:
    seen = tiny_model()(0.3, 0.3) & observe(pool(4), torch.full((3, 4, 4), 0.8), 0.05)
    return predict(seen, torch.zeros(1, 3, 16, 16), T)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "std 0": (lambda: observe(LEFT, values(*SHAPE), 0.0), "got std=0; expected numbers above 0"),
    "std below 0": (lambda: observe(LEFT, values(*SHAPE), torch.tensor(-1.0)), "got std=-1"),
    "std of another shape": (lambda: observe(LEFT, values(*SHAPE), torch.ones(7)), r"got std of shape \(7,\)"),
    "NaN": (lambda: observe(pool(2), torch.tensor([math.nan]), 0.1), "got y with 1 numbers that are NaN"),
    "NaN that was seen": (lambda: observe(LEFT, torch.full(SHAPE, math.nan), 0.1), "got y with 8 numbers"),
    "no mask": (lambda: observe(LEFT * 2, values(*SHAPE), 0.1), "got a tensor that is no mask"),
    "mask of another shape": (lambda: observe(LEFT, values(3), 0.1), r"got a mask of shape \(4, 4\) for y"),
    "no operator": (lambda: observe(3, values(3), 0.1), "got the operator 3; expected a mask"),
    "no variance": (lambda: observe(LEFT, values(*SHAPE), 0.1, variance=0.0), "got variance=0;"),
    "no kernel": (lambda: blur(torch.ones(3)), "got the kernel"),
    "blocks": (lambda: scene(pool(3), 1, 2, 2), "got blocks of 3 x 3"),
    "kernel too large": (lambda: scene(blur(torch.ones(5, 5)), *SHAPE), "kernel of 5 x 5"),
    "y of another shape": (lambda: scene(pool(2), 3), r"got y of shape \(3,\), where"),
    "sample of another shape": (
        lambda: scene(torch.ones(1, 5, 5), 1, 5, 5),
        r"got an operator that fails for samples of shape \(1, 1, 4, 4\)",
    ),
    "not linear": (lambda: scene((lambda z: z**2, lambda w: w), *SHAPE), "A is not linear"),
    "affine": (lambda: scene((lambda z: z + 1, lambda w: w), *SHAPE), "A is not linear"),
    "not the adjoint": (lambda: scene((seen, lambda w: -pulled(w)), 5), "A' is the adjoint"),
    "two variances": (
        lambda: (
            wide()
            & observe(LEFT, values(*SHAPE), 0.1, variance=0.5)
            & observe(pool(4), values(1, 1, 1), 0.1, variance=0.2)
        ),
        "variances of the same samples that differ",
    ),
    "adjoint of another shape": (lambda: scene((seen, lambda w: w), 5), "got A' that returns"),
    "no gradient": (lambda: scene(lambda z: z.detach(), *SHAPE), "got an operator without a gradient"),
    "no covariance": (of_network, r"tiny\(0.3, 0.3\) has no covariance.*; give observe"),
}


IMAGE = values(*SHAPE)
DOORS: dict[str, tuple[Callable[[], Any], str]] = {
    "y of 1e20": (
        lambda: observe(LEFT, IMAGE + 1e20, 0.1),
        r"got y with numbers up to 1e\+20; expected at most 1e\+12",
    ),
    "complex y": (lambda: observe(LEFT, IMAGE + 1j, 0.1), "got y of complex numbers; expected real ones; stack"),
    "uint8 y": (lambda: observe(LEFT, IMAGE.to(torch.uint8), 0.1), "got y of uint8; expected floats; divide images by"),
    "y a word": (lambda: observe(LEFT, "abc", 0.1), "got y of type str .*; expected real numbers; give what was"),
    "std a word": (lambda: observe(LEFT, IMAGE, "a"), "got std of type str .*; expected real numbers; give the noise"),
    "variance a word": (lambda: observe(LEFT, IMAGE, 0.1, variance="a"), "got variance of type str"),
    "variance infinite": (lambda: observe(LEFT, IMAGE, 0.1, variance=math.inf), "got variance=inf"),
    "variance of another shape": (
        lambda: Composer(wide() & observe(LEFT, IMAGE, 0.1, variance=torch.ones(7))).sample(
            sampler="gauss", num_inference_steps=1, progress=False
        ),
        r"got a variance of shape \(7,\) for samples of shape \(1, 4, 4\); expected one number, or one for each",
    ),
    "complex mask": (lambda: observe(LEFT + 1j, IMAGE, 0.1), "got a mask of complex numbers"),
    "complex kernel": (lambda: blur(KERNEL + 1j), "got the kernel torch.complex64"),
    "complex operator": (lambda: scene(lambda z: z * 1j, *SHAPE), "got an operator of complex numbers; expected real"),
    "NaN operator": (lambda: scene(lambda z: z * math.nan, *SHAPE), "gives 16 numbers that are NaN or infinite"),
    "NaN adjoint": (lambda: scene((lambda z: z, lambda w: w * math.nan), *SHAPE), "got A' whose results are complex"),
    "no tensor": (lambda: scene(lambda z: 3, *SHAPE), "got an operator that returns"),
    "random numbers": (
        lambda: scene(lambda z: z + torch.randn_like(z), *SHAPE),
        "got an operator that gives other numbers each time; expected the same ones; draw them once",
    ),
    "per sample": (
        lambda: Composer(per_sample([wide(), wide(0.3)]) & observe(LEFT, IMAGE, 0.1)).sample(
            2, num_inference_steps=1, progress=False
        ),
        r"one composition for each sample; expected each with its own; give per_sample\(\[a & seen, b & seen\]\)",
    ),
}


@pytest.mark.parametrize(("make", "message"), (BAD | DOORS).values(), ids=BAD | DOORS)
def test_what_cannot_be_is_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as found:
        make()
    assert "\n" not in str(found.value)


def test_guidance_weighs_the_components_and_not_the_observation(drawn: Any, expect_normal: Any) -> None:
    u = Gaussian(0.0, 1.0, sample_shape=SHAPE, unconditional="self")
    a, one = Gaussian(0.5, 0.4, sample_shape=SHAPE, unconditional=u), observe(LEFT, values(*SHAPE), 0.3)
    x, _ = drawn(a & one, Gauss(last="draw"), 2000, 4, guidance_scale=2.0)
    expect_normal(x, *posterior(Gaussian(0.625, 0.25, sample_shape=SHAPE), [one]))  # a^2 / u
    u = Gaussian(0.0, 1.0, unconditional="self")
    narrow = Gaussian(1.0, 0.25, unconditional=u) & observe(torch.ones(1, 1, 1), torch.full((1, 1, 1), 2.0), 0.2)
    x, _ = drawn(narrow, None, 1000, guidance_scale=2.0)
    assert abs(float(x.mean()) - 58 / 32) < 0.05  # N(8 / 7, 1 / 7), and what is seen has the precision 25
    with pytest.raises(CompositionError, match=r"with the weight -1.0; expected one above 0"):
        drawn(~(a & one), "gauss", 2)


class Tints(TintedSquare):
    """A prior that draws tints that are open, in what is observed, too."""

    def prepare(self, composition: Composition, n: int, generators: Any) -> Composition:
        terms: list[Any] = []
        for leaf, weight in composition.terms.items():
            if compositions_in(leaf):
                terms.append((leaf.remade([self.prepare(part, n, generators) for part in leaf.compositions]), weight))
            elif leaf.values is None:
                terms.append((leaf, weight))
            else:
                tints = torch.randint(1, 4, (n,), generator=generators[0]).float()
                values = leaf.values.repeat(n, 1)
                values[:, 2] = torch.where(values[:, 2] == 0, tints, values[:, 2])
                terms.append((attrs.evolve(leaf, condition=self(values), values=values), weight))
        return Composition(terms)


@pytest.mark.parametrize("options", [{}, {"sampler": "gauss", "guidance": "attributes"}])
def test_guidance_and_priors_of_components_hold_under_an_observation(options: dict[str, Any]) -> None:
    """Where nothing was seen, samples are those of the components, as their model is sampled."""
    model = tinted_model(attribute_guidance=2.5, scheduler="DDPMScheduler", num_inference_steps=6)
    scene = model(0.2, 0.3, tint="red") & model(0.7, 0.8)
    blind = observe(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16), 1.0, variance=1e-4)
    given = {"generator": 0, "output_type": "latent", "progress": False, "prior": Tints(), **options}
    x, wanted = (Composer(one).sample(3, **given) for one in (scene & blind, scene))
    assert torch.allclose(x, wanted, atol=0.05)
    for other in ({"prior": False}, {"guidance": "attributes", "guidance_scale": 1.0}):
        assert not torch.allclose(x, Composer(scene).sample(3, **given | other), atol=0.2)


def test_the_variance_of_conditions_that_differ_is_that_of_the_first() -> None:
    model = tiny_model()
    places = torch.tensor([[0.2, 0.3], [0.7, 0.8], [0.5, 0.5]])
    several, one = (model.leaf(each, name="a") for each in (places, places[:1]))
    assert measure_spreads(Target(several))[0].problem == measure_spreads(Target(one))[0].problem


def test_conditions_of_each_sample_are_those_of_the_samples_that_are_observed() -> None:
    model = tiny_model()
    several = model.leaf(torch.tensor([[0.1, 0.2], [0.9, 0.7]]))
    blind = observe(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16), 1.0, variance=1e-4)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.full((4,), 500.0)
    first, second = (predict(Composer(one), x, t) for one in (model(0.5, 0.5), several & blind))
    found = predict(per_sample([model(0.5, 0.5), several & blind]), x, t)
    assert torch.allclose(found[::2], first[::2], atol=1e-4)
    assert torch.allclose(found[1::2], second[1::2], atol=1e-4)
