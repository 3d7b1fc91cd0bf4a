"""Whether the network or the search is at fault where a count is wrong."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks.inference import wrong_counts
from energycomp.evaluation import Example
from energycomp.testing import bumps_model, planted
from energycomp_solvers.pursuit import Pursuit

PLACES = torch.tensor([[0.2, 0.3], [0.5, 0.7], [0.75, 0.25]])


@pytest.mark.parametrize(
    ("shown", "answer", "fault"),
    [
        (PLACES, PLACES[:2], "too few, search"),
        (PLACES, torch.cat([PLACES, torch.tensor([[0.1, 0.9]])]), "too many, search"),
        (PLACES[:2], PLACES[:2], "too few, network"),
        (PLACES, PLACES.flip(0), "right"),
    ],
)
def test_faults(monkeypatch: pytest.MonkeyPatch, shown: torch.Tensor, answer: torch.Tensor, fault: str) -> None:
    model = bumps_model()
    example = Example(planted(model, shown)[0], conditions=[(x, y) for x, y in PLACES.tolist()])
    monkeypatch.setattr(wrong_counts, "infer", lambda *_, **__: SimpleNamespace(conditions=answer, rows=5))
    assert wrong_counts.read(model, Pursuit(), example, 0) == (fault, 5)
