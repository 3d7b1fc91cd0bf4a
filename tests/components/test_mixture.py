"""Mixtures against densities in closed form: `a | b` samples what one component or the other would."""

import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import attrs
import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from torch import Tensor

from energycomp.components import Composition, EnergyComponent, HasEnergy, Mixture, signal_noise
from energycomp.errors import CompositionError
from energycomp.sampling import Composer
from energycomp.testing import Gaussian, cosine_schedule, tiny_model
from energycomp_lab.checks import check_component

A, B, C = (Gaussian(mean, name=name) for name, mean in (("a", 1.0), ("b", -2.0), ("c", 0.5)))


def drawn(*shape: int) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def sampled(component: Any, n: int) -> Tensor:
    return Composer(component).sample(n, generator=0, output_type="latent", progress=False).flatten()


def level(timestep: float) -> tuple[float, float]:
    signal, sigma = signal_noise(cosine_schedule(), torch.tensor([timestep]), torch.float64)
    return signal.item(), sigma.item()


@pytest.mark.parametrize("timestep", [0.0, 300.5, 700.0, 999.0])
def test_energy_is_that_of_the_density_where_the_weights_normalise(timestep: float) -> None:
    """Its gradient, which `check_component` compares with eps, is then the score of the noised mixture."""
    means, variances, weights = [-1.0, 0.2, 1.5], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2]
    signal, sigma = level(timestep)
    scales = [(signal**2 * variance + sigma**2) ** 0.5 for variance in variances]
    parts = [Gaussian(mean, variance=variance) for mean, variance in zip(means, variances, strict=True)]
    mixture = Mixture(parts, [float(np.log(w / s)) for w, s in zip(weights, scales, strict=True)])
    x, t = torch.linspace(-3, 3, 13), torch.full((13,), timestep)
    energy, share = (f(x[:, None, None, None], t).numpy() for f in (mixture.energy, mixture.shares))
    log = [np.log(w) + norm.logpdf(x, signal * m, s) for w, m, s in zip(weights, means, scales, strict=True)]
    assert np.allclose(energy, -logsumexp(log, axis=0) - 0.5 * np.log(2 * np.pi), atol=1e-4)
    assert np.allclose(share, np.exp(log - logsumexp(log, axis=0)), atol=1e-4)
    check_component(mixture)


def test_a_mixture_is_a_component() -> None:
    shape = (1, 2, 2)
    a, b = Gaussian(0.8, variance=0.4, sample_shape=shape), Gaussian(drawn(*shape), sample_shape=shape)
    for component in (a | b, (a + b) / 2 | b, 0.5 * (a | b) + a, Mixture([a])):
        check_component(component)
    assert isinstance(a | b, EnergyComponent)
    assert isinstance(a | b, HasEnergy)
    x, t = drawn(5, *shape), torch.linspace(1, 990, 5)
    assert torch.allclose(Mixture([a]).eps(x, t), a.eps(x, t))
    assert torch.allclose((a | a).eps(x, t), a.eps(x, t), atol=1e-6)  # unlike `a & a`
    assert torch.allclose((a | a).energy(x, t), a.energy(x, t) - np.log(2), atol=1e-4)
    both = -torch.logsumexp(-torch.stack([2 * a.energy(x, t) - b.energy(x, t), b.energy(x, t)]), 0)
    assert torch.allclose((2 * a - b | b).energy(x, t), both, atol=1e-5)
    far = torch.full((1, 1, 1, 1), 1e4)  # from all components, where shares are finite as well
    assert torch.allclose((A | B).eps(far, torch.zeros(1)), A.eps(far, torch.zeros(1)))


def test_each_leaf_is_asked_once() -> None:
    a = Gaussian(1.0)
    with (
        mock.patch.object(Gaussian, "eps", autospec=True, side_effect=Gaussian.eps) as eps,
        mock.patch.object(Gaussian, "energy", autospec=True, side_effect=Gaussian.energy) as energy,
    ):
        ((a + B) / 2 | (a + C) / 2 | a).eps(drawn(3, 1, 1, 1), torch.zeros(3))
    for asked in (eps, energy):
        assert [call.args[0] for call in asked.mock_calls].count(a) == 1


def test_or_is_associative() -> None:
    x, t = drawn(4, 1, 1, 1), torch.full((4,), 500.0)
    for mixture in ((A | B) | C, A | (B | C), (A | B) | 1.0 * C):
        assert [dict(part.terms) for part in mixture.components] == [{A: 1.0}, {B: 1.0}, {C: 1.0}]
        assert repr(mixture) == "(a | b | c)"
        assert torch.allclose(mixture.energy(x, t), (C | B | A).energy(x, t))
    assert len((2 * (A | B) - A | C).components) == 2  # a sum of mixtures is none
    assert repr(2 * (A | B) - C) == "2 (a | b) - c"
    assert repr(2 * A - B | C) == "(2 a - b | c)"


def test_a_mixture_is_a_leaf() -> None:
    mixture, twin = A | B, A | B
    assert mixture != twin
    assert dict((mixture + twin - mixture).terms) == {twin: 1.0}
    u = Gaussian(0.0, name="u", unconditional="self")
    a, b, c = (Gaussian(mean, name=str(mean), unconditional=u) for mean in (1.0, 2.0, 3.0))
    either = a | b
    assert dict((either & c).terms) == {either: 1.0, c: 1.0, u: -1.0}
    with pytest.raises(CompositionError, match="no unconditional leaf"):
        mixture & C
    with pytest.raises(CompositionError, match=r"`a \| b`"):
        A or B  # noqa: B018
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        mixture.components = ()  # type: ignore[misc]


@pytest.mark.parametrize("foreign", ["text", None, object(), 0, 1.5, np.ones(2), {1}, tiny_model().denoiser])
def test_foreign_operands_are_left_to_the_other_side(foreign: object) -> None:
    for component in (A, A + B, A | B):
        assert component.__or__(foreign) is NotImplemented
    if not isinstance(foreign, np.ndarray):
        with pytest.raises(TypeError):
            A | foreign
        with pytest.raises(TypeError):
            foreign | A  # type: ignore[operator]


def test_what_cannot_be_mixed() -> None:
    model = tiny_model()
    leaf, space = model(0.2, 0.3), model.denoiser.noised_space
    pixels = Gaussian(0.0, sample_shape=space.sample_shape, space="pixels", value_range=space.value_range)
    without = r"got tiny\(0.2, 0.3\), which has no energy; expected.*; use `\+`, or `&`.*mixture"
    for attempt in (lambda: leaf | leaf, lambda: pixels | leaf, lambda: (pixels + leaf) / 2 | pixels):
        with pytest.raises(CompositionError, match=without):
            attempt().eps(torch.zeros(1, *space.sample_shape), torch.zeros(1))
    for other, said in ((pixels, "space"), (Gaussian(alphas_cumprod=cosine_schedule(100)), "one noise schedule")):
        with pytest.raises(CompositionError, match=said):
            A | other
    for nothing in ([], [A - A], [A, B - B]):
        with pytest.raises(CompositionError, match="mixture of nothing"):
            Mixture(nothing)
    with pytest.raises(CompositionError, match="expected a component"):
        Mixture(["a"])
    for weights in ([0.0], [0.0, float("nan")], [0.0, float("-inf")], ["0", 0.0], [torch.zeros(2), 0.0]):
        with pytest.raises(CompositionError, match=r"log weights|weight (nan|-inf)"):
            Mixture([A, B], weights)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", [A + B, 2 * A, A - B, -A, 1.001 * A, 2 * (A | B)])
def test_parts_of_another_mass_are_refused(part: Composition) -> None:
    """Where all is noise, every leaf is N(0, I): a sum of mass 2 has density p^2 there, of another width and weight."""
    for attempt in (lambda: part | C, lambda: C | part, lambda: part | 0.5 * C, lambda: Mixture([C, part])):
        with pytest.raises(CompositionError, match=rf"got {re.escape(repr(part))} of mass .*expected mass 1.*such as"):
            attempt()


def test_shares_are_the_masses_of_the_parts() -> None:
    mixture = 0.2 * A | 0.8 * B
    assert [dict(part.terms) for part in mixture.components] == [{A: 1.0}, {B: 1.0}]
    assert np.allclose(np.exp(mixture.log_weights), [0.2, 0.8])
    assert repr(mixture) == "(0.2 a | 0.8 b)"
    x, t = drawn(4, 1, 1, 1), torch.full((4,), 500.0)
    assert torch.allclose(mixture.eps(x, t), Mixture([A, B], np.log([1, 4]).tolist()).eps(x, t))
    assert torch.allclose((0.5 * A | 0.5 * B).eps(x, t), (A | B).eps(x, t))
    mean = 0.1 * (A + B) | 0.8 * C  # the share 0.2 of (a + b) / 2
    assert [dict(part.terms) for part in mean.components] == [{A: 0.5, B: 0.5}, {C: 1.0}]
    assert np.allclose(np.exp(mean.log_weights), [0.2, 0.8])
    assert repr(mean) == "(0.2 (0.5 a + 0.5 b) | 0.8 c)"


def test_or_with_shares_is_associative() -> None:
    x, t = drawn(4, 1, 1, 1), torch.full((4,), 500.0)
    whole = Mixture([A, B, C], np.log([0.2, 0.3, 0.5]).tolist())
    for mixture in (
        0.2 * A | 0.3 * B | 0.5 * C,
        0.2 * A | (0.3 * B | 0.5 * C),
        0.5 * (0.4 * A | 0.6 * B) | 0.5 * C,
        0.5 * Mixture([A, B], [np.log(2.0), np.log(3.0)]) | 0.5 * C,
        1.0 * (0.2 * A | 0.3 * B | 0.5 * C),
    ):
        opened = mixture if isinstance(mixture, Mixture) else next(iter(mixture.terms))
        assert np.allclose(np.exp(opened.log_weights), [0.2, 0.3, 0.5])
        assert torch.allclose(mixture.energy(x, t), whole.energy(x, t))
        assert repr(opened) == "(0.2 a | 0.3 b | 0.5 c)"
    halves = 0.5 * (A | B) | 0.5 * C  # not thirds
    assert np.allclose(np.exp(halves.log_weights), [0.25, 0.25, 0.5])
    tenths = 0.1 * A | 0.2 * B | 0.7 * C  # 1 up to rounding
    assert dict((1.0 * tenths).terms) == {tenths: 1.0}


def test_shares_that_do_not_sum_to_1_yet_are_only_mixed() -> None:
    u = Gaussian(0.0, name="u", unconditional="self")
    a, b = (Gaussian(mean, name=name, unconditional=u) for mean, name in ((1.0, "a"), (2.0, "b")))
    part, x, t = 0.2 * a | 0.3 * b, drawn(2, 1, 1, 1), torch.zeros(2)
    for attempt in (
        lambda: part.eps(x, t), lambda: part.energy(x, t), lambda: part.shares(x, t), lambda: Composer(part),
        lambda: Composer([part]), lambda: 2 * part, lambda: part + a, lambda: a - part, lambda: part & a,
        lambda: ~part, lambda: 0.5 * part | 0.5 * a, lambda: Mixture([part]),
    ):  # fmt: skip
        with pytest.raises(CompositionError, match=r"\(0.2 a \| 0.3 b\) with shares that sum to 0.5; expected 1; add"):
            attempt()


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: A | 0.5 * B, "where a has no share and another part has one"),
        (lambda: 0.5 * A | B, "where b has no share"),
        (lambda: 0.2 * A | 0.8 * B | C, "where c has no share"),
        (lambda: (A | B) | 0.5 * C, r"where \(a \| b\) has no share"),
        (lambda: Mixture([A, B], [0.5, -2.0]) | C, "where c has no share"),
        (lambda: 0.6 * A | 0.6 * B, r"got 0.6 a \| 0.6 b with shares that sum to 1.2; expected 1"),
        (lambda: 0.2 * A | 0.8 * B | 0.1 * C, "sum to 1.1"),
        (lambda: Mixture([A, B], [0.5, -2.0]) | 0.5 * C, "sum to 1.5"),
        (lambda: 0 * A | B, "mixture of nothing"),
        (lambda: 2 * A | B, "got 2 a of mass 2 in a mixture"),
        (lambda: 1e-9 * A | B, "of mass 1e-09"),
    ],
)
def test_shares_are_never_guessed(attempt: Callable[[], Mixture], message: str) -> None:
    with pytest.raises(CompositionError, match=message):
        attempt()


def test_samples_fall_into_both_modes_by_their_weights() -> None:
    left, right = Gaussian(-2.0, variance=0.04), Gaussian(2.0, variance=0.04)
    n = 2000
    for mixture, share in (
        (left | right, 0.5),
        (Mixture([left, right], np.log([0.2, 0.8]).tolist()), 0.8),
        (0.3 * left | 0.7 * right, 0.7),
    ):
        samples = sampled(mixture, n)
        high = samples > 0
        assert float(high.double().mean()) == pytest.approx(share, abs=4 * (share * (1 - share) / n) ** 0.5 + 0.01)
        for mode, mean in ((high, 2.0), (~high, -2.0)):
            assert float(samples[mode].mean()) == pytest.approx(mean, abs=0.05)
            assert float(samples[mode].std()) == pytest.approx(0.2, abs=0.05)
    assert float(sampled(left + right, 50).abs().max()) < 1.0  # where both overlap
