"""Constraints: SMC against posteriors in closed form and finite mixtures, what is refused, and what it costs."""

import warnings
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.errors import InputError
from energycomp.sampling import SamplingReport
from energycomp.testing import Gaussian, bumps_model, labels_model, planted
from energycomp_samplers import constraint, rank, sample_best
from energycomp_samplers.mala import MALA
from energycomp_samplers.smc import SMC

OPTIONS: dict[str, Any] = {"output_type": "pt", "generator": 0, "progress": False}
SHAPE = (1, 1, 2)


def observed(x: Tensor) -> Tensor:
    """An observation 0.8 of the sum of two numbers with a variance of 1."""
    return (x.sum((1, 2, 3)) - 0.8).square() / 2


def posterior(mean: float, variance: float) -> tuple[Tensor, Tensor]:
    """Mean (2,) and covariance (2, 2) of two numbers N(mean, variance) under the observation."""
    a, m = torch.ones(2, dtype=torch.float64), torch.full((2,), mean, dtype=torch.float64)
    precision = torch.eye(2, dtype=torch.float64) / variance + torch.outer(a, a)
    covariance = torch.linalg.inv(precision)
    return covariance @ (m / variance + 0.8 * a), covariance


def drawn(component: Any, n: int, sampler: SMC, **options: Any) -> tuple[Tensor, SamplingReport]:
    reports: list[SamplingReport] = []
    samples = Composer(component).sample(n, sampler=sampler, report=reports.append, **(OPTIONS | options))
    return samples, reports[0]


SAMPLERS = {
    "plain": SMC(constraint=constraint(observed)),
    "gradient": SMC(constraint=constraint(observed, gradient=True)),
    "without weights of the product": SMC(weights="none", constraint=constraint(observed, gradient=True)),
    "energies": SMC(weights="energy", constraint=constraint(observed, gradient=True)),
    "particles": SMC(particles=32, constraint=constraint(observed, gradient=True)),
    "moves": SMC(moves=MALA(moves=1), constraint=constraint(observed)),
    "moves and gradient": SMC(moves=MALA(moves=1), constraint=constraint(observed, gradient=True)),
    "scaled": SMC(constraint=constraint(lambda x: 4.0 * observed(x), weight=0.25, gradient=True)),
}


def expect_posterior(x: Tensor, mean: float, variance: float, within: float) -> None:
    """Samples have the mean and covariance of N(mean, variance) under the observation."""
    centre, covariance = posterior(mean, variance)
    assert torch.allclose(x.flatten(1).double().mean(0), centre, atol=within)
    assert torch.allclose(torch.cov(x.flatten(1).double().T), covariance, atol=within)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_are_those_of_the_posterior_in_closed_form(name: str) -> None:
    particles = SAMPLERS[name].particles is not None
    x, report = drawn(Gaussian(-0.2, 0.6, sample_shape=SHAPE), 400 if particles else 4000, SAMPLERS[name])
    expect_posterior(x, -0.2, 0.6, 0.1 if particles else 0.06)
    assert report.constraint_calls == 50 * 4000 * (3.2 if particles else 1)


def test_the_final_weights_are_those_of_the_density_times_the_constraint() -> None:
    """All weights of a run without resampling telescope to exp(-f) of its end, whatever happened between."""
    ends: list[Tensor] = []

    def far(x: Tensor) -> Tensor:
        ends.append(x)
        return 0.3 * (x.sum((1, 2, 3)) - 0.5).square()

    sampler = SMC(constraint=constraint(far), resample_below=1e-9)
    _, report = drawn(Gaussian(0.3, 0.5, sample_shape=SHAPE), 64, sampler, num_inference_steps=12)
    weights = torch.tensor(report.log_weights[0], dtype=torch.float64)
    assert torch.allclose(weights, -far(ends[-1]).double(), atol=1e-5)


def test_a_mixture_has_the_shares_of_the_posterior() -> None:
    one, two = Gaussian(-1.0, 0.1), Gaussian(1.0, 0.1)
    x, _ = drawn(0.5 * one | 0.5 * two, 6000, SMC(constraint=constraint(lambda x: 1.5 * (x[:, 0, 0, 0] < 0))))
    expected = 1 / (1 + torch.tensor(-1.5).exp())  # of the mode that costs nothing: 0.82, without it 0.5
    assert float((x > 0).double().mean()) == pytest.approx(float(expected), abs=0.04)


def test_a_product_under_a_constraint() -> None:
    u = Gaussian(0.0, 1.0, name="u", unconditional="self", sample_shape=SHAPE)
    a, b = (Gaussian(m, 0.25, unconditional=u, sample_shape=SHAPE) for m in (1.0, -0.2))
    x, _ = drawn(a & b, 8000, SMC(constraint=constraint(observed, gradient=True)), num_inference_steps=100)
    expect_posterior(x, 0.457, 0.143, 0.04)  # of a b / u


def test_what_is_ruled_out_is_not_drawn() -> None:
    positive = constraint(lambda x: torch.where(x[:, 0, 0, 0] > 0, 0.0, torch.inf))
    x, report = drawn(Gaussian(0.0, 1.0), 500, SMC(constraint=positive))
    assert bool((x > 0).all())
    assert not report.notes
    nothing = SMC(constraint=constraint(lambda x: torch.full((len(x),), torch.inf)))
    with pytest.warns(UserWarning, match="ruled all particles of a sample out"):
        Composer(Gaussian(0.0, 1.0)).sample(4, sampler=nothing, **OPTIONS)


STEEP: dict[str, tuple[Callable[[Tensor], Tensor], bool, float, float]] = {  # of z, and its mean and variance
    "hinge 50": (lambda z: 50 * (1 - z).clamp(min=0).square(), True, 1.421, 0.218),
    "hinge 500": (lambda z: 500 * (1 - z).clamp(min=0).square(), False, 1.493, 0.204),
    "hinge 500 with gradient": (lambda z: 500 * (1 - z).clamp(min=0).square(), True, 1.493, 0.204),
    "hard": (lambda z: torch.where(z > 1, 0.0, torch.inf), False, 1.525, 0.199),
    "hard in two parts": (lambda z: torch.where(z.abs() > 1.5, 0.0, torch.inf), False, 0.0, 3.908),
}


@pytest.mark.parametrize("name", STEEP)
@pytest.mark.filterwarnings("error")
def test_steep_and_hard_constraints(name: str) -> None:
    """N(0, 1) in 4 numbers, constrained along their mean direction z; moments of z by an integral.

    `benchmarks/parts/constraint.py --steep` has all cases. With log psi unlimited, means were 1.5 to 1.95.
    """
    f, gradient, mean, variance = STEEP[name]
    sampler = SMC(constraint=constraint(lambda x: f(x.sum((1, 2, 3)) / 2), gradient=gradient))
    x = Composer(Gaussian(0.0, 1.0, sample_shape=(1, 1, 4))).sample(3000, sampler=sampler, **OPTIONS)
    z = x.sum((1, 2, 3)) / 2
    scale = 1.0 if name == "hard in two parts" else variance**0.5
    assert float(z.mean()) == pytest.approx(mean, abs=0.2 * scale)
    assert float(z.var()) == pytest.approx(variance, rel=0.2)
    others = (x.flatten(1).var(0).sum() - z.var()) / 3
    assert float(others) == pytest.approx(1.0, abs=0.15)


def test_a_collapse_reaches_those_who_asked_for_no_report() -> None:
    rare = SMC(constraint=constraint(lambda x: -4.0 * x[:, 0, 0, 0]))  # the mean of exp(4 x) is that of few particles
    hard = constraint(lambda x: torch.where(x[:, 0, 0, 0] > 0.5, 0.0, torch.inf))
    with pytest.warns(UserWarning, match="collapsed: all 100 samples descend from about .* of the particles"):
        Composer(Gaussian(0.0, 1.0)).sample(100, sampler=rare, **OPTIONS)
    with pytest.warns(UserWarning, match="4 particles of each sample are too few for the constraint"):
        Composer(Gaussian(0.0, 1.0)).sample(100, sampler=SMC(particles=4, constraint=hard), **OPTIONS)
    hinge = constraint(lambda x: 50 * (1 - x[:, 0, 0, 0]).clamp(min=0).square(), gradient=True)  # 0.07 deviations off
    with pytest.warns(UserWarning, match="16 particles of each sample are too few for the constraint"):
        Composer(Gaussian(0.0, 1.0)).sample(100, sampler=SMC(particles=16, constraint=hinge), **OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in (1, 2, 20, 200):
            Composer(Gaussian(0.0, 1.0)).sample(n, sampler=SMC(constraint=constraint(observed)), **OPTIONS)
        both = SMC(particles=16, constraint=constraint(observed, gradient=True))
        Composer(Gaussian(0.0, 1.0)).sample(100, sampler=both, **OPTIONS)


def test_a_constraint_of_zero_changes_no_sample() -> None:
    u = Gaussian(0.0, 1.0, name="u", unconditional="self")
    both = Gaussian(1.0, 0.25, unconditional=u) & Gaussian(-0.2, 0.25, unconditional=u)
    zero = constraint(lambda x: torch.zeros(len(x)))
    plain, _ = drawn(both, 64, SMC())
    told, report = drawn(both, 64, SMC(constraint=zero))
    assert torch.equal(plain, told)
    assert report.evaluations == drawn(both, 64, SMC())[1].evaluations


def test_images_are_what_a_composer_gives() -> None:
    model, seen = bumps_model(), list[Tensor]()

    def kept(images: Tensor) -> Tensor:
        seen.append(images)
        return images.mean((1, 2, 3))

    x, report = drawn(model(0.3, 0.4), 4, SMC(constraint=constraint(kept)), num_inference_steps=5)
    assert report.constraint_calls == 20
    assert all(one.shape == (4, 3, 16, 16) and 0 <= float(one.min()) <= float(one.max()) <= 1 for one in seen)
    assert {tuple(one.flatten().tolist()) for one in x} <= {tuple(one.flatten().tolist()) for one in seen[-1]}


def test_gradients_through_a_network_move_images_as_far_as_the_closed_form() -> None:
    model = labels_model(4, spread=0.3)  # images N(pattern, 0.3^2), of numbers x = 2 image - 1
    darker = constraint(lambda images: 1000.0 * images.mean((1, 2, 3)), gradient=True)
    options: dict[str, Any] = {"num_inference_steps": 40}
    plain, _ = drawn(model(1), 8, SMC(particles=16), **options)
    moved, report = drawn(model(1), 8, SMC(particles=16, constraint=darker), **options)
    assert report.evaluations == report.constraint_calls == 40 * 8 * 16
    expected = -(0.3**2) * 1000.0 / (2 * plain[0].numel()) / 2
    assert float(moved.mean() - plain.mean()) == pytest.approx(expected, abs=0.006)
    assert expected < -0.025


def broken(images: Tensor) -> Tensor:
    raise RuntimeError("no detector\nand more")


def detached(images: Tensor) -> Tensor:
    return images.detach().sum((1, 2, 3))


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "an error": (broken, "got RuntimeError of the constraint broken: no detector; expected energies"),
    "two numbers": (lambda x: torch.zeros(len(x), 2), r"got \(4, 2\) of the constraint <lambda>; expected energies"),
    "NaN": (lambda x: x.sum((1, 2, 3)) * torch.nan, "NaN or -inf of the constraint <lambda>"),
    "no tensor": (lambda x: 1.0, "got float of the constraint <lambda>"),
    "no gradient": (detached, "got no gradient of the constraint detached"),
    "an infinite gradient": (
        lambda x: (x - x.detach()).abs().sum((1, 2, 3)).sqrt(),
        "got a gradient of the constraint <lambda> that is not finite",
    ),
}


@pytest.mark.parametrize(("f", "message"), REFUSED.values(), ids=REFUSED)
def test_a_constraint_that_fails_is_one_line_with_its_name(f: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        drawn(Gaussian(0.0, 1.0), 4, SMC(constraint=constraint(f, gradient=True)))
    assert "\n" not in str(error.value)


def test_arguments_are_checked() -> None:
    for options in ({"f": 3}, {"f": broken, "weight": -1.0}, {"f": broken, "gradient": 1}):
        with pytest.raises(InputError, match="for Constraint; expected"):
            constraint(**options)
    with pytest.raises(InputError, match="got constraint="):
        SMC(constraint=broken)
    with pytest.raises(InputError, match="one swarm of particles"):
        drawn(Gaussian(0.0, 1.0), 2, SMC(weights="none", constraint=constraint(observed)), generator=[0, 1])


def left(images: Tensor) -> Tensor:
    """Less where the left half is brighter."""
    return -images[..., :8].mean((1, 2, 3))


def test_a_constraint_ranks_among_images_that_are_as_complete() -> None:
    model = bumps_model()
    both = [planted(model, torch.tensor(v)) for v in ([[0.7, 0.3], [0.8, 0.8]], [[0.2, 0.3], [0.3, 0.8]], [[0.2, 0.2]])]
    images = torch.cat(both) / 2 + 0.5
    scene = model(0.2, 0.3) & model(0.3, 0.8)
    ranking = rank(images, scene, model=model, constraint=constraint(left, weight=2.0))
    assert ranking.order[0] == 1  # complete
    assert ranking.energy is not None
    assert torch.allclose(ranking.energy, 2.0 * left(images).double())
    assert rank(images, scene, model=model).energy is None
    same = rank(images[1:2].repeat(3, 1, 1, 1), scene, model=model, constraint=lambda x: torch.tensor([2.0, 0.5, 1.0]))
    assert same.order == (1, 2, 0)
    with pytest.raises(InputError, match="NaN or -inf of the constraint <lambda>"):
        rank(images, scene, model=model, constraint=lambda x: x.sum((1, 2, 3)) * torch.nan)


FOUR: dict[str, Any] = OPTIONS | {"num_inference_steps": 4}


def test_the_best_samples_satisfy_the_constraint() -> None:
    model, calls = bumps_model(), list[int]()

    def energy(images: Tensor) -> Tensor:
        calls.append(len(images))
        return left(images)

    best = sample_best(model(0.2, 0.3) & model(0.7, 0.8), 2, best_of=3, constraint=energy, **FOUR)
    assert sum(calls) == 6
    ranking, kept = best.ranking, list(best.kept)
    assert bool(ranking.complete[kept].all())
    assert torch.equal(ranking.energy[kept], ranking.energy[ranking.complete].sort().values[:2])
    # Without the constraint: the complete ones first, by their least lift, then by the sum of lifts.
    keys = list(zip(ranking.complete.tolist(), ranking.least.tolist(), ranking.lift.sum(1).tolist(), strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__, reverse=True)
    assert attrs.evolve(ranking, energy=None).order == tuple(order)


def test_what_a_constraint_rules_out_is_not_complete() -> None:
    """Two of four images are ruled out in the first batch: others are drawn, and no ruled-out one is kept."""
    model, calls = bumps_model(), list[int]()

    def half(images: Tensor) -> Tensor:
        calls.append(len(images))
        return torch.where(torch.arange(len(images)) % 2 == 0, torch.inf, 0.0)

    scene = model(0.2, 0.3) & model(0.7, 0.8)
    best = sample_best(scene, 4, best_of=4, constraint=half, until_complete=True, **FOUR)
    assert (calls, best.complete) == ([4, 4], 4)
    assert best.ranking.energy[list(best.kept)].tolist() == [0.0] * 4
    with pytest.warns(UserWarning, match="rules 2 of the 4 kept samples out.*raise best_of"):
        best = sample_best(scene, 4, best_of=1, constraint=half, until_complete=True, **FOUR)
    assert best.complete == 2
