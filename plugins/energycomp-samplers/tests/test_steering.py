"""Steering of bare functions against closed forms: conventions of denoisers, what steers them, what is refused."""

import itertools
import math
import runpy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import cosine_schedule, signal_noise
from energycomp.errors import EnergycompWarning, InputError
from energycomp.sampling import SamplingReport
from energycomp.testing import Gaussian, Ideal
from energycomp_samplers import as_denoiser, constraint, observe, steer
from energycomp_samplers.mala import MALA
from energycomp_samplers.smc import SMC

ALPHAS = cosine_schedule()
SIGMAS = torch.cat([torch.logspace(math.log10(80.0), math.log10(0.005), 50), torch.zeros(1)])
TIMES = torch.linspace(1.0, 0.0, 51)
MEANS = torch.tensor([[-2.0, 0.0], [2.0, 1.0]])
STD = 0.3


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def normal(x: Tensor, sigma: Tensor) -> Tensor:
    """Predicts x0 of N(0, 1)."""
    return x / (1.0 + sigma.reshape(-1, *[1] * (x.ndim - 1)).square())


def steered(*arguments: Any, **options: Any) -> Tensor:
    """Samples of a run that nothing is doubted of."""
    samples, report = steer(*arguments, **({"generator": 1} | options))
    assert not report.warnings
    return samples


CONVENTIONS: dict[str, tuple[Any, float, dict[str, Any]]] = {  # the network, the size of noise, and what steer is told
    "eps": (Ideal(MEANS, STD, "eps"), 1.0, {"alphas": ALPHAS}),
    "v": (Ideal(MEANS, STD, "v"), 1.0, {"alphas": ALPHAS}),
    "x0": (Ideal(MEANS, STD, "x0"), 1.0, {"alphas": ALPHAS}),
    "flow": (Ideal(MEANS, STD, "flow", "flow"), 1.0, {"times": TIMES}),
    "EDM": (Ideal(MEANS, STD, "x0", "ve"), 80.0, {"sigmas": SIGMAS, "predicts": "x0"}),
    "score": (Ideal(MEANS, STD, "score", "ve"), 80.0, {"sigmas": SIGMAS}),
    "EDM of wide data": (
        Ideal(16.0 * MEANS, 16.0 * STD, "x0", "ve"), 1280.0, {"sigmas": 16.0 * SIGMAS, "predicts": "x0", "scale": 16.0}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONVENTIONS)
@pytest.mark.filterwarnings("error")
def test_a_rewarded_mixture_in_every_convention(name: str) -> None:
    """exp(z_1 / 2) gives a mode at m the weight exp(m / 2), and moves its mean by the variance over 2."""
    network, size, options = CONVENTIONS[name]
    scale = options.get("scale", 1.0)
    options = {"predicts": name, "reward": lambda z: z[:, 0] / (2.0 * scale)} | options
    x = steered(network, size * noise(1000, 2), **options) / scale
    right = x[x[:, 0] > 0]
    share = 1.0 / (1.0 + math.exp(-2.0))
    # The error of a share of 1,000 independent samples, and as much of the particles
    assert len(right) / len(x) == pytest.approx(share, abs=3.0 * (2.0 * share * (1.0 - share) / 1000) ** 0.5)
    assert torch.allclose(right.mean(0), torch.tensor([2.0 + STD**2 / 2.0, 1.0]), atol=0.06)
    assert torch.allclose(right.std(0), torch.full((2,), STD), rtol=0.15)


def test_a_network_of_diffusers_in_five_lines() -> None:
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(8, 1, 1, block_out_channels=(4, 8), norm_num_groups=4, layers_per_block=1,
                       down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2)  # fmt: skip
    options: dict[str, Any] = {"predicts": "eps", "particles": 4, "steps": 5, "generator": 0}
    alphas = DDPMScheduler().alphas_cumprod

    def bright(z: Tensor) -> Tensor:
        return z.clamp(-1.0, 1.0).mean((1, 2, 3))

    samples, report = steer(
        lambda x, t: unet(x, t).sample, noise(2, 1, 8, 8), alphas, reward=bright, batch=3, **options
    )
    assert samples.shape == (2, 1, 8, 8)
    assert report.evaluations == 5 * 8
    assert not report.warnings
    again = steered(lambda x, t: unet(x, t).sample, noise(2, 1, 8, 8), alphas, reward=bright, **options)
    assert torch.allclose(samples, again, rtol=1e-4)


PRODUCTS: dict[str, tuple[dict[str, Any], float, float]] = {  # of N(1, 1/4) and N(-0.2, 1/4): mean and variance
    "their product over N(0, 1)": ({"weights": (1.0, 1.0, -1.0)}, 3.2 / 7.0, 1.0 / 7.0),
    "guidance": ({"weights": (1.5, 0.0, -0.5)}, 6.0 / 5.5, 1.0 / 5.5),
    "moves": ({"weights": (1.0, 1.0, -1.0), "smc": SMC(moves=MALA(moves=1))}, 3.2 / 7.0, 1.0 / 7.0),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_denoisers(name: str) -> None:
    options, mean, variance = PRODUCTS[name]
    a, b = (Ideal(torch.tensor([[m]]), 0.5, "x0", "ve") for m in (1.0, -0.2))
    x = steered([a, b, normal], 80.0 * noise(2000, 1), sigmas=SIGMAS, particles=2, **options)
    assert float(x.mean()) == pytest.approx(mean, abs=0.04)
    assert float(x.var()) == pytest.approx(variance, rel=0.12)


BENT: dict[str, tuple[Any, float, float, float, float]] = {  # f, y, std, a place, the share above
    "two slopes": (lambda z: torch.where(z < 0, -z, 5.0 * z), 1.0, 0.005, 0.0, 0.244),
    "a sine": (lambda z: torch.sin(3.0 * z), 0.5, 0.02, -1.2, 0.733),
    "a cubic": (lambda z: z**3 - 2.0 * z, 0.5, 0.02, 1.0, 0.083),
    "a sharp cubic": (lambda z: z**3, 0.5, 0.03, 0.5**(1.0 / 3.0), 0.479),
    "a small std": (lambda z: z, 0.5, 0.005, 0.5, 0.499),
}  # fmt: skip


@pytest.mark.parametrize("name", BENT)
def test_observations_that_are_bent_or_sharp(name: str) -> None:
    """Shares of the modes, and residuals of the size of the noise."""
    f, y, std, place, share = BENT[name]
    x = steered(normal, 80.0 * noise(1000, 1), sigmas=SIGMAS, observation=observe(f, [y], std))
    assert float((x > place).float().mean()) == pytest.approx(share, abs=0.05)
    residual = (f(x) - y) / std
    assert float(residual.square().mean() ** 0.5) == pytest.approx(1.0, abs=0.1)
    assert float(residual.abs().max()) < 5.0


def test_observations_of_wide_data() -> None:
    """z = (u, v) ~ N(0, 256), of which u + v and u are seen, one by a pair and one by a mask."""
    both = observe((lambda z: z.sum(1, keepdim=True), lambda w: w.expand(-1, 2)), [20.0], 16.0)
    mask = observe(torch.tensor([1.0, 0.0]), [8.0, 0.0], 16.0, variance=256.0)

    def wide(x: Tensor, sigma: Tensor) -> Tensor:
        return 16.0 * normal(x / 16.0, sigma / 16.0)

    options: dict[str, Any] = {"sigmas": 16.0 * SIGMAS, "observation": [both, mask], "scale": 16.0, "particles": 2}
    x = steered(wide, 1280.0 * noise(1000, 2), **options)
    # Precision 1/256 of [[3, 1], [1, 2]], and the right-hand side (28, 20)
    assert torch.allclose(x.mean(0), torch.tensor([7.2, 6.4]), atol=1.3)
    bent = observe(lambda z: z.sum(1, keepdim=True) / 16.0, [1.25], 1.0)
    x = steered(wide, 1280.0 * noise(1000, 2), **(options | {"observation": [bent, mask]}))
    assert torch.allclose(x.mean(0), torch.tensor([7.2, 6.4]), atol=1.3)


def test_what_a_reward_may_be() -> None:
    """The gradient of a reward moves particles to where few of them are; a constraint rules out."""
    far = {"reward": lambda z: 3.0 * z[:, 0], "gradient": True}
    x = steered(normal, 80.0 * noise(1000, 1), sigmas=SIGMAS, **far)
    assert float(x.mean()) == pytest.approx(3.0, abs=0.2)
    positive = {"constraint": lambda z: torch.where(z[:, 0] > 0.0, 0.0, math.inf)}
    x = steered(normal, 80.0 * noise(1000, 1), sigmas=SIGMAS, **positive)
    assert bool((x > 0.0).all())
    assert float(x.mean()) == pytest.approx((2.0 / math.pi) ** 0.5, abs=0.08)
    # Both, and the weight of a constraint: N(1, 1) times exp(-z^2)
    soft = constraint(lambda z: z[:, 0].square(), weight=1.0)
    x = steered(normal, 80.0 * noise(1000, 1), sigmas=SIGMAS, constraint=soft, reward=lambda z: z[:, 0])
    assert float(x.mean()) == pytest.approx(1.0 / 3.0, abs=0.06)


PLACES = torch.tensor([[-1.0, 0.4], [1.0, 0.8], [0.2, -1.2]])
SETS: dict[str, tuple[Any, Any]] = {  # the nearest point, and points of the set, evenly spaced
    "a circle": (
        lambda z: z / z.norm(dim=1, keepdim=True),
        lambda t: torch.stack([(math.pi * t).cos(), (math.pi * t).sin()], 1),
    ),
    "a line": (
        lambda z: z - (z.sum(1, keepdim=True) - 0.5) / 2.0,
        lambda t: torch.stack([4.0 * t, 0.5 - 4.0 * t], 1),
    ),
}  # fmt: skip


def distance(x: Tensor, y: Tensor) -> float:
    """W1 between samples in the plane."""
    from scipy.optimize import linear_sum_assignment

    apart = torch.cdist(x.double(), y.double()).numpy()
    return float(apart[linear_sum_assignment(apart)].mean())


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_met_exactly_and_the_density_along_it_kept(name: str) -> None:
    """W1 to exact samples is at most half of that of a constraint that is met to a hundredth; see benchmarks."""
    project, curve = SETS[name]
    grid = curve(torch.linspace(-1.0, 1.0, 4001, dtype=torch.float64)[:-1])
    density = -(grid[:, None] - PLACES).square().sum(2) / (2.0 * 0.4**2)
    picked = torch.multinomial(
        density.logsumexp(1).exp(), 500, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    network = Ideal(PLACES, 0.4, "eps")
    x = steered(network, noise(500, 2), ALPHAS, predicts="eps", project=project)
    assert float((x - project(x)).abs().max()) < 1e-5
    near = constraint(lambda z: (z - project(z)).square().sum(1) / (2.0 * 0.01**2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        y, _ = steer(network, noise(500, 2), ALPHAS, predicts="eps", constraint=near, generator=1)
    assert distance(x, grid[picked]) < 0.5 * distance(y, grid[picked])


def test_a_set_with_an_inside_an_observation_and_a_reward() -> None:
    """N(0, 1) beyond 1.5 has the mean 1.94; on the line u + v = 1, with u seen as 1 +- 1 and rewarded, it is normal."""
    far = steered(normal, 80.0 * noise(500, 1), sigmas=SIGMAS, project=lambda z: z.clamp(min=1.5))
    assert float(far.min()) >= 1.5
    assert float(far.mean()) == pytest.approx(1.94, abs=0.07)
    seen = observe(torch.tensor([1.0, 0.0]), [1.0, 0.0], 1.0)

    def line(z: Tensor) -> Tensor:  # without a gradient
        return z.detach() - (z.detach().sum(1, keepdim=True) - 1.0) / 2.0

    options: dict[str, Any] = {"project": line, "observation": seen, "reward": lambda z: z[:, 0]}
    x = steered(normal, 80.0 * noise(500, 2), sigmas=SIGMAS, **options)
    # Of u: precision 1 + 1 of the prior, 1 of y; 1 of the prior, 1 of y and 1 of the reward
    assert float(x[:, 0].mean()) == pytest.approx(1.0, abs=0.1)
    assert float(x[:, 0].var()) == pytest.approx(1.0 / 3.0, abs=0.07)


TRIANGLES = [
    torch.tensor([[0.0, 1.0], [0.9, -0.5], [-0.9, -0.5]]),
    torch.tensor([[0.0, 2.0], [1.0, -1.0], [-1.0, -1.0]]),
]


def centre(x: Tensor) -> Tensor:
    return x - x.mean(1, keepdim=True)


def fit(x0: Tensor, x: Tensor) -> Tensor:
    """Points x0 (B, 3, 2) turned and ordered as they are nearest to x: the best of all orders, by Kabsch."""
    best = torch.full((len(x),), -math.inf)
    fitted = x0
    for order in itertools.permutations(range(3)):
        one = x0[:, list(order)]
        u, _, vt = torch.linalg.svd(one.mT @ x)
        turned = one @ u @ torch.diag_embed(torch.stack([torch.ones(len(x)), torch.det(u @ vt)], 1)) @ vt
        match = (turned * x).sum((1, 2))
        fitted = torch.where((match > best)[:, None, None], turned, fitted)
        best = torch.maximum(best, match)
    return fitted


def span(x: Tensor) -> Tensor:
    """The longest side of triangles (B, 3, 2), by which the two kinds are told apart at 2.4."""
    return (x[:, :, None] - x[:, None]).norm(dim=3).amax((1, 2))


def test_sets_of_points_in_any_turn_and_order() -> None:
    """Two triangles in all turns and orders, as a mixture in closed form; the reward makes the larger one likelier."""
    turns = torch.arange(24) * (2.0 * math.pi / 24)
    turn = torch.stack([turns.cos(), turns.sin(), -turns.sin(), turns.cos()], 1).reshape(-1, 2, 2)
    every = [
        centre(one[list(order)][None])[0] @ turn for one in TRIANGLES for order in itertools.permutations(range(3))
    ]
    network = Ideal(torch.cat(every), 0.05, "x0", "ve")
    options: dict[str, Any] = {"sigmas": SIGMAS, "space": (centre, None)}
    x = steered(network, 80.0 * noise(400, 3, 2), reward=lambda z: 1.5 * (span(z) > 2.4), **options)
    assert float(x.mean(1).abs().max()) < 1e-4
    assert float((span(x) > 2.4).float().mean()) == pytest.approx(1.0 / (1.0 + math.exp(-1.5)), abs=0.08)


def test_predictions_in_another_pose_are_aligned() -> None:
    """A network that knows the triangle in one pose gives it in all of them."""
    shape = centre(TRIANGLES[1][None])

    def posed(x: Tensor, sigma: Tensor) -> Tensor:
        return shape.expand_as(x)

    options: dict[str, Any] = {"sigmas": SIGMAS, "particles": 1}
    x = steered(posed, 80.0 * noise(300, 3, 2), space=(centre, fit), **options)
    assert torch.allclose(span(x), span(shape).expand(300), atol=0.05)
    assert float(x[:, 0].mean(0).norm()) < 0.25
    still = steered(posed, 80.0 * noise(300, 3, 2), space=(centre, None), **options)
    assert torch.allclose(still, shape.expand_as(still), atol=0.05)


def test_the_report_says_whether_to_trust_the_samples() -> None:
    options: dict[str, Any] = {"sigmas": SIGMAS, "generator": 0}
    _, report = steer(normal, 80.0 * noise(100, 1), reward=lambda z: z[:, 0], **options)
    assert str(report).startswith("no reason to doubt the samples\neffective sample size: 0.")
    assert len(report.ess) == 50
    assert (report.ancestors or 0.0) > 100.0
    with pytest.warns(EnergycompWarning, match="collapsed: all 800 samples descend from about .* of the particles"):
        _, report = steer(normal, 80.0 * noise(100, 1), reward=lambda z: 30.0 * z[:, 0], **options)
    assert str(report).splitlines()[1].startswith("- the weights collapsed")
    apart = observe(lambda z: z.square() + 5.0, [0.0], 0.1)
    with pytest.warns(EnergycompWarning, match="samples miss the observation.*use more particles or steps"):
        steer(normal, 80.0 * noise(100, 1), observation=apart, **options)
    with pytest.warns(EnergycompWarning, match="the first level has 0.5 of the variance .* use a larger first sigma"):
        steer(normal, noise(100, 1), sigmas=[1.0, 0.1], reward=lambda z: z[:, 0], generator=0)
    assert str(SamplingReport(share_error=0.01, acceptance={9.0: 0.5})).splitlines()[1:3] == [
        "share of a mode: right within 0.02", "moves: 0.50 to 0.50 accepted"
    ]  # fmt: skip


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no levels": ({"sigmas": None}, "got 0 of alphas, sigmas and times; expected one"),
    "two kinds": ({"alphas": ALPHAS}, "got 2 of alphas, sigmas and times"),
    "one level": ({"sigmas": [1.0]}, r"got sigmas of shape \(1,\); expected two or more different numbers above 0"),
    "rising alphas": ({"sigmas": None, "alphas": ALPHAS.flip(0)}, "expected alphas_cumprod .* falling"),
    "minutes": ({"sigmas": None, "times": [60.0, 1.0]}, r"expected two or more different times in \(0, 1\]"),
    "another prediction": ({"predicts": "noise"}, "got predicts='noise'; expected one of 'x0', 'eps'"),
    "v of sigma": ({"predicts": "v"}, "told by sigma; expected variance-preserving samples"),
    "unit noise": ({"x_T": torch.randn(50, 2)}, r"give 80 \* torch.randn"),
    "whole numbers": ({"x_T": torch.ones(4, 2, dtype=torch.long)}, r"got x_T: torch.int64 \(4, 2\); expected noise"),
    "weights": ({"weights": (1.0, 2.0)}, "got 2 weights for 1 denoisers"),
    "particles": ({"particles": 0}, "got particles=0; expected a whole number"),
    "another shape": ({"denoise": lambda x, t: x[:, :1]}, r"got \(.*, 1\) from <lambda>; expected a tensor"),
    "an output": ({"denoise": lambda x, t: {"sample": x}}, r"got dict .* return it, such as unet\(x, t\).sample"),
    "no reward": ({"reward": lambda z: z}, "got .* of the reward <lambda>; expected energies"),
    "no projection": ({"project": lambda z: z + 1.0}, "and moves it by 1 then; expected the nearest points"),
    "a projection of another shape": (
        {"project": lambda z: z[:, :1]},
        r"project= that returns \(50, 1\) for \(50, 2\)",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    options = {"denoise": normal, "x_T": 80.0 * noise(50, 2), "sigmas": SIGMAS} | options
    with pytest.raises(InputError, match=message) as error:
        steer(**options)
    assert "\n" not in str(error.value)


def test_a_posterior_is_a_denoiser_again() -> None:
    """diffusers and a loop over sigma sample a posterior as `Composer` does: N(4/3, 1/3)."""
    from diffusers import DDIMScheduler

    posterior = Gaussian(0.0, 1.0) & observe(torch.ones(1, 1, 1), torch.full((1, 1, 1), 2.0), std=0.5**0.5)
    mean, variance = 4.0 / 3.0, 1.0 / 3.0
    scheduler = DDIMScheduler(trained_betas=None, beta_schedule="squaredcos_cap_v2", clip_sample=False)
    scheduler.set_timesteps(50)
    eps = as_denoiser(posterior, "eps")
    x = noise(2000, 1, 1, 1)
    for t in scheduler.timesteps:
        x = scheduler.step(eps(x, t), t, x).prev_sample
    assert float(x.mean()) == pytest.approx(mean, abs=0.05)
    # Euler's steps of the flow of probability, as in EDM
    x0 = as_denoiser(posterior, clock="sigma")
    y = 80.0 * noise(2000, 1, 1, 1)
    sigmas = torch.cat([torch.logspace(math.log10(80.0), -2.0, 200), torch.zeros(1)])
    for sigma, following in itertools.pairwise(sigmas):
        y = y + (following - sigma) * (y - x0(y, sigma)) / sigma
    assert float(y.mean()) == pytest.approx(mean, abs=0.05)
    assert float(y.var()) == pytest.approx(variance, rel=0.1)
    # And it can be steered
    z = steered(x0, 80.0 * noise(500, 1, 1, 1), sigmas=SIGMAS, reward=lambda z: 3.0 * z.flatten(1).sum(1))
    assert float(z.mean()) == pytest.approx(mean + 3.0 * variance, abs=0.12)


@pytest.mark.parametrize("predicts", ["x0", "eps", "score", "flow", "v"])
def test_a_composition_as_a_denoiser_predicts_every_kind(predicts: Any) -> None:
    network = Ideal(torch.tensor([[0.5]]), 1.0, predicts, "vp")
    sign = -1.0 if predicts == "flow" else 1.0  # of the test network, whose velocity is to the data
    component = Gaussian(0.5, 1.0, sample_shape=(1,))
    x, t = noise(8, 1), torch.full((8,), 400.0)
    assert torch.allclose(as_denoiser(component, predicts)(x, t), sign * network(x, t), atol=1e-4)
    # The same sample by its time in a flow
    signal, sigma = signal_noise(ALPHAS, t, ndim=2)
    if predicts != "v":
        time = sigma / (signal + sigma)
        x0 = as_denoiser(component, clock="time")(x / (signal + sigma), time[:, 0])
        assert torch.allclose(x0, as_denoiser(component)(x, 400.0), atol=1e-5)
    with pytest.raises(InputError, match="got clock='now'; expected"):
        as_denoiser(component, clock="now")  # type: ignore[arg-type]


def test_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(Path(__file__).parents[3] / "examples" / "steer.py"))
    assert capsys.readouterr().out.count("no reason to doubt the samples") == 3


def test_without_anything_to_steer_it_is_plain_sampling() -> None:
    x = steered(Ideal(torch.tensor([[0.5]]), 0.5, "eps"), noise(2000, 1), ALPHAS, predicts="eps", particles=1)
    y = Composer(Gaussian(0.5, 0.25)).sample(2000, sampler=SMC(), output_type="pt", generator=0, progress=False)
    assert float(x.std()) == pytest.approx(float(y.std()), rel=0.05)
