"""Evaluation: how well a model infers the conditions of images, or decomposes images."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from torch import Tensor

from energycomp.components import mixed_of
from energycomp.decomposition import Decomposer, Decomposition, DiffusionDecomposer, decompose_samples, decomposer_of
from energycomp.errors import InputError
from energycomp.inference import OutOfDistributionWarning, Solution, Solver, infer_sample
from energycomp.models import Model, model_of
from energycomp.plugins import object_of
from energycomp.progress import progress as shown
from energycomp.seeds import as_seed, derived_seed
from energycomp_lab.evaluation.data import Example, true_values
from energycomp_lab.evaluation.records import (
    check_record,
    example_fingerprint,
    from_bits,
    from_numbers,
    records_by_index,
    to_bits,
    to_numbers,
)
from energycomp_lab.evaluation.report import Report, Scores

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

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
    known: Sequence[Mapping[str, Any]] | Mapping[int, Mapping[str, Any]] = (),
    on_record: Callable[[dict[str, Any]], object] | None = None,
    part: Sequence[int] | None = None,
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
        known: records of the first examples, or records by index, from an interrupted run of the same evaluation or
            from other processes. These examples are not evaluated again, and the report is the same to the bit.
        on_record: called with the record of each further example, JSON data.
        part: indices of the examples that are evaluated, such as those of one of several processes; the report is of
            them alone. All examples when left out.

    Raises:
        InputError: no examples, examples without conditions that the model takes, or records of other examples.

    >>> from torchmetrics import MetricCollection
    >>> from energycomp_lab.evaluation import CountAccuracy
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
    from energycomp_lab.evaluation.attributes import attribute_metrics

    scores, mixed = Scores(metrics), mixed_of(model.conditioner)
    numbers = None if mixed is None else mixed.support.length
    attributes = None if mixed is None else Scores(attribute_metrics(mixed))

    def one(example: Example, generator: torch.Generator) -> tuple[Solution, dict[str, Any]]:
        true = true_values(example, model.conditioner)
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDistributionWarning)  # the metrics measure how wrong the answers are
            counts = len(true) if isinstance(count, str) and count == "true" else count
            solution = infer_sample(example.image, model, solver=chosen, count=counts, generator=generator)
        return solution, {
            "true": to_numbers(true),
            "conditions": to_numbers(solution.conditions),
            "probability": to_numbers(solution.probability),
            "certainty": to_numbers(solution.certainty),
            "rows": solution.rows,
            "seconds": time.perf_counter() - started,
        }

    def score(example: Example, record: Mapping[str, Any]) -> None:
        true = true_values(example, model.conditioner)
        found = cast("Tensor", from_numbers(record["conditions"], *true.shape[1:], dtype=true.dtype))
        places = (found, true) if numbers is None else (found[:, :numbers], true[:, :numbers])
        scores.update([places[0]], [places[1]], probability=[from_numbers(record["probability"])])
        if attributes is not None:
            certainty = from_numbers(record["certainty"], len(mixed.attributes) if mixed else 0)
            attributes.update([found], [true], certainty=[certainty])

    totals = _over(
        examples,
        one,
        score,
        identify=lambda example: example_fingerprint(
            model.processor(example.image), true_values(example, model.conditioner)
        ),
        seed=seed,
        progress=progress,
        on_result=on_result,
        known=known,
        on_record=on_record,
        part=part,
    )
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
    known: Sequence[Mapping[str, Any]] | Mapping[int, Mapping[str, Any]] = (),
    on_record: Callable[[dict[str, Any]], object] | None = None,
    part: Sequence[int] | None = None,
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
        seed, data, progress, on_result, known, on_record, part: as for `evaluate`.
        scenes: scores scenes that the decomposer samples; these have no intervals and are not part of the time.

    Raises:
        InputError: no examples, examples with neither masks nor factors, or a model that decomposes no images.

    >>> from torchmetrics import MetricCollection
    >>> from energycomp_lab.evaluation import MaskRecall
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
    for example in shown(_checked(examples), "reading", unit="image", show=progress):
        average += model.processor(example.image) / len(examples)

    def true_of(example: Example) -> Tensor:
        return _masks(model, example) if example.factors is None else example.factors[None]

    def one(example: Example, generator: torch.Generator) -> tuple[Decomposition, dict[str, Any]]:
        true_of(example)  # raises before any work
        started = time.perf_counter()
        image = model.processor(example.image)
        result = decompose_samples(image, decomposer, generator=generator)
        seconds = time.perf_counter() - started
        masks = None if result.parts.masks is None else result.parts.masks[0]
        return result, {
            "masks": to_bits(masks) if example.factors is None else None,
            "latents": None if example.factors is None else to_numbers(result.latents[0]),
            "mse": float((result.parts.whole.cpu() - image).square().mean()),
            "rows": result.spent.rows,
            "seconds": seconds,
        }

    def score(example: Example, record: Mapping[str, Any]) -> None:
        true, image = true_of(example), model.processor(example.image)
        found = from_bits(record["masks"]) if example.factors is None else from_numbers(record["latents"], -1)
        scores.update([true[:0] if found is None else found], [true])
        errors["mse"].update(record["mse"])
        errors["mse_baseline"].update((average - image).square().mean())

    totals = _over(
        examples,
        one,
        score,
        identify=lambda example: example_fingerprint(model.processor(example.image), true_of(example)),
        seed=seed,
        progress=progress,
        on_result=on_result,
        known=known,
        on_record=on_record,
        part=part,
    )
    parts = [scores, *errors.values()]
    values = {name: value for part in parts for name, value in part.values().items()}
    return Report(
        values=values if scenes is None else {**values, **scenes(decomposer)},
        intervals={name: ends for part in parts for name, ends in part.intervals(seed).items()},
        model=model.name,
        solver=type(decomposer if model.encoder is None else model.encoder).__name__ + _searched(decomposer),
        data=data,
        seed=seed,
        **totals,
    )


def _searched(decomposer: Decomposer) -> str:
    """The number of views that a decomposer searches, as the name of its solver ends."""
    views = decomposer.views if isinstance(decomposer, DiffusionDecomposer) else 1
    return "" if views == 1 else f", {views} views"


def _over(
    examples: Sequence[Example],
    one: Callable[[Example, torch.Generator], tuple[R, dict[str, Any]]],
    score: Callable[[Example, Mapping[str, Any]], None],
    *,
    identify: Callable[[Example], str],
    seed: int,
    progress: bool,
    on_result: Callable[[int, Example, R], object] | None,
    known: Sequence[Mapping[str, Any]] | Mapping[int, Mapping[str, Any]],
    on_record: Callable[[dict[str, Any]], object] | None,
    part: Sequence[int] | None,
) -> dict[str, Any]:
    """Calls `one` with every example that has no record, and its generator; returns a `Report`'s fields about cost.

    Examples are scored from their records alone, so that an interrupted run gives the same report.
    """
    rows, seconds = 0, 0.0
    records = records_by_index(known, _checked(examples))
    indices = range(len(examples)) if part is None else part
    if not len(indices) or not all(0 <= index < len(examples) for index in indices):
        raise InputError(f"got part {indices!r:.60} of {len(examples)} examples; expected indices below that number")
    for index in shown(indices, "evaluating", unit="image", show=progress, leave=True):
        example = examples[index]
        if index in records:
            record = records[index]
            check_record(record, index, example, identify(example))
        else:
            generator = torch.Generator().manual_seed(derived_seed(seed, "example", index))
            result, found = one(example, generator)
            record = {"index": index, "image": example.name, "fingerprint": identify(example), **found}
            if on_result is not None:
                on_result(index, example, result)
            if on_record is not None:
                on_record(dict(record))
        score(example, record)
        rows += record["rows"]
        seconds += record["seconds"]
    number = len(indices)
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
