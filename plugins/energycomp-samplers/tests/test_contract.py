"""One contract for all samplers, and for their options. Degenerate input: right samples, a warning, or one error."""

import math
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from energycomp import Composer, during, per_sample, region
from energycomp.components import Composition, Mixture
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError, NonFiniteError
from energycomp.plugins import find, listing
from energycomp.sampling import AttributeGuidance, Sampler, SamplingReport, Target, interval
from energycomp.testing import Gaussian, labels_model, planted, tinted_model, tiny_model
from energycomp_lab.checks import check_sampler
from energycomp_samplers import within
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.hmc import HMC
from energycomp_samplers.langevin import Langevin
from energycomp_samplers.mala import MALA
from energycomp_samplers.mixture import MixtureSampler
from energycomp_samplers.perpendicular import Perpendicular
from energycomp_samplers.rejection import Rejection
from energycomp_samplers.smc import SMC

REGISTERED = dict.fromkeys(("smc", "langevin", "mala", "hmc"), SMC) | {
    "gauss": Gauss, "mixture": MixtureSampler, "perpendicular": Perpendicular, "rejection": Rejection
}  # fmt: skip
EXACT = ("smc", "mala", "gauss")  # for products of any widths
CHECKED: list[Any] = [  # exact, too
    SMC(weights="fkc"),
    SMC(weights="energy"),
    SMC(moves=Langevin()),
    SMC(weights="energy", moves=MALA()),
    SMC(particles=4, moves=HMC(moves=2)),
    SMC(weights="none", particles=1, moves=MALA()),
    Rejection(SMC()),
]
SAMPLERS: dict[str, Any] = {
    "rne": SMC(),
    "fkc": SMC(weights="fkc"),
    "energy": SMC(weights="energy"),
    "particles": SMC(particles=4, resample_above=0.0),
    "rne, mala": SMC(moves=MALA()),
    "particles, mala": SMC(particles=3, resample_above=0.0, moves=MALA()),
    "particles, hmc": SMC(particles=3, resample_above=0.0, moves=HMC()),
    "rne, hmc": SMC(moves=HMC()),
    "energy, hmc": SMC(weights="energy", moves=HMC()),
    "langevin": find("samplers", "langevin")(moves=3),
    "mala": find("samplers", "mala")(),
    "hmc": find("samplers", "hmc")(),
    "gauss": Gauss(),
    "mixture": MixtureSampler(),
}
WITH_ENERGIES = [name for name in SAMPLERS if "energ" in name]
SWARMS = [
    name for name, one in SAMPLERS.items() if isinstance(one, SMC) and one.weights != "none" and one.particles is None
]
IDENTICAL = [name for name in SAMPLERS if "rne" in name or name in {"fkc", "particles"}]  # weights, of equal scores


def drawn(component: Any, sampler: Any, n: int = 3, steps: int = 4, **options: Any) -> tuple[Tensor, SamplingReport]:
    reports: list[SamplingReport] = []
    options = {"generator": 0, "output_type": "latent", "progress": False, "report": reports.append} | options
    x = Composer(component).sample(n, sampler=sampler, num_inference_steps=steps, **options)
    return x, reports[0]


def product(name: str, a: Any, b: Any) -> Any:
    """A composition of two for a sampler."""
    return a | b if name == "mixture" else a + b - Gaussian()


@attrs.frozen(eq=False, repr=False)
class Wrong(Gaussian):
    """A Gaussian whose prediction, or energy, is wrong below timestep 500."""

    value: float = math.nan
    of: str = "eps"

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self._wrong("eps", super().eps(sample, timestep), timestep)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self._wrong("energy", super().energy(sample, timestep), timestep)

    def _wrong(self, of: str, right: Tensor, timestep: Tensor) -> Tensor:
        return torch.full_like(right, self.value) if of == self.of and float(timestep[0]) < 500 else right


@pytest.mark.parametrize("name", [*REGISTERED, *map(repr, CHECKED)])
def test_contract(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 25 if name == repr(SMC(weights="energy")) else 15  # of 50: fewer steps are within its bounds, too
    monkeypatch.setattr("energycomp_lab.checks.sampler.STEPS", steps)
    if name not in REGISTERED:
        check_sampler(next(one for one in CHECKED if repr(one) == name), exact=True)
        return
    sampler = find("samplers", name)()  # installed: found through the entry point
    assert type(sampler) is REGISTERED[name]
    assert isinstance(sampler, Sampler)
    check_sampler(sampler, exact=name in EXACT)


def test_the_plugin_works_and_registers_all_of_them() -> None:
    (info,) = [plugin for plugin in listing(load=True) if plugin.distribution == "energycomp-samplers"]
    assert info.error is None
    assert set(REGISTERED) == set(info.registered["samplers"])


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("cancel", [False, True])
def test_one_component_and_those_that_cancel(name: str, cancel: bool) -> None:
    """Every particle has the same weight, and none is lost."""
    same, other = Gaussian(0.4, 0.25), Gaussian(0.4, 0.25)
    component = same if not cancel else same | other if name == "mixture" else other + same - other
    x, report = drawn(component, SAMPLERS[name], 2000, 20)
    assert float(x.mean()) == pytest.approx(0.4, abs=0.06)
    assert float(x.var()) == pytest.approx(0.25, rel=0.2)
    assert report.warnings == ()
    if name in IDENTICAL:
        assert min(report.ess) == pytest.approx(1.0)
    if name in IDENTICAL and SAMPLERS[name].particles is None:
        assert len(x.unique()) > 1990


@pytest.mark.parametrize("name", SAMPLERS)
@given(n=st.integers(1, 5), steps=st.integers(1, 3), mean=st.floats(-1.0, 1.0))
@settings(max_examples=5, deadline=None, derandomize=True)
def test_few_samples_and_steps(name: str, n: int, steps: int, mean: float) -> None:
    """At the noisy end the prediction of x0 is the mean of the data, at which one step ends."""
    x, report = drawn(Gaussian(mean) + Gaussian(0.1) - Gaussian(0.0), SAMPLERS[name], n, steps)
    assert x.shape == (n, 1, 1, 1)
    assert torch.isfinite(x).all()
    assert report.evaluations >= 3 * n * steps
    assert all(0 < share <= 1 + 1e-9 for share in report.ess)
    x, report = drawn(Gaussian(mean, 0.25), SAMPLERS[name], n, 1)
    assert float((x - mean).abs().max()) < 0.01
    assert report.warnings == ()


@pytest.mark.parametrize("name", ["rne", "fkc", "energy"])
def test_a_collapse_is_reported(name: str) -> None:
    """The product has its mode where a millionth of the particles begin."""
    sides = [Gaussian(-3.0, 0.05), Gaussian(3.0, 0.05)]
    far, back = (Mixture(sides, torch.tensor(w).log()) for w in ([0.001, 0.999], [0.999999, 0.000001]))
    sampler = attrs.evolve(SAMPLERS[name], resample_above=0.0, resample_below=1e-9)
    x, report = drawn(far + back - Mixture(sides), sampler, 200, 50)
    assert torch.isfinite(x).all()
    assert min(report.ess) < 0.1
    assert any("the weights collapsed" in warning and "use more particles" in warning for warning in report.warnings)
    assert len(report.log_weights[0]) == 200


@pytest.mark.parametrize("sampler", REGISTERED)
def test_flow_models_are_sampled(sampler: str) -> None:
    """Patterns of both labels on the background, from predictions of a flow."""
    model = labels_model(3, prediction_type="flow", spread=0.1)
    both = model(0) & model(2)
    component = model(0) | model(2) if sampler == "mixture" else both & ~model(1) if sampler == "rejection" else both
    samples, _ = drawn(component, sampler, 2, 10)
    assert torch.isfinite(samples).all()
    if component is both:
        expected = planted(model, torch.tensor([0, 2]))
        assert float((samples - expected).square().mean().sqrt()) < 0.25


def test_images_are_clipped_to_the_value_range() -> None:
    far = Gaussian(3.0, variance=1e-6, space="pixels", value_range=(-1.0, 1.0))
    for sampler in (SMC(), MixtureSampler(), Perpendicular(), Rejection()):
        assert drawn(far, sampler)[0].flatten().tolist() == pytest.approx([1.0] * 3, abs=0.01)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_list_of_generators(name: str) -> None:
    """One for each sample, which then does not depend on its batch; or one error that says what to do."""
    sampler = SAMPLERS[name]
    model = tiny_model()
    both = Gaussian(0.4, 0.25) if name in WITH_ENERGIES else model(0.2, 0.2) & model(0.7, 0.7)
    if name in SWARMS:
        with pytest.raises(InputError, match=r"3 generators for one swarm.*one generator, or particles.*particles=4"):
            drawn(both, sampler, generator=[0, 1, 2])
        return
    whole, part = (drawn(both, sampler, len(seeds), generator=seeds)[0] for seeds in ([0, 1, 2], [1, 2]))
    torch.testing.assert_close(whole[1:], part)
    with pytest.raises(InputError, match=r"got a list of 2, expected one generator or 3, one per sample"):
        drawn(both, sampler, generator=[0, 1])


def test_a_callback_may_end_a_run() -> None:
    """n samples are what there is, also of several particles each, and of samples that nobody has judged."""
    u = Gaussian(name="u", unconditional="self")
    a, b = (Gaussian(mean, 0.2, name, unconditional=u) for mean, name in ((0.5, "a"), (-0.5, "b")))
    steps: list[int] = []

    def callback(step: int, _: Any, __: Any) -> dict[str, bool]:
        steps.append(step)
        return {"stop": step == 1}

    for sampler in (*SAMPLERS.values(), Perpendicular(), Rejection(SMC())):
        steps.clear()
        asked = a | b if isinstance(sampler, MixtureSampler) else a & ~b if not isinstance(sampler, SMC) else a & b
        x, _ = drawn(asked, sampler, callback_on_step_end=callback)
        assert (x.shape, steps) == ((3, 1, 1, 1), [0, 1])


@pytest.mark.parametrize("sampler", ["smc", "mixture"])
def test_rows_are_one_batch_a_step(sampler: str) -> None:
    """No loop over leaves calls the network: one trunk per sample and step, one row per leaf, sample and step."""
    model = tiny_model()
    calls: list[int] = []
    model.denoiser.network.base.register_forward_hook(lambda _module, given, _made: calls.append(len(given[0])))
    with count_rows() as spent:
        drawn(model(0.2, 0.2) & model(0.7, 0.7), sampler)
    assert (spent.rows, spent.trunks) == (3 * 3 * 4, 3 * 4)
    assert calls == [3] * 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_not_finite_is_named_and_energies_are_not_asked_without_need(name: str) -> None:
    """NaN is in the contract of the lab."""
    at = r"in step 11 of 20 \(timestep 499\)"
    with pytest.raises(NonFiniteError, match=f"a prediction of broken that is not finite.*{at}"):
        drawn(product(name, Gaussian(), Wrong(name="broken", value=math.inf)), SAMPLERS[name], 4, 20)
    for value in (math.nan, math.inf):
        component = product(name, Gaussian(), Wrong(name="broken", value=value, of="energy"))
        if name not in WITH_ENERGIES:
            assert torch.isfinite(drawn(component, SAMPLERS[name], 4, 20)[0]).all()
            continue
        with pytest.raises(NonFiniteError, match=f"an energy of broken that is not finite.*{at}"):
            drawn(component, SAMPLERS[name], 4, 20)


@pytest.mark.parametrize("sampler", ["perpendicular", "rejection"])
def test_a_negated_component_that_is_not_finite_is_named(sampler: str) -> None:
    u = Gaussian(name="u", unconditional="self")
    with pytest.raises(NonFiniteError, match="prediction of broken that is not finite"):
        drawn(Gaussian(name="a", unconditional=u) & ~Wrong(name="broken", unconditional=u), sampler)


@pytest.mark.parametrize("sampler", REGISTERED)
def test_what_every_sampler_refuses(sampler: str) -> None:
    for rule in ("sum", "mean"):
        model = labels_model(3, rule=rule)
        with pytest.raises(InputError, match=f"under the rule '{rule}'; expected components that are distributions"):
            drawn(Composer([model(0), model(1)]), sampler)
    with pytest.raises(InputError, match=r"AdaptiveProjected with a sampler.*'attributes', 'cfg' or 'interval'"):
        drawn(tiny_model()(0.2, 0.2), sampler, guidance="apg")
    with pytest.raises(InputError, match="with 3 conditions, one for each sample"):
        drawn(tiny_model().leaf(torch.rand(3, 2)), sampler)
    within_left = within("left half", tiny_model().leaf(torch.rand(3, 2)), background=torch.zeros(3, 16, 16))
    with pytest.raises(InputError, match="with 3 conditions, one for each sample"):
        drawn(within_left, sampler)
    model = tiny_model()
    a, b = model(0.2, 0.2), model(0.8, 0.7)
    left = region("left half")
    for varying in (left * a & b, 2 * a & ~(during(until=0.4) * left * b), per_sample([a, a & b, b])):
        with count_rows() as spent, pytest.raises(InputError, match=r"all that this sampler takes|varies over samples"):
            drawn(varying, sampler)
        assert spent.rows == 0


def test_what_smc_refuses() -> None:
    with pytest.raises(CompositionError, match="sum to 0; expected a positive sum"):
        drawn(Gaussian() - Gaussian(), SMC())
    for moves in (MALA(), HMC(), Langevin()):
        with pytest.raises(InputError, match="particles=4 with weights='none'; expected weights"):
            SMC(weights="none", particles=4, moves=moves)


@pytest.mark.parametrize("name", REGISTERED)
@pytest.mark.parametrize("guidance", [AttributeGuidance(2.0), interval(2.0, start=0.2, stop=1.0)], ids=str)
def test_guidance_that_varies_over_the_noise_level(name: str, guidance: Any) -> None:
    """Images of the closed form are known but for their weights, so that samples end where those of the end say."""
    model = tinted_model()
    both = model(0.2, 0.3, tint="red") & model(0.7, 0.8, tint="blue")
    x, _ = drawn(both, name, guidance=guidance)
    x0 = Target(guidance.weighted(both)).predict(torch.zeros(1, 3, 16, 16), torch.zeros(1), prediction_type="sample")
    weights = Target(guidance.weighted(both)).weights_at(0.0)
    expected = torch.einsum("k,kb...->b...", torch.tensor(weights), x0).clamp(-1, 1)
    torch.testing.assert_close(x, expected.expand_as(x), atol=4e-3, rtol=0.0)


@pytest.mark.parametrize("guidance", [AttributeGuidance(2.0), interval(2.0, start=0.2, stop=1.0)], ids=str)
def test_each_component_of_a_mixture_is_guided(guidance: Any) -> None:
    model = tinted_model()
    parts = [model(0.2, 0.3, tint="red"), model(0.7, 0.8, tint="blue")]
    x, _ = drawn(parts[0] | parts[1], "mixture", 8, guidance=guidance)
    ends = [drawn(part, "mixture", 1, guidance=guidance)[0] for part in parts]
    apart = torch.stack([(x - end).abs().flatten(1).amax(1) for end in ends])
    assert float(apart.min(0).values.max()) < 0.1
    assert float(apart.max(0).values.min()) > 0.2
    assert set(apart.argmin(0).tolist()) == {0, 1}


def test_what_guidance_of_attributes_subtracts_is_not_negated() -> None:
    model = tinted_model()
    a, c = model(0.2, 0.3, tint="red"), model(0.3, 0.4, tint="blue")
    guidance = AttributeGuidance(2.0)
    _, report = drawn(a & ~model(0.8, 0.8), "rejection", guidance=guidance)
    assert (report.drawn, report.kept) == (3, 3)
    x, _ = drawn(a & ~c, "perpendicular", guidance=guidance)
    (opened,) = [leaf for leaf in guidance.weighted(a).terms if "without attributes" in repr(leaf)]
    leaves = Target(Composition([(leaf, 1.0) for leaf in (model.unconditional, a, opened, c)]))
    u, red, grey, blue = leaves.predict(torch.zeros(1, 3, 16, 16), torch.zeros(1), prediction_type="sample")
    asked = 2.0 * (red - u) - (grey - u)
    against = -(blue - u)
    expected = u + asked + against - (against * asked).sum() / asked.square().sum() * asked
    torch.testing.assert_close(x, expected.clamp(-1, 1).expand_as(x), atol=4e-3, rtol=0.0)
