"""Batched is looped, and the rows that run are the rows that are promised, for every rule, type and kind of network."""

from typing import Any, cast, get_args

import attrs
import pytest
import torch
from torch import Tensor, nn

from energycomp.components import (
    Composition,
    Condition,
    PredictionType,
    combine,
    convert,
    native_type,
    predict,
    signal_noise,
)
from energycomp.components.prediction import PREDICTION_TYPES
from energycomp.components.rules import Rule
from energycomp.denoisers import Conditional, Denoiser, compose_rows, count_rows, evaluator as evaluate, rows, trunk
from energycomp.errors import CompositionError, InputError, NonFiniteError
from energycomp.testing import Gaussian, tiny_model

CASES = [(rule, kind) for rule in get_args(Rule) for kind in PREDICTION_TYPES if rule != "sum" or kind == "epsilon"]
PLACES = torch.tensor([[0.1, 0.2], [0.5, 0.9], [0.7, 0.3]])


class OneStage(nn.Module):
    """The two-stage network behind the interface of one stage."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        return self.inner.head(self.inner.features(sample, timestep), condition, torch.arange(len(sample)))


def denoiser(rule: str, kind: str, *, two_stage: bool = True) -> Denoiser:
    made = tiny_model(rule=rule, prediction_type=kind).denoiser
    return made if two_stage else attrs.evolve(made, network=OneStage(made.network))


def inputs(batch: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, 16, 16, generator=generator), torch.tensor([120.0, 640.5, 333.0])[:batch]


def leaves(model: Denoiser, places: Tensor = PLACES) -> list[Conditional]:
    return [Conditional(model, Condition(place.view(1, 1, 2))) for place in places]


def close(got: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    """To 1e-5 of the largest number: turning x0 into eps multiplies the rounding of both by sqrt(SNR)."""
    return got.shape == expected.shape and float((got - expected).abs().max() / expected.abs().max()) < tolerance


def one_by_one(composition: Composition, sample: Tensor, timestep: Tensor) -> Tensor:
    """Composed eps by the definition: every leaf and sample through the network alone."""
    total = torch.zeros_like(sample, dtype=torch.float64)
    for leaf, weight in composition.terms.items():
        for b in range(len(sample)):
            x, t = sample[b : b + 1], timestep[b : b + 1]
            a, s = signal_noise(leaf.denoiser.alphas_cumprod, t, torch.float64)
            kind = leaf.denoiser.prediction_type
            given = (x / (a + s)).float() if kind == "flow" else x  # (1 - t) x0 + t eps with t = s / (a + s)
            row = leaf.condition.expand(len(sample))[b : b + 1]
            network = cast("Any", leaf.denoiser.network)
            if isinstance(network, OneStage):
                out = network(given, t, row)
            else:
                out = network.head(network.features(given, t), row, torch.tensor([0]))
            total[b] += weight * convert(out.double(), x.double(), a, s, source=kind, target="epsilon")[0]
    return total


@pytest.mark.parametrize("two_stage", [True, False])
@pytest.mark.parametrize(("rule", "kind"), CASES)
@torch.no_grad()
def test_batched_is_looped_and_rows_are_counted(rule: Any, kind: str, two_stage: bool) -> None:
    """Of rules over one to three components, and, where there is u, of weights of any mass."""
    model = denoiser(rule, kind, two_stage=two_stage)
    a, b, c = leaves(model)
    u = rule == "product"
    cases = [(combine(some, rule), len(some) + (u and len(some) > 1)) for some in ([a], [a, b], [a, b, c])]
    if u:
        cases += [(2.0 * a - 0.5 * b, 2), (7.5 * a & b, 3), (~a, 2), (a - b, 2)]
    sample, timestep = inputs()
    for composition, distinct in cases:
        with count_rows() as spent:
            got = predict(composition, sample, timestep)
        assert (spent.rows, spent.trunks) == (len(sample) * distinct, len(sample) if two_stage else 0)
        assert close(got.double(), one_by_one(composition, sample, timestep))


@torch.no_grad()
def test_what_cancels_or_repeats_costs_nothing() -> None:
    a, b, _ = leaves(denoiser("product", "sample"))
    sample, timestep = inputs()
    for composition, distinct in ((a + b - a, 1), (a & a & a, 2), (2 * a + 3 * a, 1), (a & ~a, 1), ((a & b) & ~b, 1)):
        with count_rows() as spent:
            predict(composition, sample, timestep)
        assert (spent.rows, spent.trunks) == (distinct * len(sample), len(sample))
    with count_rows() as spent:
        assert not predict(a - a, sample, timestep).any()
    assert spent.rows == 0


@torch.no_grad()
def test_two_denoisers_in_one_composition() -> None:
    first, second = denoiser("product", "sample"), tiny_model(prediction_type="epsilon", seed=1).denoiser
    composition = sum([*leaves(first)[:2], *leaves(second)[:1], 0.5 * leaves(first)[2]])
    sample, timestep = inputs()
    with count_rows() as spent:
        got = predict(composition, sample, timestep)
    assert (spent.rows, spent.trunks) == (4 * 2, 2 * 2)
    assert close(got.double(), one_by_one(composition, sample, timestep))


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("two_stage", [True, False])
@torch.no_grad()
def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch, two_stage: bool, limit: int) -> None:
    model = denoiser("product", "sample", two_stage=two_stage)
    composition, (sample, timestep) = combine(leaves(model), "product"), inputs(3)
    with count_rows() as expected:
        whole = predict(composition, sample, timestep)
    sizes: list[int] = []
    model.network.register_forward_hook(lambda module, args, out: sizes.append(len(out)))
    monkeypatch.setattr(evaluate, "row_limit", lambda *args: limit)
    with count_rows() as spent:
        chunked = predict(composition, sample, timestep)
    assert close(chunked, whole)
    assert spent == expected
    assert two_stage or max(sizes) <= limit


@pytest.mark.parametrize("two_stage", [True, False])
@pytest.mark.parametrize(("rule", "kind"), CASES)
@torch.no_grad()
def test_ragged_rows_are_the_compositions_of_each_sample(rule: Any, kind: PredictionType, two_stage: bool) -> None:
    model = denoiser(rule, kind, two_stage=two_stage)
    counts = [2, 1, 3, 0] if rule == "product" else [2, 1, 3]
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(len(counts), 3, 16, 16, generator=generator)
    timestep = torch.tensor([50.0, 400.0, 730.5, 200.0])[: len(counts)]
    places = torch.rand(sum(counts), 2, generator=generator)
    owner = torch.tensor([b for b, count in enumerate(counts) for _ in range(count)])
    order = torch.randperm(len(owner), generator=generator)  # rows may come in any order
    with count_rows() as spent:
        got = compose_rows(model, trunk(model, sample, timestep), Condition(places[order, None]), owner[order])
    free = sum(count != 1 for count in counts) if rule == "product" else 0
    assert (spent.rows, spent.trunks) == (sum(counts) + free, len(counts) if two_stage else 0)
    for b, part in enumerate(places.split(counts)):
        composition = combine(leaves(model, part), rule) if len(part) else Composition.of(model.unconditional)
        alone = predict(composition, sample[b : b + 1], timestep[b : b + 1], prediction_type=kind)
        assert close(got[b : b + 1], alone)


@torch.no_grad()
def test_types_are_combined_as_they_are_at_mass_one() -> None:
    a, b, _ = leaves(denoiser("product", "sample"))
    assert native_type(a & b) == "sample"
    assert native_type(a + b) == "epsilon"
    images = Gaussian(sample_shape=(3, 16, 16), space="pixels", value_range=(-1, 1))
    assert native_type(0.5 * a + 0.5 * images) == "epsilon"
    sample, timestep = inputs()
    x0 = predict(a & b, sample, timestep, prediction_type="sample")
    shared = trunk(a.denoiser, sample, timestep)
    parts = [rows(a.denoiser, shared, leaf.condition.expand(2), torch.arange(2)) for leaf in (a, b)]
    null = rows(a.denoiser, shared, a.denoiser.unconditional.condition.expand(2), torch.arange(2))
    assert close(x0, parts[0] + parts[1] - null)


def test_gradients_reach_conditions_through_heads_only() -> None:
    model = denoiser("product", "sample")
    sample, timestep = inputs()
    place = PLACES[:2, None].clone().requires_grad_()
    with torch.no_grad():
        shared = trunk(model, sample, timestep)
    assert not any(part.requires_grad for part in shared.features or ())
    out = rows(model, shared, Condition(place), torch.arange(2))
    (gradient,) = torch.autograd.grad(out[0].square().sum(), place)
    assert gradient[0].ne(0).all()
    assert not gradient[1].any()


def test_what_is_not_finite_names_the_component() -> None:
    model = tiny_model()
    good, bad = model(0.1, 0.1), model(0.9, 0.9)
    bad.condition.rows.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match=r"prediction of tiny\(0\.9, 0\.9\)"):
        predict(good & bad, *inputs())
    lone = Gaussian(float("inf"), name="lone", sample_shape=(3, 16, 16))
    with pytest.raises(NonFiniteError, match="lone"):
        predict(Composition.of(lone), *inputs())


def test_what_does_not_fit_is_refused() -> None:
    model = denoiser("mean", "sample")
    shared, places = trunk(model, *inputs()), Condition(PLACES[:1, None])
    with pytest.raises(InputError, match=r"expected \(B, 3, 16, 16\)"):
        trunk(model, torch.zeros(1, 3, 8, 8), torch.zeros(1))
    with pytest.raises(InputError, match=r"expected one per sample, \(B,\)"):
        trunk(model, torch.zeros(2, 3, 16, 16), torch.zeros(1))
    with pytest.raises(InputError, match="one owner per row"):
        rows(model, shared, Condition(PLACES[:, None]), torch.tensor([0]))
    with pytest.raises(CompositionError, match="without components under the rule 'mean'"):
        compose_rows(model, shared, places, torch.tensor([0]))


@torch.no_grad()
def test_counters_nest_and_no_rows_cost_nothing() -> None:
    model = denoiser("product", "sample")
    with count_rows() as outer:
        shared = trunk(model, *inputs())
        with count_rows() as inner:
            rows(model, shared, Condition(PLACES[:, None]), torch.tensor([0, 1, 1]))
        empty = rows(model, shared, Condition(PLACES[:0, None]), torch.tensor([], dtype=torch.long))
    assert empty.shape == (0, 3, 16, 16)
    assert (inner.rows, inner.trunks, outer.rows, outer.trunks) == (3, 0, 3, 2)


def test_a_network_may_say_where_it_computes() -> None:
    class Mapped(OneStage):
        device = torch.device("cuda:1")

    made = tiny_model().denoiser
    assert attrs.evolve(made, network=Mapped(made.network)).device == torch.device("cuda:1")
    assert made.device == torch.device("cpu")


def test_a_denoiser_shares_the_unconditional_leaf_of_its_base() -> None:
    model = tiny_model()
    adapted = attrs.evolve(model.denoiser, network=model.denoiser.network, base=model.denoiser)
    other = Conditional(adapted, model(0.3, 0.4).condition, name="adapted")
    assert other.unconditional is model.unconditional
    with count_rows() as spent:
        got = (model(0.1, 0.2) & other).eps(*inputs(1))
    assert spent.rows == 3
    torch.testing.assert_close(got, (model(0.1, 0.2) & model(0.3, 0.4)).eps(*inputs(1)))


def test_the_width_of_a_network_is_that_of_its_patches_and_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate.widest(nn.Sequential(nn.Linear(8, 3072), nn.Linear(3072, 8))) == 768
    assert evaluate.widest(nn.Linear(2, 2)) == 64
    looked: list[nn.Module] = []
    monkeypatch.setattr(evaluate, "widest", lambda network: looked.append(network) or 64)
    networks = nn.Linear(2, 2), nn.Linear(2, 2)
    limits = [evaluate.row_limit(torch.device("cpu"), (1, 8, 8), network) for network in networks * 2]
    assert (len(set(limits)), looked) == (1, list(networks))


@pytest.mark.parametrize("two_stage", [True, False])
def test_a_network_in_double_precision_predicts_what_it_does_in_single_precision(two_stage: bool) -> None:
    sample, timestep = inputs()
    single, double = (denoiser("product", "epsilon", two_stage=two_stage) for _ in range(2))
    double.network.load_state_dict(single.network.state_dict())
    double.network.double()
    found, expected = (predict(combine(leaves(model), "product"), sample, timestep) for model in (double, single))
    assert found.dtype == torch.float32
    assert close(found, expected)
