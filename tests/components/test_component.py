"""The algebra: a composition is a weighted sum, `&` and `~` are arithmetic on residuals."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from energycomp.components import Composable, Composition, Condition, EnergyComponent, NoisedSpace, combine, predict
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


def test_and_sharpens() -> None:
    """No Boolean algebra."""
    assert same(7.5 * A & U, U + 7.5 * (A - U))
    assert not same(A & A, A)
    assert same(combine([A], "product"), A)


def test_what_cannot_be_divided_or_combined() -> None:
    with pytest.raises(CompositionError, match="divided by 0"):
        A / 0
    with pytest.raises(TypeError):
        2 / A  # type: ignore[operator]
    cases: tuple[tuple[list[Any], Any, str], ...] = (
        ([A - B], "mean", "sum to 0"), ([], "sum", "no components"), ([A], "max", "'max'"),
        ([1], "sum", "got int; expected a component"),
    )  # fmt: skip
    for parts, rule, message in cases:
        with pytest.raises(CompositionError, match=message):
            combine(parts, rule)


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


def test_a_weight_does_not_keep_a_gradient() -> None:
    with pytest.raises(CompositionError, match="requires a gradient"):
        torch.tensor(2.0, requires_grad=True) * A


def test_truth_value_raises() -> None:
    for value in (A, A + B):
        with pytest.raises(CompositionError, match="write `a & b`"):
            bool(value)
    with pytest.raises(CompositionError):
        A and B  # noqa: B018


@pytest.mark.parametrize(
    "foreign", ["text", None, object(), 3, 1.5, np.ones(2), torch.ones(2), 1j, tiny_model().denoiser]
)
def test_foreign_operands_are_left_to_the_other_side(foreign: object) -> None:
    assert A.__and__(foreign) is NotImplemented
    assert A.__add__(foreign) is NotImplemented
    assert A.__sub__(foreign) is NotImplemented
    for operation in (operator.and_, operator.add, operator.sub):
        for left, right in ((A, foreign), (foreign, A)):
            with pytest.raises(TypeError):
                operation(left, right)


def test_weights_are_finite_numbers() -> None:
    assert A.__mul__("2") is NotImplemented
    assert A.__mul__(B) is NotImplemented
    for weight in (float("nan"), float("inf"), np.float32("inf"), torch.tensor(float("nan"))):
        with pytest.raises(CompositionError, match="finite"):
            weight * A


def test_equality_is_identity() -> None:
    twin = attrs.evolve(A)
    assert twin != A
    assert len((A + twin).terms) == 2
    assert len({A, twin}) == 2
    assert (A + B) != (A + B)


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


@pytest.mark.parametrize(
    "other",
    [
        Gaussian(name="other", space="pixels"),
        Gaussian(name="other", value_range=(-1.0, 1.0)),
        Gaussian(name="other", sample_shape=(3, 1, 1)),
        Gaussian(name="other", alphas_cumprod=cosine_schedule(500)),
        Gaussian(name="other", alphas_cumprod=torch.linspace(0.99, 0.01, 1000)),
    ],
)
def test_incompatible_components_are_both_named(other: Gaussian) -> None:
    for operation in (lambda: A + other, lambda: other - A, lambda: combine([B, A, other], "sum")):
        with pytest.raises(CompositionError, match=r"(?s)(a|b).*other|other.*(a|b)"):
            operation()


def test_equal_schedules_of_two_models_are_compatible() -> None:
    assert len((A + Gaussian(alphas_cumprod=cosine_schedule())).terms) == 2


def test_without_an_unconditional_leaf() -> None:
    lone = Gaussian(name="lone")
    for operation in (lambda: lone & A, lambda: A & lone, lambda: ~lone):
        with pytest.raises(CompositionError, match="lone"):
            operation()
    with pytest.raises(CompositionError, match="2 unconditional leaves"):
        A & Gaussian(name="d", unconditional=Gaussian(name="v", unconditional="self"))


def test_the_unconditional_leaf_of_a_denoiser_merges_and_cancels() -> None:
    model = tiny_model()
    a, b = model(0.1, 0.2), model(0.3, 0.4)
    assert model.denoiser.unconditional is model.denoiser.unconditional
    assert dict((a & b).terms) == {model.unconditional: -1.0, a: 1.0, b: 1.0}
    assert model.unconditional not in ((a & b) + model.unconditional).terms
    assert model.unconditional not in combine([a, b - model.unconditional, model.unconditional], "sum").terms
    assert same(Composition.of(model.unconditional) & a, a)


def test_untrained_unconditional_row() -> None:
    model = tiny_model()
    denoiser = attrs.evolve(model.denoiser, null_trained=False)
    a, b = (Conditional(denoiser, Condition(torch.rand(1, 1, 2))) for _ in range(2))
    for operation in (lambda: a & b, lambda: ~a, lambda: 7.5 * a & b, lambda: Composer([a, b])):
        with pytest.raises(CompositionError, match="never trained"):
            operation()
    assert len((a + b).terms) == 2


def test_a_leaf_checks_its_tokens() -> None:
    with pytest.raises(CompositionError, match=r"got a condition with tokens \(2, 3\)"):
        Conditional(tiny_model().denoiser, Condition(torch.zeros(1, 2, 3)))


@pytest.mark.parametrize("component", [A, A + B, A & B, 0.5 * A + 0.5 * C, Composer([A, B], rule="mean")])
def test_gaussians_conform(component: object) -> None:
    check_component(component)


def test_leaves_and_compositions_of_networks_conform() -> None:
    model = tiny_model()
    for component in (model(0.2, 0.3), model.unconditional, model(0.2, 0.3) & model(0.6, 0.7)):
        check_component(component, tolerance=1e-3)


def test_nested_composer_is_a_component() -> None:
    inner = Composer(A + B)
    sample, timestep = torch.randn(2, 1, 1, 1), torch.tensor([100.0, 700.0])
    expected = A.eps(sample, timestep) + B.eps(sample, timestep) + C.eps(sample, timestep)
    assert torch.allclose(Composer(C + inner).eps(sample, timestep), expected, atol=1e-6)


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


def test_a_component_without_our_base_class_composes() -> None:
    model = tiny_model()
    leaf, other = model(0.2, 0.3), Alone(model.denoiser.noised_space)
    assert isinstance(other, EnergyComponent)
    sample, timestep = torch.randn(2, 3, 16, 16), torch.tensor([100.0, 700.0])
    for composition in (leaf + other, other + leaf, combine([other, leaf], "sum"), Composer([leaf, other], rule="sum")):
        expected = leaf.eps(sample, timestep) + sample - 1.0
        torch.testing.assert_close(composition.eps(sample, timestep), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(CompositionError, match="expected a component with `noised_space` and `eps`"):
        Composition.of(model)
    with pytest.raises(CompositionError, match="got str; expected a component"):
        Composition({"red": 1.0})


def test_the_operators_take_a_component_without_our_base_class_on_either_side() -> None:
    model = tiny_model()
    leaf, other = model(0.2, 0.3), Alone(model.denoiser.noised_space)
    assert same(other - leaf, -leaf + Composition.of(other))
    with_u = AloneWithAll(model.denoiser.noised_space, unconditional=model.unconditional)
    assert same(with_u & leaf, leaf & with_u)
    a, b = AloneWithAll(A.noised_space), Gaussian()
    assert [part.terms for part in (a | b).components] == [{a: 1.0}, {b: 1.0}]
    assert [part.terms for part in (b | a).components] == [{b: 1.0}, {a: 1.0}]


@dataclass
class Equal(Composable):
    """A component with `==` and without a hash, as dataclasses are."""

    mean: float

    @property
    def noised_space(self) -> NoisedSpace:
        return A.noised_space

    def eps(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample - self.mean

    def energy(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample.flatten(1).sum(1) * 0


@dataclass(frozen=True)
class EqualWithHash(Composable):
    """A component whose equal instances have one hash."""

    mean: float
    noised_space = Equal.noised_space
    eps = Equal.eps
    energy = Equal.energy


@pytest.mark.parametrize("kind", [Equal, EqualWithHash])
def test_components_are_terms_by_identity_whatever_their_equality(kind: type[Equal | EqualWithHash]) -> None:
    a, twin = kind(0.5), kind(0.5)
    assert a == twin
    for composition in (a + twin, combine([a, twin], "sum"), Composer([a, twin], rule="sum").composition):
        assert list(composition.terms.values()) == [1.0, 1.0]
        assert composition.terms[twin] == 1.0
        assert torch.equal(composition.eps(torch.ones(1, 1, 1, 1), torch.zeros(1)), torch.ones(1, 1, 1, 1))
    assert list((a + twin - a).terms) == [twin]
    assert next(iter((a + twin - a).terms)) is twin
    assert (a + twin).terms != (a + a).terms
    assert list((a + a).terms.values()) == [2.0]
    assert (a | twin).eps(torch.ones(1, 1, 1, 1), torch.zeros(1)).item() == 0.5
    assert repr((a + twin).terms) == f"{{{a}: 1.0, {twin}: 1.0}}"


def test_everything_that_is_composed_is_a_component() -> None:
    model = tiny_model()
    a, b = model(0.1, 0.2), model(0.3, 0.4)
    for component in (A, A + B, A | B, a, a & b, ~a, Composer([a, b]), Composer([A, B], rule="mean")):
        assert isinstance(component, EnergyComponent)
    sample, timestep = torch.randn(2, 3, 16, 16), torch.tensor([100.0, 700.0])
    assert torch.equal((a & b).eps(sample, timestep), predict(a & b, sample, timestep))
    assert (A + B).noised_space == A.noised_space
    with pytest.raises(CompositionError, match="without components"):
        _ = (A - A).noised_space
    with pytest.raises(CompositionError, match=r"tiny\(0\.1, 0\.2\), which has no energy"):
        (a + b).energy(sample, timestep)


@torch.no_grad()
def test_a_composer_composes_as_its_composition_and_shares_the_trunk() -> None:
    model = tiny_model()
    a, b, c = model(0.1, 0.2), model(0.3, 0.4), model(0.8, 0.6)
    sample, timestep = torch.randn(2, 3, 16, 16), torch.tensor([100.0, 700.0])
    cases: list[tuple[Composable, Composable, int]] = [
        (a + Composer([b, c]), a + (b & c), 4),
        (Composer([b, c]) & a, b & c & a, 4),
        (Composer([Composer([a, b]), c]), combine([a, b, c], "product"), 4),
        (Composer([a, b]) - b, a - model.unconditional, 2),
        (~Composer([a, b]), ~(a & b), 3),
        (0.5 * Composer(a) + 0.5 * Composer(b), 0.5 * a + 0.5 * b, 2),
    ]
    for composed, expected, distinct in cases:
        assert same(composed, expected)
        with count_rows() as spent:
            got = Composer(composed).eps(sample, timestep)
        assert (spent.rows, spent.trunks) == (distinct * len(sample), len(sample))
        torch.testing.assert_close(got, Composition.of(expected).eps(sample, timestep), rtol=1e-5, atol=1e-5)


@attrs.frozen(eq=False)
class Shifts:
    """A group of a package of its own: it predicts x0 for all its leaves at once. Groups are told apart by identity."""

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


def test_a_group_predicts_all_its_leaves_in_one_call() -> None:
    group = Shifts()
    leaves = [Shift(group, value) for value in (0.2, 0.4, 0.9)]
    composer = Composer(leaves)
    assert dict(composer.terms) == pytest.approx(dict.fromkeys(leaves, 1 / 3))  # the rule of the group
    sample, timestep = torch.randn(2, 3, 2, 2), torch.tensor([100.0, 700.0])
    x0 = predict(composer, sample, timestep, prediction_type="sample")
    torch.testing.assert_close(x0, torch.full_like(sample, 0.5))
    assert group.calls == [3]
    made = composer.sample(num_inference_steps=3, output_type="pt", progress=False)
    torch.testing.assert_close(made, torch.full((1, 3, 2, 2), 0.5), rtol=0, atol=1e-4)


@attrs.define
class EqualShifts(Shifts):
    """A group with `==` and without a hash."""


def test_groups_are_told_apart_by_identity() -> None:
    first, second = EqualShifts(), EqualShifts()
    assert first == second
    sample, timestep = torch.randn(2, 3, 2, 2), torch.tensor([100.0, 700.0])
    x0 = predict(Composer([Shift(first, 0.2), Shift(second, 0.4)]), sample, timestep, prediction_type="sample")
    torch.testing.assert_close(x0, torch.full_like(sample, 0.3))
    assert (first.calls, second.calls) == ([1], [1])


@attrs.frozen(eq=False)
class Broken(Composable):
    kind: str
    noised_space: NoisedSpace = attrs.field(factory=lambda: NoisedSpace(cosine_schedule(), (1, 2, 2)))

    def eps(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        wrong = {
            "shape": lambda: sample[:, :, :1],
            "nan": lambda: sample * float("nan"),
            "random": lambda: torch.randn_like(sample),
            "batch": lambda: sample - sample.mean(0),
            "in place": lambda: sample.mul_(2),
        }
        return wrong[self.kind]() if self.kind in wrong else sample

    def energy(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return sample.square().flatten(1).sum(1)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("shape", "eps of shape"),
        ("nan", "NaN or infinity"),
        ("random", "global random state"),
        ("batch", "one by one"),
        ("in place", "changed in place"),
        ("energy", "gradient of the energy"),
    ],
)
def test_the_conformance_check_finds(kind: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_component(Broken(kind))


def test_the_conformance_check_names_train_mode() -> None:
    class Dropping(torch.nn.Dropout):
        def forward(self, sample: torch.Tensor, timestep: torch.Tensor, condition: object) -> torch.Tensor:  # type: ignore[override]
            return super().forward(sample)

    model = tiny_model()
    dropping = Conditional(attrs.evolve(model.denoiser, network=Dropping()), model(0.2, 0.3).condition)
    with pytest.raises(AssertionError, match="network in train mode; expected eval mode"):
        check_component(dropping)
    dropping.denoiser.network.eval()
    check_component(dropping)
