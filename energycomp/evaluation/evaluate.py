"""Evaluation: how well a model infers the conditions of images, or decomposes images."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import attrs
import torch
from torch import Tensor
from tqdm import tqdm

from energycomp.components.conditioning import mixed_of
from energycomp.decomposition.decomposer import Decomposer, Decomposition, decompose, decomposer_of
from energycomp.errors import InputError
from energycomp.evaluation.data import Example, true_values
from energycomp.evaluation.report import Report, Scores
from energycomp.inference.infer import OutOfDistributionWarning, infer
from energycomp.inference.solution import Solution, Solver
from energycomp.models.loading import model_of
from energycomp.models.model import Model
from energycomp.plugins.registry import object_of
from energycomp.seeds import as_seed, derived_seed

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

__all__ = ["evaluate", "evaluate_parts"]

R = TypeVar("R")


def evaluate(
    model: Model | str | Path,
    examples: Sequence[Example],
    metrics: MetricCollection,
    *,
    solver: Solver | type[Solver] | str | None = None,
    count: int | Sequence[int] | Literal["true"] | None = None,
    seed: int = 0,
    data: str = "",
    progress: bool = True,
    on_result: Callable[[int, Example, Solution], object] | None = None,
) -> Report:
    """Infers the conditions of every example and compares them with the true ones.

    For a conditioner with attributes (`MixedConditioner`) the metrics compare its continuous numbers, and the accuracy
    and calibration of its attributes are added, see `attribute_metrics`.

    Each example has its own generator, from (seed, index), so that its result does not depend on the others.

    Args:
        model: infers the conditions.
        examples: images with their conditions.
        metrics: as `DataSource.metrics` returns them; they are copied.
        solver: as `infer` takes it; by default the solver of the model's defaults.
        count: number of components, as `infer` takes it; "true" gives the solver the true number of each image.
        seed: of the draws, and of the resamples.
        data: name of the examples in the report.
        progress: whether to show a progress bar with the remaining time.
        on_result: called with (index, example, solution) after each example.

    Raises:
        InputError: no examples, or examples without conditions that the model takes.

    >>> from torchmetrics import MetricCollection
    >>> from energycomp.evaluation import CountAccuracy
    >>> from energycomp.testing import tiny_model
    >>> class Middle:
    ...     needs = None
    ...     def solve(self, problem, *, generator=None):
    ...         count = problem.counts[1]
    ...         return Solution(torch.full((count, 2), 0.5), count, error=0.0, stderr=0.0, rows=0)
    >>> examples = [Example(torch.zeros(3, 16, 16), conditions=[(0.2, 0.1), (0.8, 0.6)])]
    >>> accuracy = MetricCollection({"count_accuracy": CountAccuracy()})
    >>> report = evaluate(tiny_model(), examples, accuracy, solver=Middle(), count="true", progress=False)
    >>> report.values["count_accuracy"], report.images
    (1.0, 1)
    """
    model, seed = model_of(model), as_seed(seed)
    chosen: Solver = object_of("solvers", model.defaults.solver if solver is None else solver)
    from energycomp.evaluation.attributes import attribute_metrics

    scores, mixed = Scores(metrics), mixed_of(model.conditioner)
    numbers = None if mixed is None else mixed.support.length
    attributes = None if mixed is None else Scores(attribute_metrics(mixed))

    def one(example: Example, generator: torch.Generator) -> _Answer[Solution]:
        true = true_values(example, model.conditioner)
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDistributionWarning)  # the metrics measure how wrong the answers are
            known = len(true) if isinstance(count, str) and count == "true" else count
            solution = infer(example.image, model, solver=chosen, count=known, generator=generator)
        seconds = time.perf_counter() - started
        found = solution.conditions.detach().cpu()
        places = (found, true) if numbers is None else (found[:, :numbers], true[:, :numbers])
        scores.update([places[0]], [places[1]], probability=[solution.probability])
        if attributes is not None:
            attributes.update([found], [true], certainty=[solution.certainty])
        return _Answer(solution, solution.rows, seconds)

    totals = _over(examples, one, seed=seed, progress=progress, on_result=on_result)
    return Report(
        values={**scores.values(), **(attributes.values() if attributes else {})},
        intervals={**scores.intervals(seed), **(attributes.intervals(seed) if attributes else {})},
        model=model.name,
        solver=type(chosen).__name__,
        data=data,
        seed=seed,
        **totals,
    )


def evaluate_parts(
    model: Model | str | Path,
    examples: Sequence[Example],
    metrics: MetricCollection,
    *,
    seed: int = 0,
    data: str = "",
    progress: bool = True,
    on_result: Callable[[int, Example, Decomposition], object] | None = None,
    scenes: Callable[[Decomposer], Mapping[str, float]] | None = None,
) -> Report:
    """Decomposes every example, and compares the image with the composition of its parts.

    Masks of parts are compared with the masks of the objects; for examples with factors, latents are compared.

    Two metrics are added, both mean squared errors of pixels in [-1, 1]: `mse` of the composition, and `mse_baseline`
    of the mean of all examples. The chains of each example have their own generator, from (seed, index).

    Args:
        model: with an encoder, or with a network that has a decomposer.
        examples: images with the masks of their objects, or with their factors.
        metrics: of masks, or of latents (K, D) and factors (1, F), as `DataSource.metrics` returns them.
        seed, data, progress, on_result: as for `evaluate`.
        scenes: scores scenes that the decomposer samples; these have no intervals and are not part of the time.

    Raises:
        InputError: no examples, examples with neither masks nor factors, or a model that decomposes no images.

    >>> from torchmetrics import MetricCollection
    >>> from energycomp.evaluation import MaskRecall
    >>> from energycomp.testing import stripes_model
    >>> left = torch.arange(16).expand(1, 16, 16) < 4
    >>> examples = [Example(torch.where(left, 0.9, -0.2).expand(3, -1, -1), masks=left)]
    >>> report = evaluate_parts(stripes_model(), examples, MetricCollection({"recall": MaskRecall()}), progress=False)
    >>> report.values["recall"], round(report.values["mse"], 6)
    (1.0, 0.0)
    """
    from torchmetrics import MeanMetric, MetricCollection

    model, seed = model_of(model), as_seed(seed)
    decomposer = decomposer_of(model)
    scores = Scores(metrics)
    errors = {name: Scores(MetricCollection({name: MeanMetric()})) for name in ("mse", "mse_baseline")}
    average = torch.zeros(1, 3, *model.processor.size)
    for example in tqdm(_checked(examples), disable=not progress, desc="reading", unit="image", delay=2, leave=False):
        average += model.processor(example.image) / len(examples)

    def one(example: Example, generator: torch.Generator) -> _Answer[Decomposition]:
        true = _masks(model, example) if example.factors is None else example.factors[None]
        started = time.perf_counter()
        image = model.processor(example.image)
        result = decompose(image, decomposer, generator=generator)
        seconds = time.perf_counter() - started
        found = result.parts.masks if example.factors is None else result.latents
        scores.update([true[:0] if found is None else found[0].cpu()], [true])
        errors["mse"].update((result.parts.whole.cpu() - image).square().mean())
        errors["mse_baseline"].update((average - image).square().mean())
        return _Answer(result, result.spent.rows, seconds)

    totals = _over(examples, one, seed=seed, progress=progress, on_result=on_result)
    parts = [scores, *errors.values()]
    values = {name: value for part in parts for name, value in part.values().items()}
    return Report(
        values=values if scenes is None else {**values, **scenes(decomposer)},
        intervals={name: ends for part in parts for name, ends in part.intervals(seed).items()},
        model=model.name,
        solver=type(decomposer if model.encoder is None else model.encoder).__name__,
        data=data,
        seed=seed,
        **totals,
    )


@attrs.frozen(eq=False)
class _Answer(Generic[R]):
    """The result for one example, and what it cost."""

    result: R
    rows: int
    seconds: float


def _over(
    examples: Sequence[Example],
    one: Callable[[Example, torch.Generator], _Answer[R]],
    *,
    seed: int,
    progress: bool,
    on_result: Callable[[int, Example, R], object] | None,
) -> dict[str, Any]:
    """Calls `one` with every example and its generator; returns the fields of a `Report` about cost."""
    rows, seconds = 0, 0.0
    for index, example in enumerate(tqdm(_checked(examples), disable=not progress, desc="evaluating", unit="image")):
        answer = one(example, torch.Generator().manual_seed(derived_seed(seed, "example", index)))
        rows += answer.rows
        seconds += answer.seconds
        if on_result is not None:
            on_result(index, example, answer.result)
    number = len(examples)
    return {"rows_per_image": rows / number, "seconds_per_image": seconds / number, "images": number}


def _checked(examples: Any) -> Sequence[Example]:
    if not isinstance(examples, Sequence) or not all(isinstance(one, Example) for one in examples[:1]):
        raise InputError(
            f"got examples in {type(examples).__name__}; expected a sequence of Example; make one: "
            "energycomp.plugins.find('datasets', 'clevr')().examples('synthetic:3-5', count=100, seed=0)"
        )
    if not len(examples):
        raise InputError("got no examples; expected at least one to evaluate on; check the data")
    return examples


def _masks(model: Model, example: Example) -> Tensor:
    """The masks (K, H, W) of an example, resized as the model's image processor resizes the image."""
    if example.masks is None:
        raise InputError(
            f"got {example.name or 'an example'} without masks and without factors; expected the masks of its objects "
            "(K, H, W), or its factors (F,); use a dataset that has them"
        )
    if example.masks.ndim != 3:
        raise InputError(f"got masks {tuple(example.masks.shape)} of {example.name}; expected (K, H, W)")
    if not len(example.masks):
        return torch.zeros(0, *model.processor.size, dtype=torch.bool)
    images = example.masks.float()[:, None].expand(-1, 3, -1, -1) * 2 - 1
    return model.processor(images)[:, 0] > 0
