"""The result of an evaluation: metrics over all images, with bootstrap intervals over images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.seeds import derived_seed

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

RESAMPLES = 1000
LEVEL = 0.95


@attrs.frozen(eq=False)
class Report:
    """What `evaluate` returns.

    Args:
        intervals: 95 % bootstrap intervals over images; none of a metric whose states are not sums, and of a single
            image.
        rows_per_image: network evaluations per image.
        seconds_per_image: wall-clock time, decoding of the image included.
        solver: for a decomposition, the encoder with the number of views that are searched, or the decomposer of a
            model without an encoder.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    rows_per_image: float
    seconds_per_image: float
    images: int
    model: str
    solver: str
    data: str
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the metrics at the top level; values that are not finite (a precision without finds) are None."""
        own = attrs.asdict(self)
        values = {name: _or_none(value) for name, value in own.pop("values").items()}
        intervals = {name: [_or_none(end) for end in ends] for name, ends in self.intervals.items()}
        return {**values, **own, "intervals": intervals}


class Scores:
    """Metrics over all images, and a copy of them for each image, from which intervals are computed."""

    def __init__(self, metrics: MetricCollection) -> None:
        from torchmetrics import MetricCollection

        if not isinstance(metrics, MetricCollection):
            raise InputError(
                f"got metrics of {type(metrics).__name__}; expected a MetricCollection; put them into one: "
                "MetricCollection({'count': CountAccuracy()})"
            )
        self.metrics = metrics
        self.total = metrics.clone()
        self.total.reset()
        self.parts: dict[str, list[Metric]] = {str(name): [] for name in self.total}

    def update(self, *values: Any, **further: Any) -> None:
        self.total.update(*values, **further)
        one = self.metrics.clone()
        one.reset()
        one.update(*values, **further)
        for name, metric in one.items():
            self.parts[str(name)].append(metric)

    def values(self) -> dict[str, float]:
        """The metrics over all images; NaN of none."""
        if not any(self.parts.values()):
            return dict.fromkeys(self.parts, math.nan)
        return {name: float(value) for name, value in self.total.compute().items()}

    def intervals(self, seed: int) -> dict[str, tuple[float, float]]:
        """The intervals of the metrics that have one."""
        drawn = derived_seed(seed, "resamples")
        found = {name: bootstrap(self.parts[name], value, seed=drawn) for name, value in self.values().items()}
        return {name: interval for name, interval in found.items() if interval is not None}


def bootstrap(
    parts: Sequence[Metric], value: float, *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """Percentile bootstrap interval over images (Efron, 1979) of a metric that is a function of sums.

    A resample is a vector of weights on the images: weights (resamples, N) times the states (N,) of the metric's copies
    gives the states of all resamples, and one `compute` their values. With all weights equal to 1 the result must be
    `value`; otherwise the metric is not a function of sums, and None is returned, as for a single image.
    """
    states = [metric.metric_state for metric in parts]
    if not all(isinstance(number, Tensor) and number.ndim == 0 for state in states for number in state.values()):
        return None
    if len(parts) < 2:  # whose spread says nothing
        return None
    drawn = torch.randint(len(parts), (resamples, len(parts)), generator=torch.Generator().manual_seed(seed))
    weights = torch.zeros(resamples, len(parts), dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones_like(weights))
    weights = torch.cat([torch.ones_like(weights[:1]), weights])
    resampled = parts[0].clone()
    resampled._computed = None  # of the image, where somebody has asked for it
    for name in states[0]:
        setattr(resampled, name, weights @ torch.stack([cast("Tensor", state[name]).double() for state in states]))
    values: Tensor = resampled.compute()
    unweighted = torch.full_like(values.flatten()[0], value)
    if values.shape != weights.shape[:1] or not torch.allclose(values[0], unweighted, rtol=1e-4, equal_nan=True):
        return None
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=values.dtype)
    low, high = torch.nanquantile(values[1:], tails).tolist()
    return low, high


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
