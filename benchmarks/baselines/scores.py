"""Two methods on the same pictures: the difference of a metric, with a paired bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import attrs
import torch
from torch import Tensor
from torchmetrics import Metric

from energycomp.errors import InputError

__all__ = ["Answer", "paired_difference", "score"]

RESAMPLES = 2000


@attrs.frozen(eq=False)
class Answer:
    """Places found in one picture, (K', 2) for each training seed of a method, and the true ones (K, 2)."""

    found: tuple[Tensor, ...]
    true: Tensor


def score(metric: Metric, answers: Sequence[Answer]) -> float:
    """The metric over all pictures and training seeds."""
    return float(_resampled(metric, answers, torch.ones(1, len(answers), dtype=torch.float64)))


def paired_difference(
    metric: Metric, answers: Sequence[Answer], others: Sequence[Answer], *, seed: int = 0, level: float = 0.95
) -> tuple[float, float, float]:
    """metric(answers) - metric(others), and the ends of its percentile bootstrap interval (Efron, 1979).

    Both are resampled by the same pictures, so that what makes a picture hard cancels.

    Args:
        metric: a function of sums over pictures, as those of `energycomp_lab.evaluation.scene_metrics`.
        answers, others: of the same pictures in the same order.
    """
    if len(answers) != len(others) or any(
        not torch.equal(a.true, b.true) for a, b in zip(answers, others, strict=True)
    ):
        raise InputError(f"got answers for {len(answers)} and {len(others)} pictures; expected the same pictures")
    size = len(answers)
    drawn = torch.randint(size, (RESAMPLES, size), generator=torch.Generator().manual_seed(seed))
    weights = torch.zeros(RESAMPLES, size, dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones_like(weights))
    gaps = _resampled(metric, answers, weights) - _resampled(metric, others, weights)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=gaps.dtype)
    low, high = torch.nanquantile(gaps, tails).tolist()
    return score(metric, answers) - score(metric, others), low, high


def _resampled(metric: Metric, answers: Sequence[Answer], weights: Tensor) -> Tensor:
    """The metric (W,) under weightings of the pictures (W, N)."""
    parts = []
    for answer in answers:
        one = metric.clone()
        one.reset()
        one.update(list(answer.found), [answer.true] * len(answer.found))
        parts.append(one)
    states, total = [one.metric_state for one in parts], parts[0].clone()
    for name in states[0]:
        setattr(total, name, weights @ torch.stack([cast("Tensor", state[name]).double() for state in states]))
    value: Tensor = total.compute()
    return value
