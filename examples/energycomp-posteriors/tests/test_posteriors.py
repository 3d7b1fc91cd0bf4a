"""Tasks and exact posteriors against closed forms, and compositions of an estimator whose score is exact."""

import re
from functools import reduce
from operator import and_
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from energycomp import Composer
from energycomp.errors import InputError
from energycomp_samplers import all_of
from energycomp_samplers.gauss import Gauss
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, Uniform

from energycomp_posteriors.exact import Exact as Known
from energycomp_posteriors.posterior import measure_strays, posterior, samples
from energycomp_posteriors.sbi_networks import Posterior, from_sbi
from energycomp_posteriors.tasks import TASKS, gaussian, reference, slcp, tempered, two_moons, uniform

README = Path(__file__).parents[1] / "README.md"


class Exact:
    """The score of N(x / 2, I / 2), the posterior of one observation of `gaussian`, with the noise of sbi."""

    def mean_t_fn(self, times: Tensor) -> Tensor:
        return torch.exp(-0.25 * times.square() * 19.99 - 0.005 * times)[:, None]

    def std_fn(self, times: Tensor) -> Tensor:
        return (1 - self.mean_t_fn(times).square()).sqrt()

    def score(self, sample: Tensor, observed: Tensor, times: Tensor) -> Tensor:
        a = self.mean_t_fn(times)
        return (a * observed / 2 - sample) / (1 - a.square() / 2)


class Exploding(Exact):
    """The same posterior, with the noise of variance exploding."""

    t_min = 1e-3

    def mean_t_fn(self, times: Tensor) -> Tensor:
        return torch.ones(len(times), 1)

    def std_fn(self, times: Tensor) -> Tensor:
        return (0.01 * 2000.0**times)[:, None]

    def score(self, sample: Tensor, observed: Tensor, times: Tensor) -> Tensor:
        return (observed / 2 - sample) / (0.5 + self.std_fn(times).square())


class Clipped(Exploding):
    """A network that learned N(x, variance) and nothing of the box that its prior is in."""

    variance = 0.25

    def score(self, sample: Tensor, observed: Tensor, times: Tensor) -> Tensor:
        return (observed - sample) / (self.variance + self.std_fn(times).square())


def trained(network: object, prior: object) -> Posterior:
    """As sbi gives it."""
    return from_sbi(SimpleNamespace(vector_field_estimator=network, prior=prior))


def observations(n: int) -> Tensor:
    torch.manual_seed(0)
    return gaussian().simulate(torch.ones(n, 10))


def test_a_posterior_is_that_of_all_observations() -> None:
    x = observations(8)
    whole = posterior(Exact(), 10, x)
    assert (len(whole.terms), whole.mass) == (8 + 1, pytest.approx(1.0))
    sample, first = torch.randn(4, 10), torch.zeros(4)
    noise = Exact().std_fn([*whole.terms][-1].posterior.times(first))
    assert torch.allclose(whole.eps(sample, first), noise * (9 * sample - x.sum(0)), rtol=1e-2, atol=1e-3)


def test_moves_make_it_right() -> None:
    x, off = observations(8), {}
    for way in ("ddim", "smc, moves"):
        drawn, _ = samples(way, Exact(), gaussian(), x, 400, 60)
        off[way] = abs(float(drawn.std(0).mean()) * 3 - 1)  # of 1/3, the exact deviation
    assert off["smc, moves"] < 0.05 < off["ddim"]


@pytest.mark.parametrize("network", [Exact(), Exploding()])
def test_what_sbi_trained_is_composed(network: Exact) -> None:
    """Of both kinds of noise, by `&` and by `all_of`: N(sum x / 9, I / 9)."""
    x = observations(8)
    one = trained(network, MultivariateNormal(torch.zeros(10), torch.eye(10)))
    options: dict[str, Any] = {"num_inference_steps": 20, "output_type": "pt", "generator": 0, "progress": False}
    for whole in (reduce(and_, map(one, x)), all_of([one(row) for row in x], batch=3)):
        z = Composer(whole).sample(500, sampler=Gauss(last="draw"), **options)
        assert float((z.mean(0) - x.sum(0) / 9).abs().max()) < 4 / (9 * 500) ** 0.5
        assert float(z.std(0).mean()) == pytest.approx(1 / 3, rel=0.03)


@pytest.mark.parametrize("network", [Exact(), Exploding()])
def test_timesteps_are_equal_steps_of_the_signal_to_noise_ratio(network: Exact) -> None:
    """Where times of sbi at real timesteps are, too."""
    one = trained(network, Independent(Normal(torch.zeros(10), 1.0), 1))
    steps = one.alphas.logit()
    assert torch.allclose(steps, torch.linspace(float(steps[0]), float(steps[-1]), 1000).double(), atol=0.02)
    half = one._ratio(one.times(torch.tensor([0.5, 500.5, 998.5]))).logit()
    assert torch.allclose(half, ((steps[:-1] + steps[1:]) / 2)[[0, 500, 998]], atol=0.02)


def test_a_prior_in_a_box_has_the_noise_prediction_of_its_density() -> None:
    low, high = torch.tensor([-1.0, 0.5]), torch.tensor([2.0, 0.6])
    u = trained(Exact(), Independent(Uniform(low, high), 1)).unconditional
    x = torch.tensor([[-3.0, 0.55], [0.4, 4.0], [1.9, -0.2]], dtype=torch.float64, requires_grad=True)
    for timestep in (100.0, 600.0, 990.0):
        t = torch.full((3,), timestep)
        signal, noise = (level.double() for level in u.noised_space.levels(t))
        sides = [Normal(0.0, 1.0).cdf((x - signal * side) / noise) for side in (u.low, u.high)]
        (score,) = torch.autograd.grad((sides[0] - sides[1]).log().sum(), x)
        near = (sides[0] - sides[1]).detach() > 1e-9  # where the difference has digits
        found = u.eps(x.detach(), t)
        assert bool(found.isfinite().all())
        assert torch.allclose(found[near], (-noise * score)[near], rtol=1e-4, atol=1e-4)


def test_samples_are_not_driven_out_of_a_box() -> None:
    """Six normal likelihoods of deviation 1/2 near its edge, by networks that know nothing of it."""
    box = trained(Clipped(), Independent(Uniform(torch.full((1,), -2.0), torch.full((1,), 2.0)), 1))
    options: dict[str, Any] = {"output_type": "pt", "generator": 0, "progress": False}
    seen = [box([1.9 + k / 1000]) for k in range(6)]
    x = Composer(reduce(and_, seen)).sample(200, sampler="gauss", num_inference_steps=30, **options)
    assert bool((x <= 2.1).all())  # the mean of the last step may be beyond the edge by a little
    assert bool((x > 1.0).all())


@pytest.mark.parametrize("count", [1, 6])
def test_parameters_have_any_units(count: int) -> None:
    """In a box from 0 to 100, far from where the noise of sbi leaves N(0, I): N(mean of x, 25 / n)."""
    network = Clipped()
    network.variance = 25.0
    box = trained(network, Independent(Uniform(torch.zeros(2), torch.full((2,), 100.0)), 1))
    x = torch.tensor([[73.0, 40.0]]) + 5 * torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    z = Composer(reduce(and_, map(box, x))).sample(
        500, sampler=Gauss(last="draw"), num_inference_steps=20, output_type="pt", generator=0, progress=False
    )
    deviation = 5 / count**0.5
    assert torch.allclose(z.mean(0), x.mean(0), atol=0.2 * deviation)
    assert torch.allclose(z.std(0), torch.full((2,), deviation), rtol=0.12)


def test_what_cannot_be_composed_is_refused() -> None:
    with pytest.raises(InputError, match="build_posterior"):
        from_sbi(object())
    with pytest.raises(InputError, match="without score"):
        trained(object(), Normal(torch.zeros(2), 1.0))
    with pytest.raises(InputError, match="without correlations"):
        trained(Exact(), MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.0]])))
    with pytest.raises(InputError, match="NaN"):
        trained(Exact(), MultivariateNormal(torch.zeros(10), torch.eye(10)))([float("nan")] * 10)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "two_moons"])
def test_exact_scores_are_those_of_the_noised_posterior(name: str) -> None:
    """By autograd of the density, for two observations in one batch."""
    torch.manual_seed(0)
    task = TASKS[name]()
    exact = Known(task)
    x = task.simulate(task.prior.sample((2,)))
    sample = torch.randn(4, task.dimensions, dtype=torch.float64, requires_grad=True)
    times = torch.tensor([0.2, 0.5, 0.2, 0.9])
    found = exact.score(sample.detach().float(), x.repeat_interleave(2, 0), times)
    for row in range(4):
        log_weights, means, variances = (one.double() for one in task.parts(x[row // 2]))
        a = exact.mean_t_fn(times[row : row + 1]).double()
        spread = (a.square() * variances[:, None] + 1 - a.square()).sqrt().expand_as(means)
        density = MixtureSameFamily(Categorical(logits=log_weights), Independent(Normal(a * means, spread), 1))
        (score,) = torch.autograd.grad(density.log_prob(sample[row]), sample)
        assert torch.allclose(found[row].double(), score[row], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
def test_exact_scores_of_a_likelihood_are_those_of_the_posterior(name: str) -> None:
    """Where noise is weak, where it is as wide as the posterior, and where it is all."""
    torch.manual_seed(0)
    task = TASKS[name]()
    x = task.simulate(task.prior.sample((1,)))
    exact, drawn = Known(task), Known(attrs.evolve(task, parts=None), near=1000, far=2000)
    z = reference(task, x, 40)
    for time in (0.02, 0.15, 0.3, 0.9):
        times = torch.full((len(z),), time)
        noise = exact.std_fn(times)
        noised = exact.mean_t_fn(times) * z + noise * torch.randn_like(z)
        expected, found = (noise * one.score(noised, x.expand(len(z), -1), times) for one in (exact, drawn))
        assert float((found - expected).square().mean().sqrt()) < 0.05


def test_the_evidence_is_exact() -> None:
    """Of L = exp(-|x - z|^2 / 2) under N(0, I): 2^(-D/2) exp(-|x|^2 / 4)."""
    x = observations(1)
    _, found = tempered(gaussian(), x, 2000)
    assert found == pytest.approx(float(-x.square().sum() / 4 - 5 * torch.tensor(2.0).log()), abs=0.3)


def test_the_reference_of_a_uniform_prior_is_exact() -> None:
    """Truncated normal distributions, by quadrature."""
    torch.manual_seed(0)
    observed = uniform().simulate(torch.linspace(-2.5, 2.5, 10).expand(4, -1))
    found = (reference(uniform(), observed, 2000) / 2**0.5).erf()
    p = torch.linspace(-1, 1, 2001)[:, None]
    share = (-4 * (observed.mean(0) - p).square() / 0.2).softmax(0)
    mean = (share * p).sum(0)
    assert torch.allclose(found.mean(0), mean, atol=0.02)
    assert torch.allclose(found.std(0), (share * (p - mean).square()).sum(0).sqrt(), atol=0.01)


@pytest.mark.parametrize("name", ["gaussian", "mixture", "uniform", "glm", "slcp"])
def test_the_score_of_the_likelihood_is_zero_in_the_mean(name: str) -> None:
    """Over observations of the simulator, as that of any density is."""
    torch.manual_seed(0)
    task = TASKS[name]()
    z = (0.5 * torch.randn(1, task.dimensions)).requires_grad_()
    x = task.simulate(z.detach().expand(2000, -1))
    some = torch.stack([torch.autograd.grad(task.log_likelihood(z, one).sum(), z)[0][0] for one in x.split(20)])
    assert bool((some.mean(0).abs() < 4 * some.std(0) / len(some) ** 0.5).all())


def test_the_reference_is_exact() -> None:
    x = observations(14)
    found = reference(gaussian(), x, 2000)
    assert torch.allclose(found.mean(0), x.sum(0) / 15, atol=0.03)
    assert torch.allclose(found.std(0), torch.full((10,), 15**-0.5), atol=0.02)


def test_the_likelihood_is_that_of_the_simulator() -> None:
    z = torch.tensor([[0.1, -0.4, 0.8, 0.5, 0.3], [0.3, 0.2, -0.7, 0.6, -0.2]])
    p = 3 * (z / 2**0.5).erf()
    scale, rho = p[:, 2:4].square(), p[:, 4].tanh()
    covariance = torch.diag_embed(scale.square())
    covariance[:, 0, 1] = covariance[:, 1, 0] = rho * scale.prod(1)
    x = slcp().simulate(z)
    exact = [MultivariateNormal(p[i, :2], covariance[i]).log_prob(x.reshape(-1, 2)).sum() for i in range(2)]
    found = slcp().log_likelihood(z, x)
    assert float(found[0] - found[1]) == pytest.approx(float(exact[0] - exact[1]), rel=1e-3)


def test_the_density_of_a_moon_integrates_to_one_everywhere() -> None:
    task, z = two_moons(), torch.tensor([[0.0, 0.0], [0.7, -0.3]])
    axis = torch.linspace(-1.5, 1.5, 1501)
    plane = torch.cartesian_prod(axis, axis)
    mass = torch.stack([task.log_likelihood(one.expand(len(plane), -1), plane[:, None]).exp().sum() for one in z])
    assert float(mass[0]) == pytest.approx(float(mass[1]), rel=0.02)
    drawn = task.simulate(z[1:].expand(2000, -1))
    assert float((task.log_likelihood(z[1:].expand(2000, -1), drawn[:, None]) > -10).float().mean()) > 0.99


@pytest.mark.parametrize("name", TASKS)
def test_mirrored_parameters_are_as_likely(name: str) -> None:
    task = TASKS[name]()
    torch.manual_seed(0)
    z = task.prior.sample((50,))
    x = task.simulate(z[:1])
    assert torch.allclose(task.log_likelihood(z, x), task.log_likelihood(task.mirrored(z), x), rtol=1e-3, atol=0.1)


def test_the_readme_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict[str, object] = {"exact": Exact(), "Composer": Composer}
    code = block.replace("train(task)", "exact").replace("steps=100", "steps=3")
    exec(compile(code, str(README), "exec"), names)  # noqa: S102
    assert getattr(names["z"], "shape", None) == (200, 10)


def test_products_of_thirty_mixtures_have_no_strays() -> None:
    """Sliced W2 in deviations of the posterior, of exact scores: 1.2 without jumps, of which 0.1 is that of two exact."""
    torch.manual_seed(1000)
    task = TASKS["mixture"]()
    observed = task.simulate(task.prior.sample((1,)).expand(30, -1))
    exact = reference(task, observed, 300)
    found = []
    for way in ("second order, no jumps", "second order"):
        torch.manual_seed(0)
        x, _ = samples(way, Known(task), task, observed, 300, 30)
        found.append(measure_strays(x, exact))
    assert found[0][0] > 1.0
    assert found[1][0] <= 0.27
    assert found[1][1] <= 0.001
