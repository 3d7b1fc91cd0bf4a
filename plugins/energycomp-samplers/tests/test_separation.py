"""Separation: exact for Gaussian sources, mixtures by quadrature, the count by brute force, and what is refused."""

import itertools
import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from energycomp.components import Mixture
from energycomp.errors import EnergycompWarning, InputError
from energycomp.models import save_pretrained
from energycomp.seeds import seeded
from energycomp.testing import Gaussian, tiny_model
from energycomp_samplers import blur, pool, separate
from energycomp_samplers.blend import MANY_SETS

SHAPE = (1, 4, 4)
SIZE = 16
RANDOM = torch.randn(5, SIZE, generator=seeded(1)) / 2
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
    """In three steps: the moments of all sources."""
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


def test_intervals_cover_what_they_say() -> None:
    a, b = Gaussian(0.5, 0.2, sample_shape=(400,)), Gaussian(-0.3, 0.4, sample_shape=(400,))
    random = seeded(0)
    noise = torch.randn(2, 400, generator=random)
    z = torch.stack([0.5 + 0.2**0.5 * noise[0], -0.3 + 0.4**0.5 * noise[1]])
    y = z.sum(0) + 0.3 * torch.randn(400, generator=random)
    low, high = separate(y, [a, b], noise=0.3, n=39, **FEW).interval(0.9)
    inside = float(((low <= z) & (z <= high)).float().mean())
    assert inside == pytest.approx(0.9, abs=3 * (0.09 / 800) ** 0.5)


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


def test_what_the_sources_do_not_explain_is_said() -> None:
    source = Gaussian(0.5, 0.01, sample_shape=SHAPE)
    y = torch.full(SHAPE, 0.5)
    y[0, 0, 0] = 9.0
    with pytest.warns(EnergycompWarning, match="the squared residual is .* times the noise: other sources, or more"):
        found = separate(y, [source], noise=0.1, n=20, **FEW)
    assert float(found.residual[0, 0, 0]) > 3.0


def wide(**options: Any) -> Gaussian:
    return Gaussian(0.3, 0.5, sample_shape=SHAPE, **options)


def of_wide(y: Any = None, *, sources: Any = None, **options: Any) -> Any:
    """What is separated of a picture that has a source of its shape."""
    y = ramp(*SHAPE) if y is None else y
    return separate(y, [wide()] if sources is None else sources, **{"noise": 0.1, **options})


def of_network() -> Any:
    return of_wide(torch.ones(3, 16, 16), sources=[tiny_model()(0.3, 0.3)])


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no sources": (lambda: of_wide(sources=[]), r"got sources=\[\]; expected a list of components"),
    "no list": (lambda: of_wide(sources=wide()), "expected a list of components, at least one"),
    "no component": (lambda: of_wide(sources=["a"]), r"got sources=\['a'\]"),
    "spaces": (lambda: of_wide(sources=[wide(), wide(space="other")]), "of different spaces"),
    "noise 0": (lambda: of_wide(noise=0.0), "got noise=0; expected numbers above 0"),
    "noise of another shape": (lambda: of_wide(noise=torch.ones(7)), r"got noise of shape \(7,\)"),
    "NaN": (lambda: of_wide(ramp(*SHAPE) * math.nan), "got an image with 16 numbers that are NaN"),
    "no image": (lambda: of_wide("blend.png"), "got image=str"),
    "image of another shape": (lambda: of_wide(ramp(1, 5, 5)), r"an image of shape \(1, 5, 5\)"),
    "pool of another shape": (lambda: of_wide(operators=pool(2)), r"where \(1, 2, 2\) is seen"),
    "blocks": (lambda: of_wide(operators=pool(3)), "got blocks of 3 x 3"),
    "a function": (lambda: of_wide(operators=lambda z: z), "expected a linear one"),
    "not linear": (lambda: of_wide(operators=(lambda z: z**2, lambda w: w)), "A is not linear"),
    "operators": (lambda: of_wide(operators=[1.0, 2.0]), "got 2 operators for 1 sources"),
    "covariance": (lambda: of_wide(covariances=torch.ones(3)), r"got covariances=\(3,\)"),
    "variance 0": (lambda: of_wide(covariances=0.0), "expected variances above 0"),
    "count 0": (lambda: of_wide(count=0), "got count=0; expected one of 1 to 64"),
    "count 65": (lambda: of_wide(count=(1, 65)), r"got count=\(1, 65\)"),
    "count backwards": (lambda: of_wide(count=(3, 2)), r"got count=\(3, 2\)"),
    "count a word": (lambda: of_wide(count="2"), "got count='2'"),
    "probabilities": (lambda: of_wide(count={1: -0.5}), r"got count=\{1: -0.5\}"),
    "sets": (lambda: of_wide(sources=[wide()] * 9, count=(1, 9)), "which are 48,619 sets of sources"),
    "more than there are": (
        lambda: of_wide(sources=[wide()] * 2, count=(1, 3), repeats=False),
        r"got count=\(1, 3\) of 2 sources, each at most once; expected at most 2",
    ),
    "memory": (lambda: of_wide(count=64, n=10**6), "expected at most 1,073,741,824"),
    "n": (lambda: of_wide(n=0), "got n=0"),
    "generators": (lambda: of_wide(generator=[0, 1]), "got 2 generators; expected one"),
    "no covariance": (of_network, r"has no covariance.*; give separate\(..., covariances=\)"),
    "interval": (lambda: of_wide(n=5, **FEW).interval(90), r"got interval\(90\); expected a probability"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as found:
        make()
    assert "\n" not in str(found.value)


COMMAND_OPTIONS = ["--steps", "2", "-n", "3", "--variance", "0.3", "--noise", "0.05"]


@pytest.fixture
def in_folder(run: Callable[..., Any]) -> Callable[..., Any]:
    save_pretrained(tiny_model(), "./model")
    Image.new("RGB", (16, 16), (200, 180, 160)).save("both.png")
    return run


def test_sources_are_drawn_beside_each_other(in_folder: Callable[..., Any]) -> None:
    arguments = ["separate", "./model", "both.png", "0.3,0.3", "0.7,0.6", "--brightness", "0.5", *COMMAND_OPTIONS]
    code, out, _ = in_folder(*arguments, "-o", "sources.png", "--json")
    assert code == 0
    report = json.loads(out)
    assert report["count"] == 2
    assert [one["source"] for one in report["sources"]] == ["tiny(0.3, 0.3)", "tiny(0.7, 0.6)"]
    # The two means, at half their brightness, add up to the image.
    assert sum(one["brightness"] for one in report["sources"]) / 2 == pytest.approx(180 / 255, abs=0.03)
    assert report["residual"] < 0.05
    assert report["rows"] == 3 * 2 * 2
    with Image.open("sources.png") as figure:
        assert figure.width > 3 * 192
        assert figure.height > 3 * 192


def test_sources_have_the_shape_of_the_frames_and_the_count_may_be_open(in_folder: Callable[..., Any]) -> None:
    save_pretrained(tiny_model(aspect=1.5), "./wide")
    code, _, _ = in_folder(
        "separate", "./wide", "both.png", "0.3,0.3", "0.7,0.6", *COMMAND_OPTIONS, "-o", "sources.png"
    )
    assert code == 0
    with Image.open("sources.png") as figure:
        assert 3 * 288 < figure.width < 4 * 288
        assert 3 * 192 < figure.height < 4 * 192
    code, out, _ = in_folder("separate", "./model", "both.png", "0.3,0.3", "--count", "1-2", *COMMAND_OPTIONS)
    assert code == 0
    assert "sources; probabilities of counts: 1 (" in out


def test_what_cannot_be_separated_is_refused(in_folder: Callable[..., Any]) -> None:
    for arguments, message in (
        (["0.3,0.3"], "got one source and no --count"),
        (["0.3,0.3", "0.7,0.6", "--noise", "0"], "got noise=0; expected numbers above 0"),
        (["0.3,0.3", "--count", "0-2"], "got count=(0, 2)"),
        (["0.3,none"], "COMPONENT '0.3,none'"),
    ):
        code, out, err = in_folder("separate", "./model", "both.png", *COMMAND_OPTIONS, *arguments)
        assert (code, out) == (2, "")
        assert message in err.splitlines()[-1]
