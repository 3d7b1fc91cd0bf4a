"""Particles against closed forms: weights, resampling, and products that plain sampling gets wrong."""

from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.distributions import Normal

from energycomp import Composer
from energycomp.components import Composition, Mixture
from energycomp.errors import EnergycompError
from energycomp.sampling import SamplingReport, Target, interval, sampler as room
from energycomp.seeds import seeded
from energycomp.testing import Gaussian
from energycomp_samplers.constraints import constraint
from energycomp_samplers.kernels import predict_clean
from energycomp_samplers.mala import MALA
from energycomp_samplers.observation import observe
from energycomp_samplers.particles import Particles, effective_sample_size, systematic, take
from energycomp_samplers.proposal import Proposal
from energycomp_samplers.second_order import second_order
from energycomp_samplers.smc import SMC
from energycomp_samplers.twist import SecondOrderFactor, propose

WEIGHTS = ["rne", "fkc", "energy"]


def modes(*shares: float) -> Mixture:
    """Narrow modes at -2 and 2."""
    return Mixture([Gaussian(-2.0, 0.2), Gaussian(2.0, 0.2)], torch.tensor(shares).log())


def test_weights_of_energies_follow_guidance_that_begins_later(drawn: Any) -> None:
    """a^2 / u at the end, of Gaussians: the precision is 2 / 0.25 - 1."""
    u = Gaussian(0.0, 1.0, name="u", unconditional="self")
    a = Gaussian(0.5, 0.25, name="a", unconditional=u)
    guided = interval(2.0, start=0.3, stop=1.0).weighted(a)
    x, report = drawn(guided, SMC(weights="energy"))
    assert float(x.mean()) == pytest.approx(2 * 0.5 / 0.25 / 7, abs=0.03)
    assert float(x.var()) == pytest.approx(1 / 7, rel=0.1)
    assert report.evaluations == 2 * 2 * 50 * 4000


@pytest.mark.parametrize("total", [1.0, 2.5])
def test_the_weight_is_the_ratio_of_the_kernels_for_every_proposed_sample(total: float) -> None:
    """The ratio of the kernels, written out, is what `rne` computes from x alone."""
    b = (2.0, 1.0, total - 3.0)
    target = Target(
        Composition({Gaussian(mean, 0.3): weight for mean, weight in zip((1.0, -1.0, 0.2), b, strict=True)})
    )
    x = torch.randn(1, 5, 1, 1, 1, generator=seeded(0))
    for level in target.levels(10):
        proposal = Proposal(b, 1.0, level)
        x0 = predict_clean(target, x, level)
        mean = level.mean(x, x0)
        centre = proposal.centre(x, proposal.mean(x0))
        y = centre + torch.randn(x.shape, generator=seeded(level.step))
        # The mean of the reverse kernel, by the score.
        score = (level.alpha**0.5 * x0 - x) / (1 - level.alpha)
        torch.testing.assert_close(mean, (x + level.beta * score) / (1 - level.beta) ** 0.5, rtol=1e-3, atol=1e-3)
        # The weight, by the densities of all kernels.
        wide = level.beta**0.5
        written = sum(w * Normal(one, wide).log_prob(y) for w, one in zip(b, mean, strict=True))
        written = written + (1 - total) * Normal((1 - level.beta) ** 0.5 * y, wide).log_prob(x)
        written = written - Normal(centre, proposal.variance**0.5).log_prob(y)
        off = written.flatten().double() - proposal.rne(x, x0).flatten()
        assert float((off - off[0]).abs().max()) < 2e-3 * (1 + float(off.abs().max()))  # equal up to a constant


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_product_that_plain_sampling_gets_wrong(drawn: Any, weights: Any) -> None:
    """Two modes times a Gaussian over u: 0.86 +- 0.41, plain samples 0.53 +- 0.67 (docs/benchmarks/generating.md)."""
    u = Gaussian(0.0, 1.0, unconditional="self")
    two = Gaussian(-1.0, 0.09, unconditional=u) | Gaussian(1.0, 0.09, unconditional=u)
    x, report = drawn(two & Gaussian(0.5, 0.25, unconditional=u), SMC(weights=weights))
    assert float(x.mean()) == pytest.approx(0.86, abs=0.05)
    assert float(x.std()) == pytest.approx(0.411, abs=0.05)
    assert report.evaluations == 4000 * 50 * 3 * (2 if weights == "energy" else 1)
    assert min(report.ess) > 0.3
    assert report.warnings == ()


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_power_has_the_shares_of_its_modes(drawn: Any, weights: Any) -> None:
    """p^2 of the shares 0.3 and 0.7 has 0.155 and 0.845, where the sum of the scores goes on with about 0.3."""
    runs = [drawn(2 * modes(0.3, 0.7), SMC(weights=weights), generator=seed)[0] for seed in (0, 1)]
    shares = [float((x < 0).float().mean()) for x in runs]
    assert sum(shares) / 2 == pytest.approx(0.155, abs=0.02 if weights == "energy" else 0.05)


def ends_early(mean: float, variance: float, steps: int = 50) -> Gaussian:
    """A Gaussian on a schedule that ends at alpha_bar 0.6, so that its noisy end is not noise."""
    alphas = (1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64)).cumprod(0)
    return Gaussian(mean, variance, alphas_cumprod=alphas)


def test_weights_of_energies_correct_the_start(drawn: Any) -> None:
    """a b / u = N(0.457, 0.143) and a c = N(0.8, 0.125). Without a weight at the start, the means are 0.17 and 0.57."""
    a, b, c, u = (ends_early(*moments) for moments in ((1.0, 0.25), (-0.2, 0.25), (0.6, 0.25), (0.0, 1.0)))
    for product, mean in ((a + b - u, 0.457), (a + c, 0.8)):
        x, report = drawn(product, SMC(weights="energy"))
        assert float(x.mean()) == pytest.approx(mean, abs=0.04)
        assert report.ess[0] < 0.9
        assert report.warnings == ()


def test_a_start_that_is_far_from_the_product_is_reported(drawn: Any) -> None:
    """The weights of the start are left out, and those of the steps are not."""
    _, report = drawn(ends_early(9.0, 0.25) + ends_early(9.0, 0.25), SMC(weights="energy"))
    assert len(report.ess) == 50
    assert report.ess[0] == pytest.approx(1.0)
    assert any("started from noise that is far from the product" in warning for warning in report.warnings)


def test_small_sums_of_weights_are_said_out_loud() -> None:
    """N(0, 1) to the power w is N(0, 1 / w): the sampler that the warning names is right, the others are not."""
    whole = Composer(0.1 * Gaussian(0.0, 1.0))
    options: Any = {"generator": 0, "output_type": "latent", "progress": False}
    for sampler in ("smc", "langevin"):
        with pytest.warns(UserWarning, match="sampler='mala'") as caught:
            x = whole.sample(500, sampler=sampler, **options)
        assert float(x.var()) > 3.0 / 0.1
        assert (len(caught), caught[0].filename) == (1, __file__)
        reports: list[Any] = []
        whole.sample(200, sampler=sampler, num_inference_steps=9, report=reports.append, **options)
        assert "sampler='mala'" in reports[0].notes[0]
    for right in ("mala", SMC(weights="fkc")):
        x = whole.sample(1000, sampler=right, **options)
        assert float(x.var()) == pytest.approx(10.0, rel=0.15)


def test_particles_of_each_sample(drawn: Any) -> None:
    """One particle is plain sampling; with more of them, independent samples come near the product."""
    u = Gaussian(0.0, 1.0, unconditional="self")
    two = Gaussian(-1.0, 0.09, unconditional=u) | Gaussian(1.0, 0.09, unconditional=u)
    product = two & Gaussian(0.5, 0.25, unconditional=u)
    means = [float(drawn(product, SMC(particles=count), n=1000)[0].mean()) for count in (1, 2, 16)]
    assert means[0] < means[1] < means[2]
    assert means[2] == pytest.approx(0.86, abs=0.06)


def test_weights_end_at_a_timestep(drawn: Any) -> None:
    product = Gaussian(1.0, 0.25) + Gaussian(-0.2, 0.25) - Gaussian()
    _, report = drawn(product, SMC(resample_above=500.0), n=100, steps=10)
    assert len(report.ess) == 5  # 999, 899, 799, 699, 599
    assert report.resampled[-1] == 5
    _, plain = drawn(product, SMC(particles=8, resample_above=500.0), n=100, steps=10)
    assert plain.evaluations == 3 * 100 * (6 * 8 + 4)  # of the particles of a sample, one goes on


def test_weights_that_are_noise_end_by_themselves(drawn: Any) -> None:
    """Far narrower factors than u in many dimensions: the weights of a step explode at low noise."""
    narrow = [Gaussian(mean, 1e-4, sample_shape=(3, 16, 16)) for mean in (0.5, 0.49)]
    _, report = drawn(narrow[0] + narrow[1] - Gaussian(0.0, 1.0, sample_shape=(3, 16, 16)), SMC(), n=16)
    assert 0 < len(report.ess) < 50
    assert len(report.resampled) >= 1


@given(st.lists(st.floats(-20.0, 20.0), min_size=1, max_size=6), st.integers(1, 9), st.floats(1e-6, 1 - 1e-6))
@settings(deadline=None, derandomize=True)
def test_systematic_resampling_has_the_least_spread(log_weights: list[float], count: int, start: float) -> None:
    """Particle p has n w_p copies, rounded up or down, in order."""
    log_w = torch.tensor([log_weights])
    w = log_w.double().softmax(1)[0]
    places = systematic(log_w, count, torch.tensor([[start]]))
    copies = places[0].bincount(minlength=len(w))
    assert places.tolist() == [sorted(places[0].tolist())]
    assert bool(((copies - count * w).abs() < 1 + 1e-6).all())
    assert effective_sample_size(log_w).item() == pytest.approx(1 / (len(w) * w.square().sum().item()), rel=1e-3)


def test_systematic_resampling_is_unbiased_and_samples_are_in_no_order() -> None:
    """Over the uniform number, a particle is drawn as often as its weight says."""
    log_w = torch.tensor([0.1, 0.2, 0.7]).log().expand(1000, -1)
    one = systematic(log_w, 1, (torch.arange(1000.0)[:, None] + 0.5) / 1000)
    assert one.flatten().bincount().tolist() == [100, 200, 700]
    assert take(torch.arange(6).view(2, 3), torch.tensor([[2, 2], [0, 1]])).tolist() == [[2, 2], [3, 4]]
    # Copies of one particle would stand side by side.
    u = Gaussian(0.0, 1.0, unconditional="self")
    product = Gaussian(1.5, 0.2, unconditional=u) & Gaussian(-1.5, 0.2, unconditional=u)
    reports: list[SamplingReport] = []
    options: Any = {"output_type": "pt", "generator": 0, "progress": False, "num_inference_steps": 20}
    x = Composer(product).sample(2000, sampler=SMC(resample_below=1.0), report=reports.append, **options).flatten()
    assert reports[0].resampled
    neighbours = (x[1:] - x.mean()) @ (x[:-1] - x.mean()) / len(x) / x.var()
    assert abs(neighbours) < 0.1


def test_random_numbers_are_drawn_on_the_device_of_the_particles(drawn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[Any] = []
    original = room.draw_noise

    def noted(*given: Any, device: Any, **options: Any) -> Tensor:
        devices.append(device)
        return original(*given, device=device, **options)

    monkeypatch.setattr(room, "draw_noise", noted)  # a generator of a GPU draws nothing on the CPU
    drawn(Gaussian(0.0, 1.0), SMC(particles=2), n=4, steps=3)
    assert set(devices) == {torch.device("cpu")}


@pytest.mark.parametrize("moves", [None, MALA(moves=1)], ids=["plain", "moves"])
def test_a_sample_does_not_depend_on_its_batch_wherever_the_weights_of_the_others_end(moves: Any, drawn: Any) -> None:
    """Narrow factors: the weights of each sample are noise from another level on, and each then goes on alone."""
    narrow = [Gaussian(mean, 1e-3, sample_shape=(8,)) for mean in (0.5, 0.3)]
    product = narrow[0] + narrow[1] - Gaussian(0.0, 1.0, sample_shape=(8,))
    seeds = list(range(12))
    sampler = SMC(particles=4, moves=moves)
    together, report = drawn(product, sampler, 12, 20, generator=seeds)
    alone = [drawn(product, sampler, 1, 20, generator=[seed]) for seed in seeds]
    assert torch.allclose(torch.cat([x for x, _ in alone]), together, atol=1e-4)
    assert len({len(one.ess) for _, one in alone}) > 1  # their weights end at different levels
    assert report.evaluations == sum(one.evaluations for _, one in alone)


def two_modes_each() -> Composition:
    """a b / u in the plane: two modes each, of which none is shared."""
    u = Gaussian(0.0, 1.5, sample_shape=(2,), unconditional="self")

    def pair(*centres: tuple[float, float]) -> Mixture:
        return Mixture([Gaussian(torch.tensor(c), 0.2, sample_shape=(2,), unconditional=u) for c in centres])

    return pair((-1.2, 0.3), (0.9, -0.2)) + pair((0.4, 1.0), (0.3, -1.1)) - u


def along_axes(x: Tensor, weights: Tensor) -> Tensor:
    """Cumulative shares (2, 100) of weighted points (n, 2) along both axes."""
    edges = torch.linspace(-3.0, 3.0, 100, dtype=torch.float64)
    return torch.stack([(weights * (axis[None] < edges[:, None])).sum(1) for axis in x.double().T])


@pytest.mark.parametrize("weights", ["rne", "energy"])
def test_a_second_order_proposal_is_exact_and_keeps_more_particles(drawn: Any, weights: Any) -> None:
    """A product of two modes each, by quadrature: the sum fails, and weights correct both proposals."""
    product = two_modes_each()
    axis = torch.linspace(-4.0, 4.0, 161)
    points = torch.cartesian_prod(axis, axis)
    exact = along_axes(points, torch.softmax(-product.energy(points, torch.zeros(len(points))).double(), 0))
    far = {}
    left = {}
    for name in ("plain", "sum", "gauss", "jacobian"):
        smc: Any = SMC(weights=weights, proposal=name) if name != "plain" else None
        x, report = drawn(product, smc, n=1500, steps=30)
        far[name] = float((along_axes(x, torch.full((1500,), 1 / 1500.0)) - exact).abs().max())
        left[name] = report.ancestors
    assert far["plain"] > 0.12
    for name in ("gauss", "jacobian"):
        assert far[name] < min(0.06, far["sum"] + 0.02)
        assert left[name] > left["sum"]


@pytest.mark.parametrize(
    ("options", "composition", "match"),
    [
        ({"moves": MALA()}, Gaussian(), "no moves"),
        ({"weights": "none"}, Gaussian(), "expected weights"),
        ({}, Gaussian() + Gaussian(1.0), "weights that sum to 2"),
    ],
)
def test_what_a_second_order_proposal_refuses(drawn: Any, options: Any, composition: Any, match: str) -> None:
    with pytest.raises(EnergycompError, match=match):
        drawn(composition, SMC(proposal="gauss", **options), n=4, steps=2)


def test_a_second_order_proposal_of_a_product_that_is_no_gaussian_is_that_of_the_sum(drawn: Any) -> None:
    product = 3.0 * Gaussian(0.0, 1.0) - 2.0 * Gaussian(0.0, 0.5)
    second, plain = (drawn(product, SMC(proposal=name), n=50, steps=5)[0] for name in ("gauss", "sum"))
    assert torch.equal(second, plain)


@pytest.mark.parametrize("observes", [True, False])
def test_second_order_is_weighed_with_the_product_and_constraints_to_the_end(drawn: Any, observes: bool) -> None:
    """Precision 1 / 0.1 + 1 / 0.2 - 1 of the product: its weights end, and what says nothing adds none."""
    product: Any = Gaussian(1.0, 0.1) + Gaussian(-0.2, 0.2) - Gaussian(0.0, 1.0)
    nothing = constraint(lambda x: torch.zeros(len(x)))
    if observes:
        product = product & observe(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), std=1.0)
    smc = SMC(proposal="gauss", resample_above=700.0, constraint=None if observes else nothing)
    x, report = drawn(product, smc, n=2000, steps=30)
    assert report.ess[-1] > 0.95
    assert float(x.mean()) == pytest.approx(9 / 14, abs=0.02)  # 0.60 by the sum of the scores
    assert float(x.var()) == pytest.approx(1 / 14, rel=0.15)


def test_a_step_without_a_drift_corrects_nothing() -> None:
    """The product is no Gaussian from the third level on, where a second-order proposal is that of the sum."""
    target = Target(Gaussian(1.0, 0.25) + Gaussian(-0.2, 0.5) - Gaussian(0.0, 1.0))
    product = second_order(target, "constant")
    factor = SecondOrderFactor(torch.zeros(1, 8, dtype=torch.float64), target, "constant")
    factor.product = lambda x, x0, level: attrs.evolve(product(x, x0, level), is_gaussian=level.step < 2)
    x = torch.randn(1, 8, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    added = []
    for level in target.levels(10)[:4]:
        proposal = Proposal.at(level, target, "rne")
        particles = Particles(x, predict_clean(target, x, level), proposal, target)
        added.append(factor.weigh(particles))
        x = propose([factor], particles.centre, proposal.variance, torch.ones_like(x))
    assert [bool(one.any()) for one in added] == [True, True, True, False]


def test_a_second_order_proposal_goes_with_observations(drawn: Any) -> None:
    """Precision 1 / 0.25 + 1 / 0.5 - 1 of the product, and 1 / 0.2 of what is seen."""
    product = Gaussian(1.0, 0.25) + Gaussian(-0.2, 0.5) - Gaussian(0.0, 1.0)
    seen = observe(torch.ones(1, 1, 1), torch.full((1, 1, 1), 1.5), std=0.2**0.5)
    x, _ = drawn(product & seen, SMC(proposal="gauss"), n=2000)
    assert float(x.mean()) == pytest.approx((4 - 0.4 + 7.5) / 10, abs=0.03)
    assert float(x.var()) == pytest.approx(0.1, rel=0.15)
