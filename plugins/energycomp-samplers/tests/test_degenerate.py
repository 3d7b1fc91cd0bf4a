"""Degenerate input for every sampler: right samples, a warning in the report, or one error that says what to do."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composable, Mixture, NoisedSpace
from energycomp.errors import InputError, NonFiniteError
from energycomp.plugins import find
from energycomp.sampling import SamplingReport
from energycomp.testing import Gaussian
from energycomp_samplers.hmc import HMC
from energycomp_samplers.langevin import Langevin
from energycomp_samplers.mala import MALA
from energycomp_samplers.mixture import MixtureSampler
from energycomp_samplers.smc import SMC

PRODUCTS: dict[str, Any] = {  # samplers of sums and products
    "rne": SMC(),
    "fkc": SMC(weights="fkc"),
    "energy": SMC(weights="energy"),
    "particles": SMC(particles=4),
    "rne, mala": SMC(moves=MALA()),
    "rne, hmc": SMC(moves=HMC()),
    "energy, hmc": SMC(weights="energy", moves=HMC(test="energy")),
    "langevin": find("samplers", "langevin")(moves=3),
    "mala": find("samplers", "mala")(),
    "hmc": find("samplers", "hmc")(),
    "hmc, energy": find("samplers", "hmc")(test="energy"),
}
SAMPLERS = PRODUCTS | {"mixture": MixtureSampler()}
WITH_ENERGIES = {
    "energy": SMC(weights="energy"),
    "mala": SMC(moves=MALA(test="energy")),
    "hmc": SMC(moves=HMC(test="energy")),
}
SWARMS = [name for name in PRODUCTS if PRODUCTS[name].weights != "none" and PRODUCTS[name].particles is None]


@attrs.frozen(eq=False, repr=False)
class Wrong(Composable):
    """A Gaussian whose prediction or energy is wrong below a timestep."""

    name: str
    value: float
    of: str
    below: float = 500.0
    inner: Gaussian = attrs.field(factory=Gaussian)

    def __repr__(self) -> str:
        return self.name

    @property
    def noised_space(self) -> NoisedSpace:
        return self.inner.noised_space

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        right = self.inner.eps(sample, timestep)
        wrong = self.of == "eps" and float(timestep[0]) < self.below
        return torch.full_like(right, self.value) if wrong else right

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        right = self.inner.energy(sample, timestep)
        wrong = self.of == "energy" and float(timestep[0]) < self.below
        return torch.full_like(right, self.value) if wrong else right


def drawn(component: Any, sampler: Any, n: int = 500, steps: int = 20, **options: Any) -> tuple[Tensor, SamplingReport]:
    reports: list[SamplingReport] = []
    x = Composer(component).sample(
        n,
        sampler=sampler,
        num_inference_steps=steps,
        report=reports.append,
        output_type="latent",
        progress=False,
        **{"generator": 0, **options},
    )
    return x, reports[0]


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_component_alone(name: str) -> None:
    x, report = drawn(Gaussian(0.4, 0.25), SAMPLERS[name], n=2000)
    assert float(x.mean()) == pytest.approx(0.4, abs=0.06)
    assert float(x.var()) == pytest.approx(0.25, rel=0.2)
    if name in {"rne", "fkc", "rne, mala", "rne, hmc"}:
        assert min(report.ess) == pytest.approx(1.0)
        assert len(x.unique()) > 1990
    assert report.warnings == ()


@pytest.mark.parametrize("name", SAMPLERS)
def test_equal_weights(name: str) -> None:
    """Components that cancel leave one: every particle has the same weight, and none is lost."""
    same = Gaussian(0.0, 0.5)
    component = (same | Gaussian(0.0, 0.5)) if name == "mixture" else Gaussian(0.0, 0.5) + same - Gaussian(0.0, 0.5)
    x, report = drawn(component, SAMPLERS[name])
    assert float(x.var()) == pytest.approx(0.5, rel=0.3)
    assert report.warnings == ()
    if name in {"rne", "fkc"}:
        assert min(report.ess) == pytest.approx(1.0)
        assert len(x.unique()) > 490


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2])
def test_one_sample_and_few_steps(name: str, steps: int) -> None:
    for n in (1, 3):
        x, report = drawn(Gaussian(0.5) + Gaussian(0.1) - Gaussian(0.0), SAMPLERS[name], n=n, steps=steps)
        assert x.shape == (n, 1, 1, 1)
        assert torch.isfinite(x).all()
        assert report.evaluations >= 3 * n * steps
        assert all(0 < share <= 1 + 1e-9 for share in report.ess)


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_ends_at_the_mean(name: str) -> None:
    """At the noisy end the prediction of x0 is the mean of the data."""
    x, report = drawn(Gaussian(0.4, 0.25), SAMPLERS[name], n=50, steps=1)
    assert float((x - 0.4).abs().max()) < 0.01
    assert report.warnings == ()


@pytest.mark.parametrize("name", ["rne", "fkc", "energy"])
def test_a_collapse_is_reported(name: str) -> None:
    """The product has its mode where a millionth of the particles begin."""
    far = Mixture([Gaussian(-3.0, 0.05), Gaussian(3.0, 0.05)], torch.tensor([0.001, 0.999]).log())
    back = Mixture([Gaussian(-3.0, 0.05), Gaussian(3.0, 0.05)], torch.tensor([0.999999, 0.000001]).log())
    both = Mixture([Gaussian(-3.0, 0.05), Gaussian(3.0, 0.05)])
    sampler = attrs.evolve(PRODUCTS[name], resample_above=0.0, resample_below=1e-9)
    x, report = drawn(far + back - both, sampler, n=200, steps=50)
    assert torch.isfinite(x).all()
    assert min(report.ess) < 0.1
    assert any("the weights collapsed" in warning and "use more particles" in warning for warning in report.warnings)
    assert len(report.log_weights[0]) == 200


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_prediction_that_is_infinite(name: str) -> None:
    """NaN is in the contract of samplers."""
    wrong = Wrong("broken", math.inf, "eps")
    component = (Gaussian() | wrong) if name == "mixture" else Gaussian() + wrong - Gaussian()
    with pytest.raises(NonFiniteError, match=r"a prediction of broken that is not finite.*in step 11 \(timestep 499\)"):
        drawn(component, SAMPLERS[name], n=4)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", WITH_ENERGIES)
def test_an_energy_that_is_not_finite(name: str, value: float) -> None:
    wrong = Wrong("broken", value, "energy")
    with pytest.raises(NonFiniteError, match=r"an energy of broken that is not finite.*in step 11 \(timestep 499\)"):
        drawn(Gaussian() + wrong - Gaussian(), WITH_ENERGIES[name], n=4)


@pytest.mark.parametrize("name", sorted({*SAMPLERS} - {"mixture", *WITH_ENERGIES, "hmc, energy", "energy, hmc"}))
def test_energies_are_not_asked_without_need(name: str) -> None:
    x, _ = drawn(Gaussian() + Wrong("broken", math.nan, "energy") - Gaussian(), SAMPLERS[name], n=4)
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_list_of_generators(name: str) -> None:
    """One for each sample, which then does not depend on its batch; or one error that says what to do."""
    component, sampler = Gaussian(0.4, 0.25), SAMPLERS[name]
    if name in SWARMS:
        with pytest.raises(InputError, match=r"got 3 generators for one swarm.*give one generator, or particles"):
            drawn(component, sampler, n=3, generator=[0, 1, 2])
        return
    if name == "particles":
        sampler = attrs.evolve(sampler, resample_above=0.0)
    three, _ = drawn(component, sampler, n=3, generator=[0, 1, 2])
    alone, _ = drawn(component, sampler, n=1, generator=[1])
    torch.testing.assert_close(three[1:2], alone)
    with pytest.raises(InputError, match="got a list of 2, expected one generator or 3"):
        drawn(component, sampler, n=3, generator=[0, 1])


@pytest.mark.parametrize("moves", [MALA(), HMC(), Langevin()], ids=str)
def test_particles_without_weights_are_refused(moves: Any) -> None:
    with pytest.raises(InputError, match="particles=4 with weights='none'; expected weights"):
        SMC(weights="none", particles=4, moves=moves)
