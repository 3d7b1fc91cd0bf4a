"""Sets that are read, against counting by hand."""

import pytest
import torch
from torch import Tensor

from energycomp_datasets.solids.metrics import ConceptRecall
from energycomp_lab.evaluation import ExactSet, bootstrap

GENERATOR = torch.Generator().manual_seed(0)


def sets(count: int) -> list[Tensor]:
    """Sets of one to three of five prompts, in any order."""
    prompts = torch.tensor([[k, 2 * k, 0] for k in range(5)])
    sizes = torch.randint(1, 4, (count,), generator=GENERATOR).tolist()
    return [prompts[torch.randperm(5, generator=GENERATOR)[:size]] for size in sizes]


def test_against_sets_of_python() -> None:
    found, true = sets(200), sets(200)
    true[:50] = [value.flip(0) for value in found[:50]]  # the same in another order
    f, t = ([{tuple(row) for row in value.tolist()} for value in values] for values in (found, true))
    exact, recall = ExactSet(), ConceptRecall()
    for start in range(0, 200, 30):
        exact.update(found[start : start + 30], true[start : start + 30])
        recall.update(found[start : start + 30], true[start : start + 30])
    right = sum(a == b for a, b in zip(f, t, strict=True))
    assert 50 <= right < 200
    assert float(exact.compute()) == pytest.approx(right / 200)
    assert float(recall.compute()) == pytest.approx(
        sum(len(a & b) for a, b in zip(f, t, strict=True)) / sum(map(len, t))
    )


def test_a_subset_and_a_superset_are_not_the_set() -> None:
    cat, dog = torch.tensor([[1, 2], [1, 3]])
    both, one, none = torch.stack([cat, dog]), cat[None], cat[None][:0]
    for found, true, right, share in ((one, both, 0, 0.5), (both, one, 0, 1), (none, one, 0, 0), (none, none, 1, None)):
        exact, recall = ExactSet(), ConceptRecall()
        exact.update([found], [true])
        recall.update([found], [true])
        assert float(exact.compute()) == right
        assert torch.isnan(recall.compute()) if share is None else float(recall.compute()) == share


def test_they_are_functions_of_sums() -> None:
    """So that they have bootstrap intervals."""
    for metric in (ExactSet(), ConceptRecall()):
        parts = [metric.clone() for _ in range(40)]
        for part, found, true in zip(parts, sets(40), sets(40), strict=True):
            part.update([found], [true])
            metric.update([found], [true])
        ends = bootstrap(parts, float(metric.compute()))
        assert ends is not None
        assert ends[0] <= float(metric.compute()) <= ends[1]


def test_lists_of_two_lengths() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ExactSet().update(sets(2), sets(1))
