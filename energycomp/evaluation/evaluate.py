"""How well a model reads pictures or takes them apart: metrics over examples, bootstrap intervals over pictures."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import attrs
import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric, MetricCollection
from tqdm import tqdm

from energycomp.decomposition.decomposer import Decomposer, Decomposition, decompose, decomposer_of
from energycomp.errors import InputError
from energycomp.evaluation.data import Example
from energycomp.inference.infer import ForeignPictureWarning, Solution, Solver, infer
from energycomp.models.model import Model
from energycomp.training.order import derived_seed

__all__ = ["Report", "bootstrap", "evaluate", "evaluate_parts"]

RESAMPLES = 1000
LEVEL = 0.95


@attrs.frozen(eq=False)
class Report:
    """What `evaluate` found.

    Args:
        values: metrics over all pictures.
        intervals: their 95 % bootstrap intervals over pictures; none for a metric whose states are not sums.
        rows_per_image: network rows spent.
        seconds_per_image: wall-clock time, decoding of the picture included.
        images: how many.
        model, solver, data, seed: what was evaluated; where parts are, the solver is the encoder, or the decomposer of
            a model without one.
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
        """As JSON holds it: the metrics at the top, numbers that do not exist (a precision of no finds) as None."""
        return {
            **{name: _or_none(value) for name, value in self.values.items()},
            "rows_per_image": self.rows_per_image,
            "seconds_per_image": self.seconds_per_image,
            "images": self.images,
            "intervals": {name: [_or_none(end) for end in ends] for name, ends in self.intervals.items()},
            "model": self.model,
            "solver": self.solver,
            "data": self.data,
            "seed": self.seed,
        }


def evaluate(
    model: Model,
    examples: Sequence[Example],
    metrics: MetricCollection,
    *,
    solver: Solver | None = None,
    count: int | tuple[int, int] | Literal["true"] | None = None,
    seed: int = 0,
    data: str = "",
    progress: bool = True,
    on_result: Callable[[int, Example, Solution], object] | None = None,
) -> Report:
    """Reads every example by `infer` and compares the values found with the true ones.

    Each example has its own generator, from (seed, index): its answer does not depend on the others.

    Args:
        model: what reads.
        examples: pictures with their values.
        metrics: as `DataSource.metrics` makes them; they are copied.
        solver: the model's default one when left out.
        count: of components, as `infer` takes it; "true" tells the solver the true one of each picture.
        seed: of the draws, and of the resamples.
        data: what the report calls the examples.
        progress: whether to show a bar with the time left.
        on_result: called with (index, example, solution) after each.

    Raises:
        InputError: no examples.

    >>> from energycomp.evaluation import CountAccuracy
    >>> from energycomp.testing import tiny_model
    >>> class Middle:
    ...     needs = None
    ...     def solve(self, problem, *, generator=None):
    ...         count = problem.counts[1]
    ...         return Solution(torch.full((count, 2), 0.5), count, error=0.0, stderr=0.0, rows=0)
    >>> examples = [Example(torch.zeros(3, 16, 16), torch.rand(2, 2), "black")]
    >>> accuracy = MetricCollection({"count_accuracy": CountAccuracy()})
    >>> report = evaluate(tiny_model(), examples, accuracy, solver=Middle(), count="true", progress=False)
    >>> report.values["count_accuracy"], report.images
    (1.0, 1)
    """
    if not len(examples):
        raise InputError("got no examples; expected at least one to evaluate on; check the data")
    if solver is None:
        from energycomp.plugins.registry import find

        solver = cast("Solver", find("solvers", model.defaults.solver)())
    scores = _Scores(metrics)
    rows, seconds = 0, 0.0
    for index, example in enumerate(tqdm(examples, disable=not progress, desc="evaluating", unit="image")):
        generator = torch.Generator().manual_seed(derived_seed(seed, "example", index))
        known = len(example.values) if count == "true" else count
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ForeignPictureWarning)  # how wrong the answers are is what is measured
            solution = infer(example.image, model, solver=solver, count=known, generator=generator)
        seconds += time.perf_counter() - started
        rows += solution.rows
        found, true, probability = [solution.conditions.detach().cpu()], [example.values], [solution.probability]
        scores.update(found, true, probability=probability)
        if on_result is not None:
            on_result(index, example, solution)
    return Report(
        values=scores.values(),
        intervals=scores.intervals(seed),
        rows_per_image=rows / len(examples),
        seconds_per_image=seconds / len(examples),
        images=len(examples),
        model=model.name,
        solver=type(solver).__name__,
        data=data,
        seed=seed,
    )


def evaluate_parts(
    model: Model,
    examples: Sequence[Example],
    metrics: MetricCollection,
    *,
    seed: int = 0,
    data: str = "",
    progress: bool = True,
    on_result: Callable[[int, Example, Decomposition], object] | None = None,
    scenes: Callable[[Decomposer], Mapping[str, float]] | None = None,
) -> Report:
    """Takes every example apart, and compares the picture with what its parts make together.

    Masks are compared with those of the objects; where examples have factors, latents are.

    To the metrics come the mean squared errors `mse`, of brightness in [-1, 1], and `mse_baseline`, that of the mean of
    all examples. The chains of each have their own generator, from (seed, index).

    Args:
        model: with an encoder, or a network that has a decomposer.
        examples: pictures with the masks (K, H, W) of their objects as values, or with their factors (1, F).
        metrics: of masks, or of latents (1, K, D) and factors (1, F), as `DataSource.metrics` makes them.
        seed, data, progress, on_result: as of `evaluate`.
        scenes: what is measured of the decomposer's own scenes; its values have no intervals, and count in no time.

    Raises:
        InputError: no examples, values that are neither, or a model that takes nothing apart.

    >>> from energycomp.evaluation import MaskRecall
    >>> from energycomp.testing import stripes_model
    >>> left = torch.arange(16).expand(1, 16, 16) < 4
    >>> examples = [Example(torch.where(left, 0.9, -0.2).expand(3, -1, -1), left, "a stripe")]
    >>> report = evaluate_parts(stripes_model(), examples, MetricCollection({"recall": MaskRecall()}), progress=False)
    >>> report.values["recall"], round(report.values["mse"], 6)
    (1.0, 0.0)
    """
    if not len(examples):
        raise InputError("got no examples; expected at least one to evaluate on; check the data")
    decomposer = decomposer_of(model)
    average = torch.zeros(1, 3, *model.processor.size)
    for example in tqdm(examples, disable=not progress, desc="reading", unit="image", delay=2, leave=False):
        average += model.processor(example.image) / len(examples)
    scores = _Scores(metrics)
    errors = {name: _Scores(MetricCollection({name: MeanMetric()})) for name in ("mse", "mse_baseline")}
    rows, seconds = 0, 0.0
    for index, example in enumerate(tqdm(examples, disable=not progress, desc="evaluating", unit="image")):
        generator = torch.Generator().manual_seed(derived_seed(seed, "example", index))
        factors = example.values.ndim == 2 and len(example.values) == 1
        true = example.values if factors else _masks(model, example)
        started = time.perf_counter()
        picture = model.processor(example.image)
        result = decompose(picture, decomposer, generator=generator)
        seconds += time.perf_counter() - started
        rows += result.spent.rows
        masks = result.parts.masks
        found = result.latents if factors else masks
        scores.update([true[:0] if found is None else found[0].cpu()], [true])
        errors["mse"].update((result.parts.whole.cpu() - picture).square().mean())
        errors["mse_baseline"].update((average - picture).square().mean())
        if on_result is not None:
            on_result(index, example, result)
    parts = [scores, *errors.values()]
    values = {name: value for part in parts for name, value in part.values().items()}
    return Report(
        values=values if scenes is None else {**values, **scenes(decomposer)},
        intervals={name: ends for part in parts for name, ends in part.intervals(seed).items()},
        rows_per_image=rows / len(examples),
        seconds_per_image=seconds / len(examples),
        images=len(examples),
        model=model.name,
        solver=type(decomposer if model.encoder is None else model.encoder).__name__,
        data=data,
        seed=seed,
    )


def _masks(model: Model, example: Example) -> Tensor:
    """The masks (K, H, W) of an example where the model's image processor puts them."""
    if example.values.ndim != 3:
        raise InputError(
            f"got values {tuple(example.values.shape)} of {example.name}; expected the masks (K, H, W) of its objects, "
            "or its factors (1, F); name a dataset that has them: --source decomp"
        )
    if not len(example.values):
        return torch.zeros(0, *model.processor.size, dtype=torch.bool)
    pictures = example.values.float()[:, None].expand(-1, 3, -1, -1) * 2 - 1
    return model.processor(pictures)[:, 0] > 0


class _Scores:
    """Metrics over all pictures, and a copy of them for each, from which intervals are drawn."""

    def __init__(self, metrics: MetricCollection) -> None:
        self.metrics, self.total = metrics, metrics.clone()
        self.total.reset()
        self.parts: dict[str, list[Metric]] = {str(name): [] for name in self.total}

    def update(self, *values: Any, **further: Any) -> None:
        """Adds a picture."""
        self.total.update(*values, **further)
        one = self.metrics.clone()
        one.reset()
        one.update(*values, **further)
        for name, metric in one.items():
            self.parts[str(name)].append(metric)

    def values(self) -> dict[str, float]:
        """Of all pictures."""
        return {name: float(value) for name, value in self.total.compute().items()}

    def intervals(self, seed: int) -> dict[str, tuple[float, float]]:
        """Of those metrics that have one."""
        drawn = derived_seed(seed, "resamples")
        found = {name: bootstrap(self.parts[name], value, seed=drawn) for name, value in self.values().items()}
        return {name: interval for name, interval in found.items() if interval is not None}


def bootstrap(
    parts: Sequence[Metric], value: float, *, seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> tuple[float, float] | None:
    """Percentile bootstrap interval over pictures (Efron, 1979) of a metric that is a function of sums.

    Pictures drawn with replacement are weights on sums: weights (resamples, N) times the states (N,) of one copy of the
    metric for each picture, and one `compute` for all resamples. Where all weights are 1 that must give `value`, else
    the metric is no function of sums, and there is no interval.

    >>> from torchmetrics import MeanMetric
    >>> parts = [MeanMetric() for _ in range(100)]
    >>> for k, metric in enumerate(parts):
    ...     metric.update(float(k % 2))
    >>> low, high = bootstrap(parts, 0.5)
    >>> 0.38 < low < 0.42 and 0.58 < high < 0.62
    True
    """
    states = [metric.metric_state for metric in parts]
    if not all(isinstance(number, Tensor) and number.ndim == 0 for state in states for number in state.values()):
        return None
    drawn = torch.randint(len(parts), (resamples, len(parts)), generator=torch.Generator().manual_seed(seed))
    weights = torch.zeros(resamples, len(parts), dtype=torch.float64)
    weights.scatter_add_(1, drawn, torch.ones_like(weights))
    weights = torch.cat([torch.ones_like(weights[:1]), weights])
    resampled = parts[0].clone()
    for name in states[0]:
        setattr(resampled, name, weights @ torch.stack([cast("Tensor", state[name]).double() for state in states]))
    values: Tensor = resampled.compute()
    unweighted = torch.full_like(values.flatten()[0], value)
    if values.shape != weights.shape[:1] or not torch.allclose(values[0], unweighted, rtol=1e-4, equal_nan=True):
        return None
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=values.dtype)
    low, high = torch.nanquantile(values[1:], tails).tolist()
    return low, high


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
