"""Separation: exact for Gaussian sources, mixtures by quadrature, the count by brute force, and what is refused."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp.components import Mixture
from energycomp.errors import EnergycompWarning, InputError
from energycomp.testing import Gaussian, tiny_model
from energycomp_samplers import blur, pool, separate
from energycomp_samplers.blend import MANY_SETS

SHAPE = (1, 4, 4)
SIZE = 16
RANDOM = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(1)) / 2
WIDTHS = torch.linspace(0.2, 0.8, SIZE).reshape(SHAPE)
LEFT = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(4, 4)
KERNEL = torch.tensor([[0.0, 0.1, 0.0], [0.3, 0.4, 0.1], [0.0, 0.1, 0.0]])
FEW: dict[str, Any] = {"generator": 0, "progress": False, "num_inference_steps": 3}


def random_pair(z: Tensor) -> Tensor:
    return z.flatten(1) @ RANDOM.T


def pulled(w: Tensor) -> Tensor:
    return (w @ RANDOM).reshape(-1, *SHAPE)


def ramp(*shape: int) -> Tensor:
    return torch.linspace(-1.0, 1.5, math.prod(shape)).reshape(shape)


def matrix(operator: Any) -> Tensor:
    """A (seen, D) of an operator."""
    eye = torch.eye(SIZE).reshape(SIZE, *SHAPE)
    if operator is None or isinstance(operator, float | Tensor):
        return (eye * (1.0 if operator is None else operator)).flatten(1).double().T
    see = operator[0] if isinstance(operator, tuple) else operator.forward
    return see(eye).flatten(1).double().T


def posterior(sources: Sequence[Gaussian], operators: Sequence[Any], y: Tensor, std: Any) -> tuple[Tensor, Tensor]:
    """Mean (K D,) and covariance of all sources in closed form."""
    a = torch.cat([matrix(one) for one in operators], dim=1)
    prior = torch.cat([torch.as_tensor(one.variance).double().expand(SHAPE).flatten() for one in sources])
    mean = torch.cat([torch.full((SIZE,), float(one.mean)).double() for one in sources])
    r = torch.as_tensor(std).double().expand(y.shape).flatten().square()
    gain = prior[:, None] * a.T @ torch.linalg.inv(a * prior @ a.T + torch.diag(r))
    return mean + gain @ (y.flatten().double() - a @ mean), torch.diag(prior) - gain @ a * prior


CASES: dict[str, tuple[Any, Tensor, Any, Any]] = {
    "as they are": ([None, None], ramp(*SHAPE), 0.3, None),
    "given variances": ([None, None], ramp(*SHAPE), 0.3, [WIDTHS, 0.4]),
    "brightness and mask": ([0.5, LEFT], ramp(*SHAPE), torch.linspace(0.1, 0.5, SIZE).reshape(SHAPE), None),
    "blurred": ([blur(KERNEL), None], ramp(*SHAPE), 0.2, None),
    "pooled": ([pool(2), pool(2)], ramp(1, 2, 2), 0.1, None),
    "pair": ([(random_pair, pulled), (lambda z: -random_pair(z), lambda w: -pulled(w))], ramp(5), 0.1, None),
}


@pytest.mark.parametrize("name", CASES)
def test_gaussian_sources_are_exact(expect_normal: Any, name: str) -> None:
    """In three steps, of all sources together."""
    operators, y, noise, covariances = CASES[name]
    sources = [Gaussian(0.3, WIDTHS, sample_shape=SHAPE, name="a"), Gaussian(-0.4, 0.4, sample_shape=SHAPE, name="b")]
    found = separate(y, sources, noise=noise, operators=operators, covariances=covariances, n=1500, **FEW)
    expect_normal(found.samples, *posterior(sources, operators, y, noise))
    assert found.names == ("a", "b")
    assert found.warnings == ()


def counted(kinds: Sequence[Gaussian], y: Tensor, std: float, prior: dict[int, float]) -> dict[int, float]:
    """The posterior of the count, over all ordered sources, in closed form."""
    found = {}
    for count, p in prior.items():
        total = 0.0
        for chosen in itertools.product(kinds, repeat=count):
            middle = sum(float(one.mean) for one in chosen)
            variance = sum(float(one.variance) for one in chosen) + std**2
            log_density = -0.5 * ((y - middle).square() / variance + math.log(2 * math.pi * variance)).sum()
            total += math.exp(float(log_density)) / len(kinds) ** count
        found[count] = p * total
    return {count: value / sum(found.values()) for count, value in found.items()}


@pytest.mark.parametrize(("number", "highest"), [(1, 4), (2, 3), (4, 3)])
def test_the_posterior_of_the_count_is_that_of_brute_force(number: int, highest: int) -> None:
    kinds = [Gaussian(0.5 + k, 0.05 + 0.02 * k, sample_shape=(2,), name=str(k)) for k in range(number)]
    prior = {count: float(count) for count in range(1, highest + 1)}
    y = torch.tensor([1.6, 1.9])
    found = separate(y, kinds, noise=0.2, count=prior, n=20, **FEW)
    wanted = counted(kinds, y, 0.2, prior)
    assert found.counts == pytest.approx(wanted, abs=1e-3)
    assert found.count == max(wanted, key=lambda count: wanted[count])
    # Of many sets, those without a chance are not tried, which changes nothing.
    sets = sum(math.comb(number + count - 1, count) for count in prior)
    assert (len(found.explanations) < sets) == (sets > MANY_SETS)
    assert sum(one.probability for one in found.explanations) == pytest.approx(1.0)


def test_each_source_at_most_once() -> None:
    """Candidates at places of their own: the posterior of all subsets by brute force, and draws stay at their place."""
    y, std = torch.tensor([1.0, 0.1, 1.2]), 0.3
    sees = [torch.eye(3)[[place]] for place in range(3)]
    places = [(lambda z, m=m: z @ m, lambda w, m=m: w @ m.T) for m in sees]
    kinds = [Gaussian(0.8, 0.2, sample_shape=(1,), name=str(k)) for k in range(3)]
    found = separate(y, kinds, noise=std, count=(1, 3), repeats=False, operators=places, n=200, **FEW)
    wanted: dict[tuple[str, ...], float] = {}
    for count in (1, 2, 3):
        for chosen in itertools.combinations(range(3), count):
            middle = torch.tensor([0.8 if k in chosen else 0.0 for k in range(3)])
            variance = torch.tensor([0.2 if k in chosen else 0.0 for k in range(3)]) + std**2
            log_density = -0.5 * ((y - middle).square() / variance + variance.log()).sum()
            wanted[tuple(map(str, chosen))] = math.exp(float(log_density)) / 3 / math.comb(3, count)
    probabilities = {one.names: one.probability for one in found.explanations}
    assert probabilities == pytest.approx({names: p / sum(wanted.values()) for names, p in wanted.items()}, abs=1e-3)
    # Draws of the most probable count: the sure source at place 2 is the same one in nearly all draws.
    assert found.count == 2
    assert float((found.kinds == found.kinds.mode(dim=0).values).float().mean()) > 0.8


@pytest.mark.parametrize("y", [0.4, 2.0])
def test_mixtures_are_those_of_quadrature(y: float) -> None:
    """Evidence of one and of two sources of two modes, and the mean of the larger one of two."""
    source = Mixture([Gaussian(-1.0, 0.1), Gaussian(1.0, 0.1)], torch.tensor([0.7, 0.3]).log())
    z = torch.linspace(-4.0, 4.0, 801, dtype=torch.float64)
    p = 0.7 * torch.exp(-((z + 1) ** 2) / 0.2) + 0.3 * torch.exp(-((z - 1) ** 2) / 0.2)
    p /= p.sum()
    scale = 0.3 * (2 * math.pi) ** 0.5
    one = p * torch.exp(-((y - z) ** 2) / (2 * 0.3**2)) / scale
    two = p[:, None] * p * torch.exp(-((y - z[:, None] - z) ** 2) / (2 * 0.3**2)) / scale
    largest = float((two * torch.maximum(z[:, None], z)).sum() / two.sum())
    options = FEW | {"num_inference_steps": 40}
    found = separate(torch.full((1, 1, 1), y), [source], noise=0.3, count=(1, 2), n=500, **options)
    logs = {len(each.names): each.log_evidence for each in found.explanations}
    assert logs[1] == pytest.approx(math.log(one.sum()), abs=0.12)
    assert logs[2] == pytest.approx(math.log(two.sum()), abs=0.12)
    assert found.count == 2
    ancestors = found.report.ancestors
    assert ancestors is not None
    assert float(found.samples.amax(1).mean()) == pytest.approx(largest, abs=0.06)
    assert found.report.evaluations >= 500 * 3 * 40


def test_images_add_up_in_the_units_of_pt() -> None:
    options: dict[str, Any] = {"sample_shape": SHAPE, "value_range": (-1.0, 1.0)}
    sources = [Gaussian(-0.6, 0.01, name="a", **options), Gaussian(0.2, 0.03, name="b", **options)]
    # In [0, 1]: N(0.2, 0.0025) and N(0.6, 0.0075), of which the excess 0.1 goes to the less sure one.
    found = separate(torch.full(SHAPE, 0.9), sources, noise=0.01, n=500, **FEW)
    assert found.mean.flatten(1).mean(1).tolist() == pytest.approx([0.225, 0.675], abs=0.004)
    assert float(found.residual.abs().max()) < 0.005
    low, high = found.interval(0.9, lambda z: z.flatten(1).sum(1))
    assert low.shape == (2,)
    # The flux: 16 pixels of variance 0.0025 * 0.0075 / 0.01.
    assert (high - low).tolist() == pytest.approx([2 * 1.645 * (16 * 0.001875) ** 0.5] * 2, rel=0.1)


@pytest.mark.parametrize("value_range", [None, (-1.0, 1.0)])
def test_the_evidence_is_a_density_of_y_in_its_own_units(value_range: Any) -> None:
    source = Gaussian(0.2, 0.04, sample_shape=SHAPE, value_range=value_range)
    y = torch.full(SHAPE, 0.5)
    # Images of N(0.2, 0.04) in [-1, 1] are N(0.6, 0.01) in [0, 1]
    mean, variance = (0.2, 0.04) if value_range is None else (0.6, 0.01)
    wanted = torch.distributions.Normal(mean, (variance + 0.1**2) ** 0.5).log_prob(y).sum()
    found = separate(y, [source], noise=0.1, count=(1, 2), n=20, **FEW)
    logs = {len(each.names): each.log_evidence for each in found.explanations}
    assert logs[1] == pytest.approx(float(wanted), abs=0.01)


def light(u: Tensor) -> Tensor:
    return torch.exp(u) - 1.0


@pytest.mark.parametrize("bright", [0.5, 2.5])
def test_sources_that_add_up_after_a_function_are_those_of_quadrature(bright: float) -> None:
    """Light in log units, of one source and of two: means, and the evidence."""
    a, b = Gaussian(bright, 0.3, name="a"), Gaussian(0.4, 0.1, name="b")
    z = torch.linspace(-3.0, 6.0, 1801, dtype=torch.float64)
    p, q = (torch.exp(-((z - one.mean) ** 2) / (2 * one.variance)) for one in (a, b))
    y = float(light(torch.tensor(bright + 0.3)) + light(torch.tensor(0.5)))
    noise = 0.05 * y
    likelihood = torch.exp(-((y - light(z)[:, None] - light(z)) ** 2) / (2 * noise**2)) / (noise * (2 * math.pi) ** 0.5)
    joint = likelihood * (p / p.sum())[:, None] * (q / q.sum())
    wanted = [float((joint.sum(1 - k) * z).sum() / joint.sum()) for k in (0, 1)]
    options = FEW | {"num_inference_steps": 20, "n": 1000}
    found = separate(
        torch.full((1, 1, 1), y), [a, b], noise=noise, operators=light, count={2: 1.0}, repeats=False, **options
    )
    assert found.mean.flatten().tolist() == pytest.approx(wanted, abs=0.03)
    assert found.warnings == ()
    assert found.explanations[0].names == ("a", "b")


def test_intervals_of_sources_in_log_units_cover_what_they_say() -> None:
    """An operator for each source: light of one, and of the other in magnitudes."""
    a, b = Gaussian(1.5, 0.2, sample_shape=(16,)), Gaussian(-1.0, 0.1, sample_shape=(16,))
    operators = [light, lambda m: 10 ** (-0.4 * m)]
    random = torch.Generator().manual_seed(0)
    inside = []
    for _ in range(5):
        noise = torch.randn(3, 16, generator=random)
        z = torch.stack([1.5 + 0.2**0.5 * noise[0], -1.0 + 0.1**0.5 * noise[1]])
        y = operators[0](z[0]) + operators[1](z[1]) + 0.05 * noise[2]
        found = separate(y, [a, b], noise=0.05, operators=operators, n=99, **FEW | {"num_inference_steps": 10})
        assert found.warnings == ()
        low, high = found.interval(0.9)
        inside.append(((low <= z) & (z <= high)).float().mean())
    assert float(torch.stack(inside).mean()) == pytest.approx(0.9, abs=3 * (0.09 / 160) ** 0.5)


def test_few_draws_have_no_wide_interval() -> None:
    found = separate(torch.zeros(1), [Gaussian(sample_shape=(1,))] * 2, noise=0.3, n=4, **FEW)
    with pytest.warns(EnergycompWarning, match=r"interval\(0.9\) of 4 draws, .* 60% is; draw at least 19"):
        found.interval(0.9)
    assert found.interval(0.6)[0].equal(found.samples.amin(0))


def test_sources_that_could_change_places_are_in_one_order() -> None:
    source = Mixture([Gaussian(-1.0, 0.02), Gaussian(1.0, 0.02)])
    found = separate(torch.zeros(1, 1, 1), [source], noise=0.1, count=2, n=50, **FEW | {"num_inference_steps": 20})
    first, second = found.samples.flatten(1).T
    assert bool((first > 0).all()), "the larger one is the first"
    assert bool((second < 0).all())
    # Sources of different kinds keep theirs, however alike.
    a, b = Gaussian(0.0, 1.0, name="a"), Gaussian(0.5, 1.0, name="b")
    found = separate(torch.ones(1, 1, 1), [a, b, a], noise=0.1, n=20, **FEW)
    assert found.names == ("a", "b", "a")
    assert bool((found.kinds == found.kinds[0]).all())


def test_draws_that_are_sorted_cover_truths_that_are_sorted() -> None:
    """Draws are in the order of their mean, in which 0.9 of a sorted truth would not be inside."""
    source = Gaussian(0.5, 0.1, sample_shape=(4,))
    random = torch.Generator().manual_seed(0)
    inside = []
    for k in range(80):
        z = 0.5 + 0.1**0.5 * torch.randn(2, 4, generator=random)
        y = z.sum(0) + 0.1 * torch.randn(4, generator=random)
        found = separate(y, [source], noise=0.1, count=2, n=39, **FEW | {"generator": k})
        truth = z.sum(1).sort(descending=True).values
        flux = found.samples.flatten(2).sum(2).sort(1, descending=True).values
        low, high = attrs.evolve(found, samples=flux).interval(0.9)
        inside.append(((low <= truth) & (truth <= high)).float())
        assert float(found.mean[0].sum()) >= float(found.mean[1].sum())
    assert float(torch.stack(inside).mean()) == pytest.approx(0.9, abs=3 * (0.09 / 160) ** 0.5)


def test_a_network_is_a_source_and_many_draws_are_alike() -> None:
    model = tiny_model()
    sources = [model(0.3, 0.3), model(0.7, 0.6)]
    image = torch.full((3, 16, 16), 0.9)
    options = FEW | {"n": 3, "noise": 0.05, "covariances": 0.3}
    with pytest.warns(EnergycompWarning):
        found = separate(image, sources, **options)
    assert found.samples.shape == (3, 2, 3, 16, 16)
    assert float((found.samples.sum(1) - image).abs().mean()) < 0.1
    assert found.report.evaluations == 3 * 2 * 3


def test_the_residual_is_what_the_mean_does_not_explain() -> None:
    """Also where draws are of several sets of sources."""
    kinds = [Gaussian(mean, 0.05, sample_shape=(2,), name=str(mean)) for mean in (0.8, 1.2)]
    y = torch.tensor([2.1, 1.8])
    found = separate(y, kinds, noise=0.3, count=2, n=50, **FEW)
    assert len(found.kinds.sort(1).values.unique(dim=0)) == 3
    assert torch.allclose(found.residual, y - found.mean.sum(0), atol=1e-5)


def test_what_the_sources_do_not_explain_is_said() -> None:
    source = Gaussian(0.5, 0.01, sample_shape=SHAPE)
    y = torch.full(SHAPE, 0.5)
    y[0, 0, 0] = 9.0
    with pytest.warns(EnergycompWarning, match="the squared residual is .* times the noise: other sources, or more"):
        found = separate(y, [source], noise=0.1, n=20, **FEW)
    assert float(found.residual[0, 0, 0]) > 3.0


def wide(**options: Any) -> Gaussian:
    return Gaussian(0.3, 0.5, sample_shape=SHAPE, **options)


Y = ramp(*SHAPE)
# What an operator may not be is in test_observation.py.
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no sources": (lambda: separate(Y, [], noise=0.1), r"got sources=\[\]; expected a list of components"),
    "no list": (lambda: separate(Y, wide(), noise=0.1), "expected a list of components, at least one"),
    "no component": (lambda: separate(Y, ["a"], noise=0.1), r"got sources=\['a'\]"),
    "spaces": (lambda: separate(Y, [wide(), wide(space="other")], noise=0.1), "of different spaces"),
    "noise 0": (lambda: separate(Y, [wide()], noise=0.0), "got noise=0; expected numbers above 0"),
    "noise of another shape": (lambda: separate(Y, [wide()], noise=torch.ones(7)), r"got noise of shape \(7,\)"),
    "NaN": (lambda: separate(Y * math.nan, [wide()], noise=0.1), "got an image with 16 numbers that are NaN"),
    "no image": (lambda: separate("blend.png", [wide()], noise=0.1), "got image of type str"),
    "image of another shape": (lambda: separate(ramp(1, 5, 5), [wide()], noise=0.1), r"an image of shape \(1, 5, 5\)"),
    "pool of another shape": (
        lambda: separate(Y, [wide()], noise=0.1, operators=pool(2)),
        r"where \(1, 2, 2\) is seen",
    ),
    "uint8": (lambda: separate(Y.to(torch.uint8), [wide()], noise=0.1), "got image of uint8"),
    "noise a word": (lambda: separate(Y, [wide()], noise="a"), "got noise of type str"),
    "complex brightness": (lambda: separate(Y, [wide()], noise=0.1, operators=Y + 1j), "got a brightness of complex"),
    "operators": (lambda: separate(Y, [wide()], noise=0.1, operators=[1.0, 2.0]), "got 2 operators for 1 sources"),
    "covariance": (lambda: separate(Y, [wide()], noise=0.1, covariances=torch.ones(3)), r"got covariances=\(3,\)"),
    "variance 0": (lambda: separate(Y, [wide()], noise=0.1, covariances=0.0), "expected variances above 0"),
    "count 0": (lambda: separate(Y, [wide()], noise=0.1, count=0), "got count=0; expected one of 1 to 64"),
    "count 65": (lambda: separate(Y, [wide()], noise=0.1, count=(1, 65)), r"got count=\(1, 65\)"),
    "count backwards": (lambda: separate(Y, [wide()], noise=0.1, count=(3, 2)), r"got count=\(3, 2\)"),
    "count a word": (lambda: separate(Y, [wide()], noise=0.1, count="2"), "got count='2'"),
    "probabilities": (lambda: separate(Y, [wide()], noise=0.1, count={1: -0.5}), r"got count=\{1: -0.5\}"),
    "sets": (lambda: separate(Y, [wide()] * 9, noise=0.1, count=(1, 9)), "which are 48,619 sets of sources"),
    "more than there are": (
        lambda: separate(Y, [wide()] * 2, noise=0.1, count=(1, 3), repeats=False),
        r"got count=\(1, 3\) of 2 sources, each at most once; expected at most 2",
    ),
    "memory": (lambda: separate(Y, [wide()], noise=0.1, count=64, n=10**6), "expected at most 1,073,741,824"),
    "n": (lambda: separate(Y, [wide()], noise=0.1, n=0), "got n=0"),
    "generators": (lambda: separate(Y, [wide()], noise=0.1, generator=[0, 1]), "got 2 generators; expected one"),
    "no covariance": (
        lambda: separate(torch.ones(3, 16, 16), [tiny_model()(0.3, 0.3)], noise=0.1),
        r"has no covariance.*; give separate\(..., covariances=\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_is_one_line(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(InputError, match=message) as found:
        make()
    assert "\n" not in str(found.value)


def test_an_interval_needs_a_probability() -> None:
    found = separate(Y, [wide()], noise=0.1, n=5, **FEW)
    with pytest.raises(InputError, match=r"got interval\(90\); expected a probability"):
        found.interval(90)
