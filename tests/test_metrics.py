"""Matching against all permutations, and the definitions of thesis section 5.4.1."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from energycomp.errors import InputError
from energycomp.metrics import CountAccuracy, EstimationError, PerceptionRate, Precision, match


@pytest.mark.parametrize(("found", "true"), [(1, 1), (3, 3), (2, 4), (5, 3), (4, 4)])
def test_match_against_all_permutations(found: int, true: int) -> None:
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        a, b = torch.rand(found, 2, generator=generator), torch.rand(true, 2, generator=generator)
        cost = ((a[:, None] - b[None]) ** 2).mean(2).numpy()
        small, large = min(found, true), max(found, true)
        wide = cost if found <= true else cost.T
        best = min(sum(wide[i, p] for i, p in enumerate(order)) for order in permutations(range(large), small))
        assert len(match(a, b)) == small
        assert float(match(a, b).sum()) == pytest.approx(best, rel=1e-5)


def test_match_of_nothing() -> None:
    assert match(torch.zeros(0, 2), torch.zeros(3, 2)).shape == (0,)
    with pytest.raises(InputError, match=r"expected \(K', D\) and \(K, D\)"):
        match(torch.zeros(3), torch.zeros(3))
    with pytest.raises(InputError, match="expected"):
        match(torch.zeros(3, 2), torch.zeros(3, 3))


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
        rate = PerceptionRate(threshold=threshold)
        rate.update(found, true)
        assert rate.compute() == expected


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_is_not_a_number() -> None:
    for kind in (PerceptionRate, Precision, EstimationError):
        assert np.isnan(kind().compute().item())


def test_pictures_must_be_paired() -> None:
    with pytest.raises(ValueError, match="shorter"):
        PerceptionRate().update([torch.zeros(1, 2)], [])
