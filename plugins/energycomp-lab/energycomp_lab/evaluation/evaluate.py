"""Evaluation: how well a model infers the conditions of images, or decomposes images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch

from energycomp.decomposition import Decomposer, takes_apart
from energycomp.errors import InputError
from energycomp.files import fingerprint
from energycomp.inference import Solver
from energycomp.models import Model, model_of
from energycomp.progress import progress as shown
from energycomp.seeds import as_seed, derived_seed
from energycomp_lab.evaluation.data import Example
from energycomp_lab.evaluation.records import check_record
from energycomp_lab.evaluation.report import Report
from energycomp_lab.evaluation.sources import Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


def evaluate(
    model: Model | str | Path,
    examples: Sequence[Example],
    metrics: MetricCollection | Task,
    *,
    solver: Solver | type[Solver] | str | None = None,
    count: int | Sequence[int] | Literal["true"] | None = None,
    seed: int = 0,
    data: str = "",
    progress: bool = True,
    on_result: Callable[[int, Example, Any], object] | None = None,
    known: Mapping[int, Mapping[str, Any]] = MappingProxyType({}),
    on_record: Callable[[dict[str, Any]], object] | None = None,
    part: Sequence[int] | None = None,
    scenes: Callable[[Decomposer], Mapping[str, float]] | None = None,
) -> Report:
    """Reads every example, and compares what is found with what is known of it.

    A model that decomposes images is compared by masks, or by latents for examples with factors. Two mean squared
    errors of pixels in [-1, 1] are added: `mse` of the composition, and `mse_baseline` of the mean of all examples.
    Any other model infers conditions. Where it has attributes (`MixedConditioner`), the metrics compare its numbers,
    and the accuracy and calibration of its attributes are added, see `attribute_metrics`.

    Each example has its own generator, from (seed, index), so that its result does not depend on the others.

    Args:
        metrics: as `DataSource.metrics` returns them; they are copied. Or what is asked in place of reading, a `Task`.
        solver: as `infer` takes it; by default that of the model's defaults.
        count: number of components, as `infer` takes it; "true" gives the solver the true number of each image.
        seed: of the draws, and of the resamples.
        data: name of the examples in the report.
        on_result: called with (index, example, solution or decomposition) after each example.
        known: records by index, from an interrupted run of the same evaluation or from other processes. These examples
            are not evaluated again, and the report is the same to the bit.
        on_record: called with the record of each further example, JSON data.
        part: indices of the examples that are evaluated, and reported; all when left out.
        scenes: scores scenes, where the decomposer samples them; these have no intervals and are not part of the time.

    Raises:
        InputError: no examples, examples without what is compared, records of other examples, or a solver or a count
            for a model that decomposes.

    >>> from torchmetrics import MetricCollection
    >>> from energycomp.testing import stripes_model
    >>> from energycomp_lab.evaluation import MaskRecall
    >>> left = torch.arange(16).expand(1, 16, 16) < 4
    >>> examples = [Example(torch.where(left, 0.9, -0.2).expand(3, -1, -1), masks=left)]
    >>> report = evaluate(stripes_model(), examples, MetricCollection({"recall": MaskRecall()}), progress=False)
    >>> report.values["recall"], round(report.values["mse"], 6)
    (1.0, 0.0)
    """
    from energycomp_lab.evaluation.tasks import Conditions, PartsTask  # torchmetrics takes seconds

    model = model_of(model)
    seed = as_seed(seed)
    own = isinstance(metrics, Task)
    decomposes = takes_apart(model)
    if (own or decomposes) and not (solver is None and count is None):
        what = "is asked something else" if own else "decomposes images"
        raise InputError(f"got a solver or a count with {model.name}, which {what}; leave them out")
    _check_examples(examples)
    indices = range(len(examples)) if part is None else part
    if not len(indices) or not all(0 <= index < len(examples) for index in indices):
        raise InputError(f"got part {indices!r:.60} of {len(examples)} examples; expected indices below that number")
    task: Task
    if isinstance(metrics, Task):
        task = metrics
    elif decomposes:
        task = PartsTask(model, metrics, examples, progress=progress)
    else:
        task = Conditions(model, metrics, solver, count)
    rows, seconds = 0, 0.0
    for index in shown(indices, "evaluating", unit="image", show=progress, leave=True):
        example = examples[index]
        true = task.true(example)
        image = model.processor(example.image)
        identity = fingerprint({"image": image, "true": true})
        if index in known:
            record = known[index]
            check_record(record, index, example, identity)
        else:
            generator = torch.Generator().manual_seed(derived_seed(seed, "example", index))
            started = time.perf_counter()
            result, found = task.answer(example, true, generator)
            found["seconds"] = time.perf_counter() - started
            record = {"index": index, "image": example.name, "fingerprint": identity, **found}
            if on_result is not None:
                on_result(index, example, result)
            if on_record is not None:
                on_record(dict(record))
        task.score(true, image, record)  # of the record alone: an interrupted run gives the same report
        rows += record["rows"]
        seconds += record["seconds"]
    values = {name: value for scores in task.scores for name, value in scores.values().items()}
    if scenes is not None and isinstance(task, PartsTask) and hasattr(task.decomposer, "sample"):
        values.update(scenes(task.decomposer))
    return Report(
        values=values,
        intervals={name: ends for scores in task.scores for name, ends in scores.intervals(seed).items()},
        rows_per_image=rows / len(indices),
        seconds_per_image=seconds / len(indices),
        images=len(indices),
        model=model.name,
        solver=task.solver,
        data=data,
        seed=seed,
    )


def _check_examples(examples: Any) -> None:
    if not isinstance(examples, Sequence) or not all(isinstance(one, Example) for one in examples[:1]):
        raise InputError(
            f"got examples in {type(examples).__name__}; expected a sequence of Example; make one: "
            "energycomp.plugins.find('datasets', 'clevr')().examples('synthetic:3-5', count=100, seed=0)"
        )
    if not len(examples):
        raise InputError("got no examples; expected at least one to evaluate on; check the data")
