"""The baselines of the table on finding objects, and the differences of the table."""

import itertools

import pytest
import torch

from benchmarks.baselines.comparison import Answer, paired_difference, score
from benchmarks.baselines.networks import OUTPUTS, ResNet, SlotAttention, kept, matched_error, padded
from benchmarks.baselines.places import MOST, PlaceSet, SetUNet, set_condition
from benchmarks.inference.greedy_loop import Classifier, looped
from energycomp.components import Condition
from energycomp.errors import InputError
from energycomp.inference import make_problem
from energycomp.testing import bumps_model, planted
from energycomp_lab.evaluation import PerceptionRate


@pytest.fixture
def network() -> SetUNet:
    """A small one whose head adds something: its last layer starts at zero."""
    torch.manual_seed(0)
    network = SetUNet(sample_size=16, channels=(8, 16), head_channels=8)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


def predicted(network: SetUNet, condition: Condition) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(1, 3, 16, 16, generator=generator)
    features = network.features(sample, torch.tensor([300.0]))
    return network.head(features, condition, torch.zeros(len(condition), dtype=torch.long))


def test_the_classifier_does_not_see_the_order_of_places(network: SetUNet) -> None:
    places = torch.rand(4, 2)
    orders = torch.stack([places[list(order)] for order in itertools.permutations(range(4))])
    out = predicted(network, PlaceSet(4)(orders))
    assert torch.allclose(out, out[:1].expand_as(out), atol=1e-5)
    moved = places.clone()
    moved[2] += 0.1
    assert not torch.allclose(predicted(network, PlaceSet(4)(moved[None])), out[:1], atol=1e-2)


def test_the_classifier_ignores_absent_places(network: SetUNet) -> None:
    condition = PlaceSet(3)(torch.rand(1, 3, 2))
    rows = condition.rows.clone()
    rows[:, 3:, :2] = torch.rand(1, MOST - 3, 2)
    assert torch.equal(predicted(network, Condition(rows)), predicted(network, condition))
    empty = PlaceSet(0)(torch.rand(1, 0, 2))
    null = Condition.unconditional(MOST, 3)
    assert torch.equal(predicted(network, empty), predicted(network, null))
    assert not torch.allclose(predicted(network, empty), predicted(network, condition), atol=1e-2)


def test_ragged_places_become_one_row_a_picture() -> None:
    values, owner = torch.rand(3, 2), torch.tensor([0, 2, 2])
    condition = set_condition(values, owner, 4)
    assert condition.rows[..., 2].sum(1).tolist() == [1.0, 0.0, 2.0, 0.0]
    assert torch.equal(condition.rows[2, :2, :2], values[1:])
    with pytest.raises(InputError, match="11 places"):
        set_condition(torch.rand(11, 2), torch.zeros(11, dtype=torch.long), 1)


def test_padding() -> None:
    values, owner = torch.rand(5, 2) * 0.8, torch.tensor([0, 0, 2, 2, 2])
    wanted = padded(values, owner, 3)
    assert torch.equal(wanted[2, :3], values[2:])
    assert bool((wanted[1] == 1).all())
    assert [len(kept(places)) for places in wanted] == [2, 0, 3]
    assert torch.equal(kept(wanted[2].flip(0), 3), values[2:].flip(0))
    assert len(kept(wanted[2], 5)) == 5


def test_the_matched_error_is_the_least_over_all_orders() -> None:
    found, wanted = torch.rand(2, 5, 2), torch.rand(2, 5, 2)
    orders = [list(order) for order in itertools.permutations(range(5))]
    errors = [[float((f[order] - w).square().mean()) for order in orders] for f, w in zip(found, wanted, strict=True)]
    assert float(matched_error(found, wanted)) == pytest.approx(sum(map(min, errors)) / 2, rel=1e-5)


@pytest.mark.parametrize("network", [ResNet((OUTPUTS, 2)), SlotAttention()], ids=["resnet", "slot_attention"])
def test_gradients_reach_all_parameters(network: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    matched_error(network(torch.randn(2, 3, 64, 64), generator), torch.rand(2, 8, 2)).backward()
    assert all(p.grad is not None and bool(p.grad.ne(0).any()) for p in network.parameters())


def answers(hits: list[int], objects: int = 4) -> list[Answer]:
    """One picture for each number of hits among `objects`."""
    true = torch.linspace(0, 1, objects)[:, None].expand(-1, 2).contiguous()
    return [Answer((torch.cat([true[:h], true[h:] + 5.0]),), true) for h in hits]


def test_the_interval_of_a_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randint(0, 4, (400,), generator=generator)
    theirs = ours + torch.randint(0, 2, (400,), generator=generator)  # better by one hit in half of the pictures
    gap, low, high = paired_difference(PerceptionRate(), answers(theirs.tolist()), answers(ours.tolist()))
    each = (theirs - ours).double() / 4
    half = 1.96 * float(each.std()) / 20  # the normal interval of a mean over equal pictures
    assert gap == pytest.approx(float(each.mean()))
    assert (low, high) == pytest.approx((gap - half, gap + half), abs=0.1 * half)
    constant = paired_difference(PerceptionRate(), answers([2, 3, 4]), answers([1, 2, 3]))  # without spread
    assert constant == pytest.approx((0.25, 0.25, 0.25))
    assert score(PerceptionRate(), answers([2, 3, 4])) == pytest.approx(0.75)
    with pytest.raises(InputError, match="the same pictures"):
        paired_difference(PerceptionRate(), answers([1, 2]), answers([1]))


def test_prompts_of_the_greedy_loop_have_the_errors_of_all_their_places() -> None:
    model = bumps_model()
    places = torch.tensor([[0.2, 0.3], [0.7, 0.8], [0.4, 0.6]])
    problem = make_problem(planted(model, places[:2]), model)
    bank = problem.draw(4, 0)
    classifier = Classifier.of(model, problem, bank).given(places[0])
    prompts = torch.stack([places[1], torch.full((2,), torch.nan), places[2]])
    errors = classifier.errors(prompts, torch.tensor([0, 2]))
    with_one_more = problem.errors(torch.stack([places[[0, 1]], places[[0, 2]]]), bank)[:, [0, 2]]
    torch.testing.assert_close(errors[[0, 2]], with_one_more)
    torch.testing.assert_close(errors[1], problem.errors(places[None, :1], bank)[0, [0, 2]])


def test_the_greedy_loop_finds_objects_and_stops() -> None:
    """On points of its lattice, so that nothing is left to explain."""
    model = bumps_model()
    places = (torch.tensor([[3.0, 4.0], [11.0, 12.0]]) + 0.5) / 16
    problem = make_problem(planted(model, places), model)
    found = looped([(1, 8), (4, 1)], model, problem, torch.Generator().manual_seed(0))
    assert sorted(map(tuple, found.tolist())) == [pytest.approx(tuple(place)) for place in places.tolist()]
