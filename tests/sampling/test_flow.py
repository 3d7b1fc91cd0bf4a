"""Flow matching: its schedulers, levels and samples, and components of two schedules, against closed forms."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from torch import Tensor

from energycomp import Composer, match_snr, per_sample
from energycomp.components import (
    Composition,
    NoisedSpace,
    cosine_schedule,
    flow_schedule,
    flow_time,
    log_snr,
    timestep_of,
)
from energycomp.components.prediction import PREDICTION_TYPES
from energycomp.denoisers import Conditional, count_rows
from energycomp.errors import CompositionError, InputError
from energycomp.sampling import make_scheduler, sample
from energycomp.testing import Gaussian, labels_model, tiny_model
from energycomp_lab.checks import check_component

FLOW = flow_schedule()
SCALED = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0).float()


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_the_schedule_has_the_levels_of_diffusers(shift: float) -> None:
    levels = FlowMatchEulerDiscreteScheduler(shift=shift).sigmas.flip(0).double()
    torch.testing.assert_close(
        flow_time(flow_schedule(1000, shift), torch.arange(1000.0)), levels, atol=4e-5, rtol=1e-4
    )


@pytest.mark.parametrize("wrong", [{"steps": 1}, {"shift": 0.0}, {"shift": float("inf")}, {"shift": -1.0}])
def test_schedules_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected at least 2 steps and a finite shift above 0"):
        flow_schedule(**wrong)


def test_timesteps_of_equal_log_snr() -> None:
    timestep = torch.tensor([0.0, 0.5, 250.3, 998.7, 999.0])
    torch.testing.assert_close(timestep_of(FLOW, log_snr(FLOW, timestep)).float(), timestep, atol=1e-3, rtol=0)
    other = timestep_of(cosine_schedule(), log_snr(FLOW, timestep[2:4]))
    torch.testing.assert_close(log_snr(cosine_schedule(), other), log_snr(FLOW, timestep[2:4]), atol=1e-6, rtol=1e-6)
    assert timestep_of(SCALED, torch.tensor([50.0, -50.0])).tolist() == [0.0, 999.0]
    flat = torch.tensor([0.9, 0.5, 0.5, 0.1])
    assert float(log_snr(flat, timestep_of(flat, torch.tensor([0.0])))) == 0.0


@pytest.mark.parametrize("flow", [True, False])
@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        FlowMatchEulerDiscreteScheduler(num_train_timesteps=100),  # fewer than the composition
        "flowmatchheundiscrete",
    ],
)
def test_samples_of_a_gaussian_are_the_affine_map_of_its_noise(scheduler: Any, flow: bool) -> None:
    """The probability-flow ODE takes noise z to mean + std z, whatever the path."""
    gaussian = Gaussian(0.3, 0.25, sample_shape=(1, 1, 2), alphas_cumprod=FLOW if flow else cosine_schedule())
    made = make_scheduler(scheduler, gaussian.alphas_cumprod, prediction_type="epsilon")
    noise = torch.linspace(-2, 2, 8).view(4, 1, 1, 2)

    def predict(x: Tensor, timestep: Tensor, kind: str) -> Tensor:
        assert kind == "flow"
        signal, sigma = gaussian.noised_space.levels(timestep)
        eps = gaussian.eps(x, timestep)
        return eps - (x - sigma * eps) / signal

    x = sample(predict, noise.shape, made, num_inference_steps=200, initial=noise, progress=False)
    torch.testing.assert_close(x, 0.3 + 0.5 * noise, atol=0.02, rtol=0)


def test_euler_is_the_loop_of_diffusers_bit_for_bit() -> None:
    """A flow model in a pipeline's own loop, with its shift and the network's own samples."""
    model = tiny_model(prediction_type="flow")
    leaf, network = model(0.3, 0.6), model.denoiser.network
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(6)
    x = noise = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        own = (t - 1).expand(2)  # diffusers counts timesteps from 1
        with torch.no_grad():
            features = network.features(x, own)
            v = network.head(features, leaf.condition.expand(2), torch.arange(2))
        x = scheduler.step(v, t, x, return_dict=False)[0]
    got = Composer(leaf).sample(
        2,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        num_inference_steps=6,
        generator=0,
        output_type="latent",
        progress=False,
    )
    torch.testing.assert_close(got, x, atol=2e-3, rtol=1e-3)
    assert not torch.allclose(got, noise, atol=0.1)


@pytest.mark.parametrize("scheduler", [None, "dpmsolvermultistep", "unipcmultistep", "eulerdiscrete"])
def test_variance_preserving_samplers_sample_from_flows(scheduler: str | None) -> None:
    model = labels_model(4, prediction_type="flow")
    with count_rows() as spent:
        got = Composer([model(1), model(3)]).sample(
            2, scheduler=scheduler, num_inference_steps=20, generator=0, output_type="latent", progress=False
        )
    network: Any = model.denoiser.network
    expected = network.background + network.pattern(model.conditioner(torch.tensor([1, 3])).rows[:, 0]).sum(0)
    torch.testing.assert_close(got, expected.expand_as(got).detach(), atol=0.02, rtol=0)
    assert spent.rows == 2 * 3 * 20


def test_built_levels_are_trailing_timesteps_of_the_composition() -> None:
    for name, calls in (("flowmatcheulerdiscrete", 1), ("FlowMatchHeunDiscreteScheduler", 2)):
        made = make_scheduler(name, FLOW, prediction_type="flow")
        made.set_timesteps(4)
        assert made.timesteps.tolist() == pytest.approx([999.0, *([749.0] * calls + [499.0] * calls + [249.0] * calls)])
        assert made.inner.sigmas.tolist()[-1] == 0.0
        assert make_scheduler(made, FLOW, prediction_type="flow") is made


def made_for(scheduler: Any, alphas: Tensor = SCALED) -> Any:
    return make_scheduler(scheduler, alphas, prediction_type="epsilon")


def both(**options: Any) -> tuple[Gaussian, Gaussian]:
    return tuple(  # type: ignore[return-value]
        Gaussian(mean, variance, name=name, alphas_cumprod=alphas, sample_shape=(1, 2, 2), **options)
        for name, alphas, mean, variance in (("vp", cosine_schedule(), 0.5, 0.3), ("flow", FLOW, -0.2, 0.3))
    )


VP_SPACE, FLOW_SPACE = (component.noised_space for component in both())
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "dynamic shifting": (
        lambda: made_for(FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)),
        "shift depends on the resolution",
    ),
    "inverted": (lambda: made_for(FlowMatchEulerDiscreteScheduler(invert_sigmas=True)), "invert_sigmas=True"),
    "other ends": (lambda: made_for(FlowMatchEulerDiscreteScheduler()), r"starts at the noise level 1, .* ends at 0.9"),
    "another schedule": (lambda: made_for(DDIMScheduler(), FLOW), "expected the composition's"),
    "two schedules": (
        lambda: Composition.of(both()[0]) + both()[1],
        r"got vp and flow with different .*match_snr\(flow, space\)",
    ),
    "another shape": (
        lambda: match_snr(Gaussian(alphas_cumprod=FLOW, sample_shape=(1, 2, 3)), VP_SPACE),
        r"got gaussian with sample_shape \(1, 2, 3\) for a space with .*; expected one sample_shape",
    ),
    "a component as space": (lambda: match_snr(both()[1], both()[0]), "got an object of Gaussian as the space; exp"),
    "a name": (lambda: match_snr("flow", VP_SPACE), "got str; expected a component"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_schedulers_and_spaces_that_do_not_fit(case: str) -> None:
    attempt, said = REFUSED[case]
    with pytest.raises((CompositionError, InputError), match=said):
        attempt()


def test_schedulers_that_are_built_fit_any_schedule() -> None:
    assert made_for(FlowMatchEulerDiscreteScheduler).own_levels
    assert made_for(FlowMatchHeunDiscreteScheduler(shift=2.0), FLOW).inner.order == 2


def test_matched_components_are_those_of_one_schedule() -> None:
    vp, flow = both()
    same = Gaussian(-0.2, 0.3, sample_shape=(1, 2, 2))  # of the schedule of vp
    matched = match_snr(flow, vp.noised_space)
    x, timestep = torch.randn(4, 1, 2, 2), torch.tensor([1.0, 120.5, 700.0, 990.0])
    torch.testing.assert_close(matched.eps(x, timestep), same.eps(x, timestep), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(matched.energy(x, timestep), same.energy(x, timestep), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close((vp - 2 * matched).eps(x, timestep), (vp - 2 * same).eps(x, timestep), atol=1e-3, rtol=0)
    mixed, expected = vp | matched, vp | same
    torch.testing.assert_close(mixed.eps(x, timestep), expected.eps(x, timestep), atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(
        match_snr(vp | vp, FLOW_SPACE).eps(x, timestep), match_snr(vp, FLOW_SPACE).eps(x, timestep)
    )
    check_component(matched)


LINEAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)


@pytest.mark.parametrize("own", [SCALED, LINEAR])
@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "dpmsolvermultistep", "eulerdiscrete", "flowmatcheulerdiscrete"])
def test_samples_from_noisier_levels_than_the_own_schedule_has(scheduler: str, own: Tensor) -> None:
    """Both parts are N(0.7, 0.5^2), and so is their mean."""
    space = FLOW if own is LINEAR else cosine_schedule()
    matched, given = (Gaussian(0.7, 0.25, alphas_cumprod=alphas) for alphas in (own, space))
    composer = Composer(0.5 * given + 0.5 * match_snr(matched, given.noised_space))
    x = composer.sample(2000, scheduler=scheduler, generator=0, output_type="latent", progress=False)
    assert float(x.mean()) == pytest.approx(0.7, abs=0.02)
    assert float(x.std()) == pytest.approx(0.5, abs=0.04)


def spread_leaf(kind: Any) -> Conditional:
    """Images N(m, 0.2^2) at each pixel under the schedule of Stable Diffusion, as a network of any prediction type."""
    model = labels_model(3, spread=0.2, prediction_type=kind)
    network: Any = model.denoiser.network
    network.alphas_cumprod = SCALED
    denoiser = attrs.evolve(model.denoiser, alphas_cumprod=SCALED, value_range=None)
    return Conditional(denoiser, model(1).condition)


@torch.no_grad()
@pytest.mark.parametrize("kind", PREDICTION_TYPES)
def test_predictions_beyond_the_ends_of_the_own_schedule(kind: Any) -> None:
    """By hand: x0 of the noisy end at noisier levels, and the score of the other end at less noisy ones."""
    leaf, space = spread_leaf(kind), NoisedSpace(FLOW, (3, 16, 16))
    network: Any = leaf.denoiser.network
    mean = (network.background + network.pattern(leaf.condition.rows[:, 0])).double()
    x, timestep = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([998.0, 5.0])
    (noisy, clean), matched = space.alphas_cumprod[[998, 5]].double(), match_snr(leaf, space)
    assert noisy < SCALED[-1] < SCALED[0] < clean
    wide, s, n = x.double(), SCALED.double().sqrt(), (1 - SCALED.double()).sqrt()
    score = (s * mean.unsqueeze(-1) - wide.unsqueeze(-1)) / (0.04 * s**2 + n**2)  # of all own timesteps
    x0 = (wide + n[-1] ** 2 * score[..., -1]) / s[-1]
    torch.testing.assert_close(
        matched.eps(x, timestep)[0].double(), (wide[0] - noisy.sqrt() * x0[0]) / (1 - noisy).sqrt(), atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        matched.eps(x, timestep)[1].double(), -(1 - clean).sqrt() * score[1, ..., 0], atol=1e-4, rtol=1e-3
    )
    images = Composer(matched).sample(64, generator=0, output_type="latent", progress=False)
    assert float((images.mean(0) - mean[0]).square().mean().sqrt()) < 0.2 / 64**0.5 * 1.5


@pytest.mark.parametrize("kind", [torch.int64, torch.float16, torch.float64])
def test_timesteps_of_any_type_are_matched(kind: torch.dtype) -> None:
    """Steps of a schedule of ten timesteps lie far apart: a rounded one would be another level."""
    coarse = Gaussian(0.7, 0.25, alphas_cumprod=flow_schedule(10))
    same, x, timestep = Gaussian(0.7, 0.25), torch.randn(3, 1, 1, 1), torch.tensor([300, 500, 700])
    got = match_snr(coarse, same.noised_space).eps(x, timestep.to(kind))
    torch.testing.assert_close(got, same.eps(x, timestep), atol=1e-4, rtol=1e-4)


def test_energies_beyond_the_ends_of_the_own_schedule_are_those_of_the_predictions() -> None:
    matched = match_snr(Gaussian(0.7, 0.25, sample_shape=(1, 2, 2), alphas_cumprod=SCALED), FLOW_SPACE)
    x, timestep = torch.randn(5, 1, 2, 2, dtype=torch.float64), torch.tensor([0.0, 5.0, 500.0, 950.0, 999.0])
    x.requires_grad_()
    (score,) = torch.autograd.grad(matched.energy(x, timestep).sum(), x)
    noise = (1 - FLOW[timestep.long()].double()).sqrt()[:, None, None, None]
    torch.testing.assert_close(noise * score, matched.eps(x, timestep).detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("sampler", ["smc", "mala"])
def test_products_of_matched_components(sampler: str) -> None:
    """a b / u is N(0.457, 0.143); 100 steps come to levels beyond both ends of the own schedule."""
    u = Gaussian(0.0, 1.0, unconditional="self", alphas_cumprod=SCALED)
    a, b = (Gaussian(mean, 0.25, unconditional=u, alphas_cumprod=SCALED) for mean in (1.0, -0.2))
    product = match_snr(a & b, Gaussian().noised_space)
    x = Composer(product).sample(
        500, sampler=sampler, num_inference_steps=100, generator=0, output_type="latent", progress=False
    )
    assert (float(x.mean()), float(x.var())) == pytest.approx((0.457, 0.143), abs=0.04)


def test_matched_leaves_of_a_denoiser_are_one_batch_and_share_u() -> None:
    vp, flow = tiny_model(seed=1), tiny_model(prediction_type="flow")
    space = vp.denoiser.noised_space
    a, b = (match_snr(flow(x, x), space) for x in (0.2, 0.7))
    assert match_snr(flow(0.2, 0.2), space).unconditional is a.unconditional is b.unconditional
    assert match_snr(a, space) is a
    assert repr(a & b) == "-u + tiny(0.2, 0.2) + tiny(0.7, 0.7)"
    whole = Composer(0.5 * (vp(0.1, 0.1) & vp(0.5, 0.5)) + 0.5 * (a & b))
    with count_rows() as spent:
        images = whole.sample(2, num_inference_steps=4, generator=0, output_type="pt", progress=False)
    assert (spent.rows, spent.trunks) == (2 * 4 * 6, 2 * 4 * 2)  # two trunks per sample and step: one per denoiser
    assert torch.isfinite(images).all()
    together = match_snr(flow(0.2, 0.2) & flow(0.7, 0.7), space)
    x, timestep = torch.randn(1, 3, 16, 16), torch.tensor([400.0])
    assert torch.equal(together.eps(x, timestep), (a & b).eps(x, timestep))


def test_matched_leaves_of_some_samples_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    vp, flow = tiny_model(seed=1), tiny_model(prediction_type="flow")
    a, b = (match_snr(flow(x, x), vp.denoiser.noised_space) for x in (0.2, 0.7))
    x, timestep = torch.randn(2, 3, 16, 16), torch.tensor([400.0, 900.0])
    expected = torch.cat([one.eps(x[i : i + 1], timestep[i : i + 1]) for i, one in enumerate((a & b, 2 * a))])
    network: Any = flow.denoiser.network
    calls, head = [], network.head
    monkeypatch.setattr(network, "head", lambda *arguments: calls.append(1) or head(*arguments))
    with count_rows() as spent:
        torch.testing.assert_close(per_sample([a & b, 2 * a]).eps(x, timestep), expected, atol=1e-4, rtol=1e-4)
    assert (len(calls), spent.rows) == (1, 3 + 1)
