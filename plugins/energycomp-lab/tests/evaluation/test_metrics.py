"""Matching against all permutations, the Rand index against scikit-learn, and the definitions of thesis 5.4.1."""

from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torchmetrics import Metric

from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp_lab.evaluation import (
    CountAccuracy,
    EstimationError,
    ForegroundARI,
    PerceptionRate,
    Precision,
    SlotsUsed,
    adjusted_rand_index,
    bootstrap,
    match,
    near_pairs,
)


@pytest.mark.parametrize(("found", "true"), [(1, 1), (3, 3), (2, 4), (5, 3), (4, 4)])
def test_match_against_all_permutations(found: int, true: int) -> None:
    for seed in range(5):
        generator = seeded(seed)
        a, b = torch.rand(found, 2, generator=generator), torch.rand(true, 2, generator=generator)
        cost = ((a[:, None] - b[None]) ** 2).mean(2).numpy()
        small, large = min(found, true), max(found, true)
        wide = cost if found <= true else cost.T
        best = min(sum(wide[i, p] for i, p in enumerate(order)) for order in permutations(range(large), small))
        assert len(match(a, b)) == small
        assert float(match(a, b).sum()) == pytest.approx(best, rel=1e-5)


def test_as_many_pairs_as_possible_are_near() -> None:
    """By brute force: one pair at the same place does not keep two others apart."""
    within = 0.02
    for seed in range(20):
        found, true = (0.5 * torch.rand(number, 2, generator=seeded(seed + number)) for number in (3, 4))
        found[0] = true[0]
        cost = (found[:, None] - true[None]).square().mean(2)
        every = [[float(cost[k, p]) for k, p in enumerate(order)] for order in permutations(range(4), 3)]
        best = min(([one for one in each if one < within] for each in every), key=lambda near: (-len(near), sum(near)))
        rows, columns = near_pairs(found, true, within)
        assert sorted(cost[rows, columns].tolist()) == pytest.approx(sorted(best), abs=1e-7)
    line = torch.tensor([[0.0], [0.1], [0.2]])
    assert len(near_pairs(line[:2], line[1:], 0.02)[0]) == 2  # and not the one pair of a distance of 0
    assert near_pairs(line[:0], line)[0].shape == (0,)


def test_match_of_nothing() -> None:
    assert match(torch.zeros(0, 2), torch.zeros(3, 2)).shape == (0,)
    with pytest.raises(InputError, match=r"expected \(K', D\) and \(K, D\)"):
        match(torch.zeros(3), torch.zeros(3))
    with pytest.raises(InputError, match="expected"):
        match(torch.zeros(3, 2), torch.zeros(3, 3))
    for measure in (match, near_pairs):
        with pytest.raises(InputError, match="not finite"):
            measure(torch.zeros(3, 2), torch.full((1, 2), torch.nan))


def scenes() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Displacements on each side of the threshold: mean of squares 0.002 is a distance of 0.0632."""
    true = [torch.tensor([[0.2, 0.2], [0.8, 0.8]]), torch.tensor([[0.5, 0.5]]), torch.zeros(0, 2)]
    found = [
        torch.tensor([[0.8, 0.862], [0.2, 0.264], [0.5, 0.1]]),  # a hit, a miss, one too many; in another order
        torch.zeros(0, 2),
        torch.tensor([[0.1, 0.1]]),
    ]
    return found, true


def test_definitions() -> None:
    found, true = scenes()
    got = {}
    for metric in (PerceptionRate(), Precision(), EstimationError(), CountAccuracy()):
        metric.update(found, true)
        got[type(metric)] = metric.compute().item()
    assert got[PerceptionRate] == pytest.approx(1 / 3)  # of all true objects of all pictures
    assert got[Precision] == pytest.approx(1 / 4)
    assert got[EstimationError] == pytest.approx((0.062**2 / 2 + 0.064**2 / 2) / 2, rel=1e-5)
    assert got[CountAccuracy] == 0


def test_updates_add_up_and_reset() -> None:
    found, true = scenes()
    for kind in (PerceptionRate, Precision, EstimationError, CountAccuracy):
        whole, parts = kind(), kind()
        whole.update(found, true)
        for f, t in zip(found, true, strict=True):
            parts.update([f], [t])
        assert whole.compute() == parts.compute()
        parts.reset()
        parts.update(true[:1], true[:1])
        assert parts.compute() == (0 if kind is EstimationError else 1)


def test_threshold() -> None:
    found, true = [torch.tensor([[0.0, 0.1]])], [torch.tensor([[0.0, 0.0]])]
    for threshold, expected in ((0.0051, 1.0), (0.0049, 0.0)):
        rate = PerceptionRate(found_within=threshold)
        rate.update(found, true)
        assert rate.compute() == expected


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_is_not_a_number() -> None:
    for kind in (PerceptionRate, Precision, EstimationError):
        assert np.isnan(kind().compute().item())


def partition(count: int, seed: int, size: int = 12) -> tuple[Tensor, np.ndarray]:
    """Masks (count, size, size) and the labels (size, size) that they are made of; the label `count` is in none."""
    labels = np.random.default_rng(seed).integers(0, count + 1, (size, size))
    return torch.from_numpy(labels == np.arange(count)[:, None, None]), labels


@pytest.mark.parametrize(("parts", "objects"), [(0, 1), (0, 3), (1, 1), (1, 3), (3, 2), (5, 5), (9, 2)])
def test_rand_index_is_that_of_scikit_learn(parts: int, objects: int) -> None:
    for seed in range(4):
        found, theirs = partition(parts, seed)
        true, labels = partition(objects, seed + 100)
        mixed = np.where(np.random.default_rng(seed).random(labels.shape) < 0.7, labels, theirs)  # near the truth
        near = torch.from_numpy(mixed == np.arange(objects)[:, None, None])
        foreground = labels < objects
        for masks, numbers in ((found, theirs), (near, np.minimum(mixed, objects)), (true, labels)):
            index = adjusted_rand_index(masks, true)
            assert index.dtype == torch.float64
            assert float(index) == pytest.approx(
                adjusted_rand_score(labels[foreground], numbers[foreground]), abs=1e-12
            )


def test_rand_index_of_large_masks() -> None:
    """Products of pairs of 512x512 pixels exceed int64."""
    generator = seeded(0)
    true = torch.randint(2, (512, 512), generator=generator)
    found = torch.where(torch.arange(512)[:, None] < 51, 1 - true, true)
    masks = [torch.stack([numbers == k for k in range(2)]) for numbers in (found, true)]
    expected = adjusted_rand_score(true.flatten().numpy(), found.flatten().numpy())
    assert float(adjusted_rand_index(*masks)) == pytest.approx(expected, abs=1e-12)


def test_rand_index_does_not_depend_on_order_or_background() -> None:
    found, _ = partition(4, 0)
    true, _ = partition(3, 1)
    index = adjusted_rand_index(found, true)
    for order in permutations(range(3)):
        assert torch.allclose(adjusted_rand_index(found[[3, *order]], true[list(order)]), index, atol=1e-12)
    elsewhere = found ^ (torch.rand(found.shape, generator=seeded(0)) < 0.5) & ~true.any(0)
    assert not torch.equal(elsewhere, found)
    assert torch.equal(adjusted_rand_index(elsewhere, true), index)


def test_rand_index_where_masks_overlap_and_where_nothing_is_to_be_told_apart() -> None:
    true, _ = partition(3, 1)
    assert float(adjusted_rand_index(torch.cat([true, torch.ones_like(true)]), true)) == 1  # the first wins
    assert float(adjusted_rand_index(torch.cat([torch.ones_like(true), true]), true)) == 0
    pixel = torch.zeros(1, 12, 12, dtype=torch.bool)
    assert adjusted_rand_index(true, pixel).isnan()
    assert adjusted_rand_index(true, true[:0]).isnan()
    pixel[0, 5, 5] = True
    assert adjusted_rand_score([0], [1]) == float(adjusted_rand_index(true, pixel)) == 1
    with pytest.raises(InputError, match="got masks"):
        adjusted_rand_index(true[:, :5], true)


def test_means_of_masks_leave_out_what_has_no_objects_and_have_intervals() -> None:
    truth = [partition(3, seed)[0] for seed in range(5)]
    found = [partition(3, seed + 50)[0] for seed in range(5)]
    expected = np.mean([float(adjusted_rand_index(f, t)) for f, t in zip(found, truth, strict=True)])
    index, parts = ForegroundARI(), list[Metric]()
    for f, t in zip([*found, found[0], found[0]], [*truth, truth[0][:0], torch.zeros_like(truth[0])], strict=True):
        parts.append(ForegroundARI())
        parts[-1].update([f], [t])
        index.update([f], [t])
    assert int(index.weight) == 5
    assert float(index.compute()) == pytest.approx(expected, abs=1e-12)
    interval = bootstrap(parts, float(index.compute()))
    assert interval[0] < expected < interval[1]


def test_slots_that_are_used() -> None:
    masks = torch.zeros(4, 20, 10, dtype=torch.bool)
    masks[0] = True
    masks[1, 0, :2] = True  # 1 %
    masks[2, 0, :1] = True  # 0.5 %
    used = SlotsUsed()
    used.update([masks, masks[:1], masks[:0]], [masks[:0]] * 3)
    assert float(used.compute()) == pytest.approx((2 + 1 + 0) / 3)
