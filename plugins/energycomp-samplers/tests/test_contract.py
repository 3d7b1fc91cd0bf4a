"""One contract for all samplers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composition
from energycomp.errors import CompositionError, InputError
from energycomp.plugins import find, listing
from energycomp.sampling import AttributeGuidance, Sampler, Target, interval
from energycomp.testing import Gaussian, labels_model, planted, tinted_model, tiny_model
from energycomp_lab.checks import check_sampler
from energycomp_samplers.hmc import HMC
from energycomp_samplers.langevin import Langevin
from energycomp_samplers.mala import MALA
from energycomp_samplers.mixture import MixtureSampler
from energycomp_samplers.perpendicular import Perpendicular
from energycomp_samplers.rejection import Rejection
from energycomp_samplers.smc import SMC

SAMPLERS = {
    "smc": SMC,
    "langevin": SMC,
    "mala": SMC,
    "hmc": SMC,
    "mixture": MixtureSampler,
    "perpendicular": Perpendicular,
    "rejection": Rejection,
}
EXACT = ("smc", "mala")  # for products of any widths


@pytest.fixture
def half_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the check of moments, which these samplers pass within its bounds."""
    monkeypatch.setattr("energycomp_lab.checks.sampler.STEPS", 25)


@pytest.mark.usefixtures("half_the_steps")
@pytest.mark.parametrize("name", SAMPLERS)
def test_contract(name: str) -> None:
    sampler = find("samplers", name)()  # installed: found through the entry point
    assert type(sampler) is SAMPLERS[name]
    assert isinstance(sampler, Sampler)
    check_sampler(sampler, exact=name in EXACT)


@pytest.mark.usefixtures("half_the_steps")
@pytest.mark.parametrize(
    "sampler",
    [
        SMC(weights="fkc"),
        SMC(weights="energy"),
        SMC(moves=Langevin()),
        SMC(weights="energy", moves=MALA(test="energy")),
        SMC(particles=4, moves=HMC(persistence=0.5)),
        SMC(weights="none", particles=1, moves=MALA()),
        Rejection(SMC()),
    ],
    ids=str,
)
def test_contract_of_other_ways(sampler: Any) -> None:
    check_sampler(sampler, exact=True)


def test_the_plugin_works_and_registers_all_of_them() -> None:
    (info,) = [plugin for plugin in listing(load=True) if plugin.distribution == "energycomp-samplers"]
    assert info.error is None
    assert set(SAMPLERS) == set(info.registered["samplers"])


def drawn(component: Any, sampler: Any, n: int = 3, **options: Any) -> Tensor:
    composer = Composer(component)
    return composer.sample(n, sampler=sampler, num_inference_steps=4, output_type="pt", progress=False, **options)


@pytest.mark.parametrize(
    "sampler",
    [
        SMC(particles=3, resample_above=0.0, moves=MALA()),
        SMC(particles=3, resample_above=0.0, moves=HMC()),
        MixtureSampler(),
    ],
    ids=str,
)
def test_generators_of_each_sample(sampler: Any) -> None:
    model = tiny_model()
    both = model(0.2, 0.2) & model(0.7, 0.7)
    torch.testing.assert_close(drawn(both, sampler, 2, generator=[3, 4])[1:], drawn(both, sampler, 1, generator=[4]))
    with pytest.raises(InputError, match="one per sample"):
        drawn(both, sampler, 3, generator=[3, 4])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_flow_models_are_sampled(sampler: str) -> None:
    """Patterns of both labels on the background, from predictions of a flow."""
    model = labels_model(3, prediction_type="flow", spread=0.1)
    both = model(0) & model(2)
    component = model(0) | model(2) if sampler == "mixture" else both & ~model(1) if sampler == "rejection" else both
    samples = Composer(component).sample(
        2, sampler=sampler, num_inference_steps=10, generator=0, output_type="latent", progress=False
    )
    assert torch.isfinite(samples).all()
    if component is both:
        expected = planted(model, torch.tensor([0, 2]))
        assert float((samples - expected).square().mean().sqrt()) < 0.25


def test_a_swarm_takes_one_generator() -> None:
    with pytest.raises(InputError, match=r"2 generators for one swarm.*SMC\(particles=4\)"):
        drawn(Gaussian(), SMC(), 2, generator=[0, 1])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("rule", ["sum", "mean"])
def test_components_that_are_no_distributions_are_refused(sampler: str, rule: Any) -> None:
    model = labels_model(3, rule=rule)
    with pytest.raises(
        InputError, match=f"trained under the rule '{rule}'; expected components that are distributions"
    ):
        drawn(Composer([model(0), model(1)]), sampler)


def test_a_weight_of_no_distribution_is_refused() -> None:
    with pytest.raises(CompositionError, match="sum to 0; expected a positive sum"):
        drawn(Gaussian() - Gaussian(), SMC())


def test_conditions_of_each_sample_are_refused() -> None:
    model = tiny_model()
    with pytest.raises(InputError, match="with 3 conditions, one for each sample"):
        drawn(model.leaf(torch.rand(3, 2)), SMC())


@pytest.mark.parametrize("sampler", ["smc", "mixture"])
def test_rows_are_one_batch_a_step(sampler: str) -> None:
    """No loop over leaves calls the network: one trunk per sample and step, one row per leaf, sample and step."""
    from energycomp.denoisers import count_rows

    model = tiny_model()
    calls: list[int] = []
    model.denoiser.network.base.register_forward_hook(lambda _module, given, _made: calls.append(len(given[0])))
    with count_rows() as spent:
        drawn(model(0.2, 0.2) & model(0.7, 0.7), sampler)
    assert (spent.rows, spent.trunks) == (3 * 3 * 4, 3 * 4)
    assert calls == [3] * 4


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("guidance", [AttributeGuidance(2.0), interval(2.0, start=0.2, stop=1.0)], ids=str)
def test_guidance_that_varies_over_the_noise_level(name: str, guidance: Any) -> None:
    """Images of the closed form are known but for their weights, so that samples end where those of the end say."""
    model = tinted_model()
    both = model(0.2, 0.3, tint="red") & model(0.7, 0.8, tint="blue")
    x = drawn(both, find("samplers", name)(), guidance=guidance, generator=0)
    x0 = Target(guidance.weighted(both)).predict(torch.zeros(1, 3, 16, 16), torch.zeros(1), prediction_type="sample")
    weights = Target(guidance.weighted(both)).weights_at(0.0)
    expected = torch.einsum("k,kb...->b...", torch.tensor(weights), x0).clamp(-1, 1) / 2 + 0.5
    torch.testing.assert_close(x, expected.expand_as(x), atol=2e-3, rtol=0.0)


@pytest.mark.parametrize("guidance", [AttributeGuidance(2.0), interval(2.0, start=0.2, stop=1.0)], ids=str)
def test_each_component_of_a_mixture_is_guided(guidance: Any) -> None:
    model = tinted_model()
    parts = [model(0.2, 0.3, tint="red"), model(0.7, 0.8, tint="blue")]
    x = drawn(parts[0] | parts[1], MixtureSampler(), 8, guidance=guidance, generator=0)
    ends = [drawn(part, MixtureSampler(), 1, guidance=guidance, generator=0)[0] for part in parts]
    apart = torch.stack([(x - end).abs().flatten(1).amax(1) for end in ends])
    assert float(apart.min(0).values.max()) < 0.05
    assert float(apart.max(0).values.min()) > 0.1
    assert set(apart.argmin(0).tolist()) == {0, 1}


def test_what_guidance_of_attributes_subtracts_is_not_negated() -> None:
    model = tinted_model()
    a, c = model(0.2, 0.3, tint="red"), model(0.3, 0.4, tint="blue")
    guidance = AttributeGuidance(2.0)
    reports: list[Any] = []
    drawn(a & ~model(0.8, 0.8), Rejection(), guidance=guidance, generator=0, report=reports.append)
    assert (reports[0].drawn, reports[0].kept) == (3, 3)
    x = drawn(a & ~c, Perpendicular(), guidance=guidance, generator=0)
    leaves = {repr(leaf): leaf for leaf in guidance.weighted(a & ~c).terms}
    zero, at = torch.zeros(1, 3, 16, 16), torch.zeros(1)
    opened = leaves["tinted(0.2, 0.3, tint=red) without attributes"]
    u, red, grey, blue = Target(Composition([(leaf, 1.0) for leaf in (model.unconditional, a, opened, c)])).predict(
        zero, at, prediction_type="sample"
    )
    asked = 2.0 * (red - u) - (grey - u)
    against = -(blue - u)
    expected = u + asked + against - (against * asked).sum() / asked.square().sum() * asked
    torch.testing.assert_close(x, (expected.clamp(-1, 1) / 2 + 0.5).expand_as(x), atol=2e-3, rtol=0.0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_guidance_that_is_no_composition_is_refused(name: str) -> None:
    with pytest.raises(
        InputError, match=r"got the guidance AdaptiveProjected with a sampler.*'attributes', 'cfg' or 'int"
    ):
        drawn(tiny_model()(0.2, 0.2), find("samplers", name)(), guidance="apg")


def test_images_are_clipped_to_the_value_range() -> None:
    far = Gaussian(3.0, variance=1e-6, space="pixels", value_range=(-1.0, 1.0))
    for sampler in (SMC(), MixtureSampler()):
        assert drawn(far, sampler).flatten().tolist() == pytest.approx([1.0] * 3, abs=0.01)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_callback_may_replace_the_sample(sampler: str) -> None:
    def callback(step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        assert tensors["sample"].shape == (3, 1, 1, 1)
        return {"sample": torch.full_like(tensors["sample"], 0.25)} if step == 3 else None

    assert drawn(Gaussian(), sampler, callback_on_step_end=callback).flatten().tolist() == [0.25] * 3
