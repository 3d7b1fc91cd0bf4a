"""The algebra: a composition is a weighted sum, `&` and `~` are arithmetic on residuals."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from energycomp.components import (
    Composable,
    Composition,
    Condition,
    EnergyComponent,
    Mixture,
    NoisedSpace,
    combine,
    predict,
)
from energycomp.denoisers import Conditional, count_rows
from energycomp.errors import CompositionError
from energycomp.sampling import Composer
from energycomp.testing import Gaussian, cosine_schedule, tiny_model
from energycomp_lab.checks import check_component

U = Gaussian(0.0, name="u", unconditional="self")
A, B, C = (Gaussian(mean, name=name, unconditional=U) for name, mean in (("a", 1.0), ("b", -2.0), ("c", 0.5)))


def same(left: Composable, right: Composable) -> bool:
    a, b = Composition.of(left).terms, Composition.of(right).terms
    return all(abs(a.get(leaf, 0.0) - b.get(leaf, 0.0)) < 1e-12 for leaf in {*a, *b})


LEAVES = (A, B, C, U)
Formula = tuple[Any, np.ndarray]  # a component, and the weights of its leaves by the definition


def residual(weights: np.ndarray) -> np.ndarray:
    """R(A) = A - mass(A) u."""
    return weights - weights.sum() * np.eye(4)[3]


def mean_of(parts: list[np.ndarray]) -> np.ndarray:
    return sum(parts) / sum(part.sum() for part in parts)


def formulas(inner: st.SearchStrategy[Formula]) -> st.SearchStrategy[Formula]:
    """One operator, or one rule, over smaller formulas."""
    u = np.eye(4)[3]
    known = inner.filter(lambda one: np.abs(one[1]).max() > 1e-6)  # a sum that cancels has no u
    pairs, numbers = st.tuples(inner, inner), st.sampled_from([-4.0, -1.0, 0.5, 2.0])
    several = st.lists(inner, min_size=1, max_size=3)
    weighed = several.filter(lambda some: abs(sum(weights.sum() for _, weights in some)) > 1e-6)
    return st.one_of(
        pairs.map(lambda p: (p[0][0] + p[1][0], p[0][1] + p[1][1])),
        pairs.map(lambda p: (p[0][0] - p[1][0], p[0][1] - p[1][1])),
        inner.map(lambda a: (-a[0], -a[1])),
        inner.map(lambda a: (+a[0], a[1])),
        st.tuples(numbers, inner).map(lambda p: (p[0] * p[1][0], p[0] * p[1][1])),
        st.tuples(numbers, inner).map(lambda p: (p[1][0] / p[0], p[1][1] / p[0])),
        st.tuples(known, known).map(lambda p: (p[0][0] & p[1][0], u + residual(p[0][1]) + residual(p[1][1]))),
        known.map(lambda a: (~a[0], u - residual(a[1]))),
        several.map(lambda some: (sum(one for one, _ in some), sum(weights for _, weights in some))),
        several.map(lambda some: (combine([one for one, _ in some], "sum"), sum(weights for _, weights in some))),
        st.lists(known, min_size=1, max_size=3).map(
            lambda some: (combine([one for one, _ in some], "product"), u + sum(residual(w) for _, w in some))
        ),
        weighed.map(lambda some: (combine([one for one, _ in some], "mean"), mean_of([w for _, w in some]))),
    )


@settings(max_examples=80, deadline=None)
@given(st.recursive(st.sampled_from(list(zip(LEAVES, np.eye(4), strict=True))), formulas, max_leaves=8))
def test_operators_are_those_of_the_weights(made: Formula) -> None:
    """So that `&` is associative, u is its identity, and `~` is its own inverse: the definition has these laws."""
    component, weights = made
    terms = Composition.of(component).terms
    assert [terms.get(leaf, 0.0) for leaf in LEAVES] == pytest.approx(weights, abs=1e-9)
    assert all(terms.values())  # what cancels is gone
    assert Composition.of(component).mass == pytest.approx(weights.sum(), abs=1e-9)


def test_zero_is_the_empty_sum() -> None:
    for zero in (0, 0.0, np.float32(0), torch.tensor(0)):
        assert same(A + zero, A)
        assert same(zero + A, A)
        assert same(A - zero, A)
        assert same(zero - A, -A)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, np.array, torch.tensor, Fraction])
def test_weights_of_numpy_and_torch(kind: Any) -> None:
    assert same(kind(2) * A, 2 * A)
    assert same(A * kind(2), 2 * A)
    assert same(A / kind(2), 0.5 * A)
    (weight,) = (kind(2) * A).terms.values()
    assert type(weight) is float


@pytest.mark.parametrize(
    "foreign", ["text", None, object(), 3, 1.5, np.ones(2), torch.ones(2), 1j, tiny_model().denoiser]
)
def test_foreign_operands_are_left_to_the_other_side(foreign: object) -> None:
    assert A.__and__(foreign) is A.__add__(foreign) is A.__sub__(foreign) is NotImplemented
    for operation in (operator.and_, operator.add, operator.sub):
        for left, right in ((A, foreign), (foreign, A)):
            with pytest.raises(TypeError):
                operation(left, right)
    assert A.__mul__("2") is A.__mul__(B) is NotImplemented
    with pytest.raises(TypeError):
        2 / A  # type: ignore[operator]


MODEL, LONE = tiny_model(), Gaussian(name="lone")
UNTRAINED = attrs.evolve(MODEL.denoiser, null_trained=False)
S, T = (Conditional(UNTRAINED, Condition(torch.full((1, 1, 2), place))) for place in (0.2, 0.6))
TRUTH, UNKNOWN = "write `a & b`", "never trained"
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "division by 0": (lambda: A / 0, "divided by 0"),
    "a mean of weights that cancel": (lambda: combine([A - B], "mean"), "sum to 0"),
    "a sum of nothing": (lambda: combine([], "sum"), "no components"),
    "an unknown rule": (lambda: combine([A], "max"), "'max'"),  # type: ignore[arg-type]
    "a number as component": (lambda: combine([1], "sum"), "got int; expected a component"),  # type: ignore[list-item]
    "a model as component": (lambda: Composition.of(MODEL), "expected a component with `noised_space` and `eps`"),
    "a word as component": (lambda: Composition({"red": 1.0}), "got str; expected a component"),  # type: ignore[dict-item]
    "a weight with a gradient": (lambda: torch.tensor(2.0, requires_grad=True) * A, "requires a gradient"),
    **{f"the weight {w!r}": (lambda w=w: w * A, "finite")
       for w in (float("nan"), float("inf"), np.float32("inf"), torch.tensor(float("nan")))},
    "the truth of a leaf": (lambda: bool(A), TRUTH), "the truth of a sum": (lambda: bool(A + B), TRUTH),
    "the word and": (lambda: A and B, TRUTH),
    "a product without u": (lambda: A & LONE, "lone"), "one from the left": (lambda: LONE & A, "lone"),
    "a negation without u": (lambda: ~LONE, "lone"),
    "two unconditional leaves": (
        lambda: A & Gaussian(name="d", unconditional=Gaussian(name="v", unconditional="self")),
        "2 unconditional leaves",
    ),
    "a product, u not trained": (lambda: S & T, UNKNOWN), "a negation, u not trained": (lambda: ~S, UNKNOWN),
    "guidance, u not trained": (lambda: 7.5 * S & T, UNKNOWN),
    "a rule, u not trained": (lambda: Composer([S, T]), UNKNOWN),
    "other tokens": (
        lambda: Conditional(MODEL.denoiser, Condition(torch.zeros(1, 2, 3))),
        r"got a condition with tokens \(2, 3\)",
    ),
    "the space of nothing": (lambda: (A - A).noised_space, "without components"),
    "the energy of a network": (
        lambda: (MODEL(0.1, 0.2) + MODEL(0.3, 0.4)).energy(torch.zeros(1, 3, 16, 16), torch.zeros(1)),
        r"tiny\(0\.1, 0\.2\), which has no energy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_meaning_is_refused(case: str) -> None:
    attempt, message = REFUSED[case]
    with pytest.raises(CompositionError, match=message):
        attempt()


@pytest.mark.parametrize(
    "other",
    [
        {"space": "pixels"}, {"value_range": (-1.0, 1.0)}, {"sample_shape": (3, 1, 1)},
        {"alphas_cumprod": cosine_schedule(500)}, {"alphas_cumprod": torch.linspace(0.99, 0.01, 1000)},
    ],
)  # fmt: skip
def test_incompatible_components_are_both_named(other: dict[str, Any]) -> None:
    foreign = Gaussian(name="other", **other)
    for operation in (lambda: A + foreign, lambda: foreign - A, lambda: combine([B, A, foreign], "sum")):
        with pytest.raises(CompositionError, match=r"(?s)(a|b).*other|other.*(a|b)"):
            operation()
    assert len((A + Gaussian(alphas_cumprod=cosine_schedule())).terms) == 2  # another table of the same numbers


def test_repr_prints_the_formula() -> None:
    assert repr(2 * A - B) == "2 a - b"
    assert repr(-A + 0.25 * B) == "-a + 0.25 b"
    assert repr(A - A) == "0"
    assert repr(sum([A, B, C])) == "a + b + c"


def test_immutable() -> None:
    terms = {A: 1.0}
    composition = Composition(terms)
    terms[B] = 2.0
    assert list(composition.terms) == [A]
    with pytest.raises(TypeError):
        composition.terms[B] = 1.0  # type: ignore[index]
    assert B not in composition.terms
    with pytest.raises(KeyError):
        composition.terms[B]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        composition.terms = {}  # type: ignore[misc]


def test_the_unconditional_leaf_of_a_denoiser_merges_and_cancels() -> None:
    u, a, b = MODEL.unconditional, MODEL(0.1, 0.2), MODEL(0.3, 0.4)
    assert MODEL.denoiser.unconditional is u
    assert dict((a & b).terms) == {u: -1.0, a: 1.0, b: 1.0}
    assert u not in ((a & b) + u).terms
    assert u not in combine([a, b - u, u], "sum").terms
    assert same(Composition.of(u) & a, a)
    assert len((S + T).terms) == 2  # where it was not trained, sums need none


# Conformance


def spread(mean: float, variance: float, u: Any = "self") -> Gaussian:
    """A Gaussian whose numbers have means and variances of their own."""
    numbers = torch.linspace(-0.5, 0.5, 4).view(2, 1, 2)
    return Gaussian(mean + numbers, variance * (1 + numbers), sample_shape=(2, 1, 2), unconditional=u)


V = spread(0.0, 1.0)
P, Q, R = spread(1.0, 0.25, V), spread(-0.6, 0.5, V), spread(0.3, 0.1, V)
CONFORMING: dict[str, Any] = {
    "one": P, "sum": P + Q, "sum of three": Composer([P, Q, R], rule="sum"), "mean": Composer([P, Q, R], rule="mean"),
    "halves": 0.5 * P + 0.5 * R, "product": P & Q & R, "negation": P & ~Q, "guidance": 7.5 * P & V,
    "two guidance weights": 3.0 * P & 1.5 * Q & V, "difference": 2 * P - Q / 2, "mixture": P | Q,
    "weighted mixture": Mixture([P, Q, R], [0.0, -1.0, 0.5]), "mixture of products": (P & Q) | (P & ~R),
    "product of mixtures": (P | Q) & (Q | R), "nested": 2.0 * ((P & Q) | R) + 0.5 * (P | Q) - V,
}  # fmt: skip


@pytest.mark.parametrize("name", CONFORMING)
def test_closed_forms_conform(name: str) -> None:
    """The noise prediction is sigma times the gradient of the energy."""
    check_component(CONFORMING[name])
    assert isinstance(CONFORMING[name], EnergyComponent)


def test_leaves_and_compositions_of_networks_conform() -> None:
    a, b = MODEL(0.2, 0.3), MODEL(0.6, 0.7)
    for component in (a, MODEL.unconditional, a & b, ~a, Composer([a, b])):
        assert isinstance(component, EnergyComponent)
        check_component(component, tolerance=1e-3)
    sample, timestep = torch.randn(2, 3, 16, 16), torch.tensor([100.0, 700.0])
    assert torch.equal((a & b).eps(sample, timestep), predict(a & b, sample, timestep))


@attrs.frozen(eq=False)
class Alone:
    """A component of somebody else: no base class, only what `EnergyComponent` promises."""

    noised_space: NoisedSpace
    shift: float = 1.0

    def eps(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample - self.shift


@attrs.frozen(eq=False)
class AloneWithAll(Alone):
    """One with the optional members, too."""

    unconditional: Any = None

    def energy(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return (sample - self.shift).square().flatten(1).sum(1) / 2


def test_a_component_without_our_base_class_composes_on_either_side() -> None:
    leaf, other = MODEL(0.2, 0.3), Alone(MODEL.denoiser.noised_space)
    assert isinstance(other, EnergyComponent)
    sample, timestep = torch.randn(2, 3, 16, 16), torch.tensor([100.0, 700.0])
    for composition in (leaf + other, other + leaf, combine([other, leaf], "sum"), Composer([leaf, other], rule="sum")):
        expected = leaf.eps(sample, timestep) + sample - 1.0
        torch.testing.assert_close(composition.eps(sample, timestep), expected, rtol=1e-5, atol=1e-5)
    assert same(other - leaf, -leaf + Composition.of(other))
    with_u = AloneWithAll(MODEL.denoiser.noised_space, unconditional=MODEL.unconditional)
    assert same(with_u & leaf, leaf & with_u)
    a, b = AloneWithAll(A.noised_space), Gaussian()
    assert [part.terms for part in (a | b).components] == [{a: 1.0}, {b: 1.0}]
    assert [part.terms for part in (b | a).components] == [{b: 1.0}, {a: 1.0}]


class Plain(Composable):
    noised_space = A.noised_space
    mean: float

    def eps(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample - self.mean

    def energy(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample.flatten(1).sum(1) * 0


@dataclass
class Equal(Plain):
    """A component with `==` and without a hash, as dataclasses are."""

    mean: float


@dataclass(frozen=True)
class EqualWithHash(Plain):
    """A component whose equal instances have one hash."""

    mean: float


@pytest.mark.parametrize("kind", [Equal, EqualWithHash])
def test_components_are_terms_by_identity_whatever_their_equality(kind: type[Equal | EqualWithHash]) -> None:
    a, twin = kind(0.5), kind(0.5)
    assert a == twin
    for composition in (a + twin, combine([a, twin], "sum"), Composer([a, twin], rule="sum").composition):
        assert list(composition.terms.values()) == [1.0, 1.0]
        assert composition.terms[twin] == 1.0
        assert torch.equal(composition.eps(torch.ones(1, 1, 1, 1), torch.zeros(1)), torch.ones(1, 1, 1, 1))
    assert [id(term) for term in (a + twin - a).terms] == [id(twin)]
    assert (a + twin).terms != (a + a).terms
    assert list((a + a).terms.values()) == [2.0]
    assert (a | twin).eps(torch.ones(1, 1, 1, 1), torch.zeros(1)).item() == 0.5
    assert repr((a + twin).terms) == f"{{{a}: 1.0, {twin}: 1.0}}"


@torch.no_grad()
def test_a_composer_composes_as_its_composition_and_shares_the_trunk() -> None:
    a, b, c = MODEL(0.1, 0.2), MODEL(0.3, 0.4), MODEL(0.8, 0.6)
    sample, timestep = torch.randn(2, 3, 16, 16), torch.tensor([100.0, 700.0])
    cases: list[tuple[Composable, Composable, int]] = [
        (a + Composer([b, c]), a + (b & c), 4),
        (Composer([b, c]) & a, b & c & a, 4),
        (Composer([Composer([a, b]), c]), combine([a, b, c], "product"), 4),
        (Composer([a, b]) - b, a - MODEL.unconditional, 2),
        (~Composer([a, b]), ~(a & b), 3),
        (0.5 * Composer(a) + 0.5 * Composer(b), 0.5 * a + 0.5 * b, 2),
    ]
    for composed, expected, distinct in cases:
        assert same(composed, expected)
        with count_rows() as spent:
            got = Composer(composed).eps(sample, timestep)
        assert (spent.rows, spent.trunks) == (distinct * len(sample), len(sample))
        torch.testing.assert_close(got, Composition.of(expected).eps(sample, timestep), rtol=1e-5, atol=1e-5)


@attrs.define
class Shifts:
    """A group of a package of its own, with `==` and without a hash: it predicts x0 for all its leaves at once."""

    calls: list[int] = attrs.field(factory=list)
    prediction_type: str = "sample"
    rule: str = "mean"
    device: torch.device | None = None
    decode: None = None

    def predict(self, leaves: list[Shift], sample: torch.Tensor, timestep: torch.Tensor) -> list[torch.Tensor]:
        self.calls.append(len(leaves))
        return [torch.full_like(sample, leaf.value) for leaf in leaves]


@attrs.frozen(eq=False)
class Shift(Composable):
    group: Shifts
    value: float
    noised_space: NoisedSpace = attrs.field(factory=lambda: NoisedSpace(cosine_schedule(), (3, 2, 2)))

    def eps(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return predict(self, sample, timestep)


def test_a_group_predicts_all_its_leaves_in_one_call_and_is_known_by_identity() -> None:
    group, twin = Shifts(), Shifts()
    leaves = [Shift(group, value) for value in (0.2, 0.4, 0.9)]
    composer = Composer(leaves)
    assert dict(composer.terms) == pytest.approx(dict.fromkeys(leaves, 1 / 3))  # the rule of the group
    sample, timestep = torch.randn(2, 3, 2, 2), torch.tensor([100.0, 700.0])
    x0 = predict(composer, sample, timestep, prediction_type="sample")
    torch.testing.assert_close(x0, torch.full_like(sample, 0.5))
    assert group.calls == [3]
    made = composer.sample(num_inference_steps=3, output_type="pt", progress=False)
    torch.testing.assert_close(made, torch.full((1, 3, 2, 2), 0.5), rtol=0, atol=1e-4)
    group.calls.clear()
    assert group == twin
    x0 = predict(Composer([leaves[0], Shift(twin, 0.4)]), sample, timestep, prediction_type="sample")
    torch.testing.assert_close(x0, torch.full_like(sample, 0.3))
    assert (group.calls, twin.calls) == ([1], [1])


@attrs.frozen(eq=False)
class Broken(Composable):
    kind: str
    noised_space: NoisedSpace = attrs.field(factory=lambda: NoisedSpace(cosine_schedule(), (1, 2, 2)))

    def eps(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return FAULTS[self.kind][0](sample)

    def energy(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample.square().flatten(1).sum(1)


FAULTS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str]] = {
    "shape": (lambda sample: sample[:, :, :1], "eps of shape"),
    "nan": (lambda sample: sample * float("nan"), "NaN or infinity"),
    "random": (torch.randn_like, "global random state"),
    "batch": (lambda sample: sample - sample.mean(0), "one by one"),
    "in place": (lambda sample: sample.mul_(2), "changed in place"),
    "energy": (lambda sample: sample, "gradient of the energy"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_the_conformance_check_finds(kind: str) -> None:
    with pytest.raises(AssertionError, match=FAULTS[kind][1]):
        check_component(Broken(kind))


def test_the_conformance_check_names_train_mode() -> None:
    class Dropping(torch.nn.Dropout):
        def forward(self, sample: torch.Tensor, timestep: torch.Tensor, condition: object) -> torch.Tensor:  # type: ignore[override]
            return super().forward(sample)

    dropping = Conditional(attrs.evolve(MODEL.denoiser, network=Dropping()), MODEL(0.2, 0.3).condition)
    with pytest.raises(AssertionError, match="network in train mode; expected eval mode"):
        check_component(dropping)
    dropping.denoiser.network.eval()
    check_component(dropping)
