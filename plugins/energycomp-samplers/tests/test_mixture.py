"""Mixtures from noise predictions: the shares of the components, with and without energies."""

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composable, Mixture, NoisedSpace, Rule, flow_schedule, match_snr
from energycomp.errors import CompositionError, InputError
from energycomp.testing import Gaussian, bumps_model, labels_model, planted


@attrs.frozen(eq=False)
class Noise(Composable):
    """A Gaussian that predicts noise and has no energy."""

    inner: Gaussian

    @property
    def noised_space(self) -> NoisedSpace:
        return self.inner.noised_space

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.inner.eps(sample, timestep)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_shares_without_energies(drawn: Any, share: float) -> None:
    left, right = Noise(Gaussian(-2.0, 0.3)), Noise(Gaussian(2.0, 0.3))
    x, _ = drawn(Mixture([left, right], torch.tensor([share, 1 - share]).log()), "mixture")
    assert float((x < 0).float().mean()) == pytest.approx(share, abs=3 * (share * (1 - share) / 4000) ** 0.5)
    assert float(x[x > 0].mean()) == pytest.approx(2.0, abs=0.05)
    assert float(x[x > 0].var()) == pytest.approx(0.3, rel=0.1)


def test_shares_do_not_depend_on_the_widths(drawn: Any) -> None:
    """Energies known up to a constant give other shares here; the path needs no constant."""
    x, _ = drawn(Noise(Gaussian(-3.0, 0.1)) | Noise(Gaussian(3.0, 1.0)), "mixture")
    assert float((x < 0).float().mean()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("sampler", ["mixture", None], ids=str)
def test_shares_of_the_algebra(drawn: Any, sampler: Any) -> None:
    """`0.2 * a | 0.3 * b | 0.5 * c`: from noise predictions and from energies the same shares and widths."""
    shares, means = (0.2, 0.3, 0.5), (-3.0, 0.0, 3.0)
    a, b, c = (Gaussian(mean, 0.2) if sampler is None else Noise(Gaussian(mean, 0.2)) for mean in means)
    x, _ = drawn(shares[0] * a | shares[1] * b | shares[2] * c, sampler)
    for share, mean in zip(shares, means, strict=True):
        own = x[(x - mean).abs() < 1.5]
        assert len(own) / 4000 == pytest.approx(share, abs=3 * (share * (1 - share) / 4000) ** 0.5)
        assert float(own.mean()) == pytest.approx(mean, abs=3 * (0.2 / len(own)) ** 0.5 + 0.03)
        assert float(own.std()) == pytest.approx(0.2**0.5, rel=3 / (2 * len(own)) ** 0.5 + 0.03)  # 50 steps


def test_components_of_the_mixture_may_be_products(drawn: Any) -> None:
    u = Noise(Gaussian(0.0, 0.25))
    left, right = (Noise(Gaussian(mean, 0.25)) for mean in (-1.0, 1.0))
    x, _ = drawn(left + left - u | right + right - u, "mixture")
    assert float(x.abs().mean()) == pytest.approx(2.0, abs=0.05)
    assert float((x < 0).float().mean()) == pytest.approx(0.5, abs=0.03)


def test_images_of_a_network_show_one_component_each(drawn: Any) -> None:
    model = bumps_model()
    x, _ = drawn(model(0.25, 0.5) | model(0.75, 0.5), "mixture", 12)
    images = torch.cat([planted(model, torch.tensor([[place, 0.5]])) for place in (0.25, 0.75)])
    errors = (x[:, None] - images).square().flatten(2).mean(2)
    assert float(errors.min(1).values.max()) < 1e-3
    assert len(errors.argmin(1).unique()) == 2


def test_what_it_refuses(drawn: Any) -> None:
    mixture, noises = Gaussian(-1.0) | Gaussian(1.0), Noise(Gaussian(-1.0)) | Noise(Gaussian(1.0))
    for component, sampler, message in (
        (mixture + Gaussian() - Gaussian(), "mixture", "expected a mixture alone, or a guided one"),
        (2 * mixture, "mixture", "mixture alone"),
        (noises, None, "sampler='mixture'"),
    ):
        with pytest.raises(CompositionError, match=message):
            drawn(component, sampler)


@pytest.mark.parametrize("matched", [False, True])
@pytest.mark.parametrize("rule", ["sum", "mean"])
def test_no_advice_leads_back_to_the_first_complaint(drawn: Any, rule: Rule, matched: bool) -> None:
    """Of components that were trained together: without a sampler, with the one that is named, and what that names."""
    model = labels_model(rule=rule)
    space = attrs.evolve(model.denoiser.noised_space, alphas_cumprod=flow_schedule())
    left, right = (match_snr(model(label), space) if matched else model(label) for label in (0, 1))
    with pytest.raises(CompositionError, match="sample with sampler='mixture'"):
        drawn(left | right, None, 1)
    with pytest.raises(InputError, match="sample the components of the mixture one at a time") as refused:
        drawn(left | right, "mixture", 1)
    assert "sampler=" not in str(refused.value)
    for component in (left, right):
        alone, _ = drawn(Composer(component), None, 1, 2)
        assert alone.isfinite().all()
