"""Negated components: perpendicular negation against its formula, and rejection against truncated densities."""

from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from energycomp import match_snr
from energycomp.components import Composition, flow_schedule, log_snr
from energycomp.errors import CompositionError, InputError
from energycomp.seeds import seeded
from energycomp.testing import Gaussian, bumps_model, planted, tiny_model
from energycomp_samplers import observe, within
from energycomp_samplers.perpendicular import Perpendicular, compose
from energycomp_samplers.rejection import Rejection
from energycomp_samplers.residuals import residuals
from energycomp_samplers.smc import SMC

U = Gaussian(0.0, 1.0, name="u", unconditional="self")
A, B, C = (
    Gaussian(mean, variance, name, unconditional=U)
    for name, mean, variance in (("a", 0.0, 1.0), ("b", 1.0, 0.1), ("c", -1.0, 0.1))
)
SAMPLERS = [Perpendicular(), Rejection()]


def test_the_residual_form_is_the_composition() -> None:
    for whole in (A & ~B, 2 * A & ~(0.5 * B) & ~C, ~A, ~A & ~B, A & B & ~C, 3 * A - 2 * B):
        form = residuals(Composition.of(whole))
        rest = 1.0 - sum(form.positive.values()) - sum(form.negated.values())
        parts = [w * leaf for leaf, w in [*form.positive.items(), *form.negated.items()]]
        again = sum(parts, rest * U)
        assert dict(again.terms) == pytest.approx(dict(Composition.of(whole).terms))
    assert repr(residuals(A & B & ~C).wanted) == "-u + a + b"
    assert dict(residuals(~A & ~B).wanted.terms) == {U: 1.0}


@pytest.mark.parametrize("whole", [A, A & B, 7.5 * A & U, A + B, U])
def test_no_component_is_negated(whole: Any) -> None:
    assert residuals(Composition.of(whole)) is None


def test_an_unconditional_leaf_that_is_wrapped_is_not_negated(drawn: Any) -> None:
    """`a & b` within a region subtracts the u there: no component is negated, and only c is in `& ~c`."""
    ground, other = torch.zeros(1, 1, 1), attrs.evolve(U.noised_space, alphas_cumprod=flow_schedule())
    a = Gaussian(0.8, 1.0, "a", unconditional=U)
    seen, matched = within("all", a & A, background=ground), match_snr(a & A, other)
    for whole in (seen, matched, within("all", matched, background=ground), match_snr(seen, other)):
        assert residuals(Composition.of(whole)) is None
    three = within("all", a & A & A, background=ground)
    form = residuals(Composition.of(three & ~C))
    assert list(map(repr, form.negated)) == ["c"]
    assert form.wanted.terms == three.terms
    x, report = drawn(seen, Rejection(), n=2000)
    assert report.drawn is None
    assert (float(x.mean()), float(x.std())) == pytest.approx((0.8, 1.0), abs=0.06)  # a b / u, where all are as wide


def test_what_is_no_negation_is_refused(drawn: Any) -> None:
    alone, model, b2 = Gaussian(name="alone"), tiny_model(), attrs.evolve(B, name="b2", variance=1e-4)
    blind = observe(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), 1.0, variance=1.0)
    inside = "which has a negated component inside; expected it beside"
    for component, sampler, message in (
        *((A - B, one, "got a - b of mass 0 with a negated component; expected mass 1") for one in SAMPLERS),
        *((A - alone + U, one, r"got a - alone \+ u with a negative weight.*got alone, which") for one in SAMPLERS),
        *(((A & ~B) | C, one, inside) for one in SAMPLERS),
        *(((A & ~B) & blind, one, inside) for one in SAMPLERS),
        (~A, Perpendicular(), r"negated components only; expected at least .*'rejection'"),
        (model(0.2, 0.2) & ~model.leaf(torch.rand(4, 2)), Rejection(), "4 conditions, one for each sample"),
        (b2 & ~B, Rejection(attempts=16, over="unconditional"), "got 64 samples of b2, all of which show b; expected"),
    ):
        with pytest.raises((CompositionError, InputError), match=message):
            drawn(component, sampler, 4)
    for wrong in ({"draws": 0}, {"attempts": 0}, {"over": "b"}):
        with pytest.raises(InputError, match="for Rejection; expected"):
            Rejection(**wrong)


def test_perpendicular_follows_its_formula() -> None:
    form = residuals(Composition.of(2 * A & B & ~C & ~(3 * Gaussian(name="d", unconditional=U))))
    x0 = torch.randn(5, 6, 1, 3, 4, 4, generator=seeded(0), dtype=torch.float64)
    found = compose(x0, form)
    for i in range(6):
        u, a, b, c, d = x0[:, i, 0]
        asked = 2 * (a - u) + (b - u)
        expected = u + asked
        for weight, one in ((-1, c - u), (-3, d - u)):
            apart = one - float((one * asked).sum() / asked.square().sum()) * asked
            assert float((apart * asked).sum()) == pytest.approx(0.0, abs=1e-9)
            expected = expected + weight * apart
        torch.testing.assert_close(found[i, 0], expected)


def test_perpendicular_keeps_what_the_negated_component_shares(drawn: Any) -> None:
    """Of a twin of a nothing is left to subtract, where `a & ~twin` with weights is u."""
    twin = Gaussian(1.0, 0.1, "twin", unconditional=U)
    torch.testing.assert_close(drawn(B & ~twin, Perpendicular(), 50)[0], drawn(B, None, 50)[0], rtol=1e-3, atol=1e-3)
    assert float(drawn(B & ~twin, None)[0].var()) == pytest.approx(1.0, rel=0.1)


def test_perpendicular_evaluates_u_where_its_weight_is_0(drawn: Any) -> None:
    _, report = drawn(A & B & ~C, Perpendicular(), 10, steps=5)
    assert U not in (A & B & ~C).terms
    assert report.evaluations == 4 * 10 * 5
    assert drawn(A & ~B, Perpendicular(), 10, steps=5)[1].evaluations == 3 * 10 * 5


def error(x: Tensor, mean: float, variance: float) -> Tensor:
    """The mean denoising error of N(mean, variance) over noise and all timesteps, at samples (B,)."""
    alpha = torch.sigmoid(log_snr(U.alphas_cumprod, torch.arange(0.5, 1000.0)))[:, None]
    total = alpha * variance + 1 - alpha
    return ((alpha * variance / total) ** 2 + alpha * (1 - alpha) * ((x - mean) / total) ** 2).mean(0)


def test_rejection_leaves_the_positive_density_where_the_lift_is_not_above_0(drawn: Any) -> None:
    """a = u = N(0, 1) and b = N(1, 0.1): the mean over many draws has a closed form, and cuts an interval out."""
    x, report = drawn(A & ~B, Rejection(over="unconditional", draws=256), steps=25)
    line = torch.linspace(-6.0, 6.0, 12001, dtype=torch.float64)
    density = torch.exp(-line.square() / 2) * (error(line, 0.0, 1.0) <= error(line, 1.0, 0.1))
    cut = line[(density == 0) & (line.abs() < 3)]
    share = float(density.sum()) * 0.001 / (2 * torch.pi) ** 0.5
    assert 0.6 < share < 0.8
    assert (report.kept, report.warnings) == (4000, ())
    assert report.drawn is not None
    # three standard errors, and 0.01 for the ends of the interval, which the draws move
    assert 4000 / report.drawn == pytest.approx(share, abs=3 * (share * (1 - share) / 4000) ** 0.5 + 0.01)
    assert not bool(((x > cut[0] + 0.05) & (x < cut[-1] - 0.05)).any())
    above = float(density[line > cut[-1]].sum() / density.sum())
    error_of_share = (above * (1 - above) / 4000) ** 0.5
    assert float((x > cut[-1] - 0.05).float().mean()) == pytest.approx(above, abs=3 * error_of_share + 0.01)


@pytest.mark.parametrize("over", ["positive", "unconditional"])
def test_several_negated_components_and_none_that_is_positive(drawn: Any, over: Any) -> None:
    x = drawn(~B & ~C, Rejection(over=over), 2000, steps=25)[0]
    assert not bool(((x.abs() > 0.8) & (x.abs() < 1.2)).any())
    assert 0.3 < float((x > 0).float().mean()) < 0.7
    assert float(x.abs().max()) > 2.0


def test_the_weight_of_a_negated_component_has_no_influence(drawn: Any) -> None:
    first, *others = (drawn(A & ~(w * B), Rejection(), 50, steps=10)[0] for w in (1.0, 0.2, 5.0))
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("over", ["positive", "unconditional"])
def test_evaluations_of_rejection(drawn: Any, over: Any) -> None:
    _, report = drawn(A & ~B, Rejection(over=over, draws=8), 50, steps=5)
    assert report.evaluations == report.drawn * (5 + 8 * (3 if over == "positive" else 2))


def test_samples_that_are_rejected_too_often(drawn: Any) -> None:
    x, report = drawn(A & ~B, Rejection(attempts=1), 200)
    assert report.drawn == 200
    assert 100 < report.kept < 200
    assert len(x) == 200
    assert report.warnings == (f"{200 - report.kept} of 200 samples show b after 1 attempts each; use more attempts",)


def test_a_sample_keeps_its_place_and_its_generator(drawn: Any) -> None:
    generators = [seeded(seed) for seed in range(20)]
    whole, report = drawn(A & ~B, Rejection(), 20, generator=generators)
    assert report.drawn > 20
    for i in (0, 7, 19):
        torch.testing.assert_close(drawn(A & ~B, Rejection(), 1, generator=[i])[0], whole[i : i + 1])
    with pytest.raises(InputError, match="one per sample"):
        drawn(A & ~B, Rejection(), 3, generator=[0, 1])


def test_samples_that_are_kept_at_once_are_those_of_the_other_sampler(drawn: Any) -> None:
    model = bumps_model()
    for other in (None, SMC(), "perpendicular"):
        positive = model(0.2, 0.3) & model(0.7, 0.3)
        x, report = drawn(positive & ~model(0.5, 0.8), Rejection(other), 2, steps=5)
        torch.testing.assert_close(x, drawn(positive, other, 2, steps=5)[0])
        assert (report.drawn, report.kept) == (2, 2)


def test_a_mixture_without_energies(drawn: Any) -> None:
    """Half of the samples of `a | a & b` show b: they are drawn again."""
    model = bumps_model()
    a, b = model(0.25, 0.5), model(0.75, 0.5)
    x, report = drawn((a | a & b) & ~b, Rejection("mixture", over="unconditional"), 12, steps=10)
    assert report.drawn > 12
    assert report.kept == 12
    alone = planted(model, torch.tensor([[0.25, 0.5]]))
    assert float((x - alone).square().flatten(1).mean(1).max()) < 1e-3
