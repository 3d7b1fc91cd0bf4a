"""The conformance check of data sources."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from energycomp.components import Conditioner
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp_lab.checks.expect import NotCheckedError, expect, expect_refusal
from energycomp_lab.evaluation.data import Example, true_values
from energycomp_lab.evaluation.sources import DataSource


def check_dataset(source: DataSource, conditioner: Conditioner | None = None) -> None:
    """Checks a data source: two images, written twice, are identical, are read again, and fit its metrics.

    Args:
        conditioner: of a model that is evaluated on it. Without one, metrics of conditions are not updated.

    >>> from energycomp_datasets.shapes.source import shapes_source
    >>> check_dataset(shapes_source())  # says nothing where nothing is wrong
    """
    with TemporaryDirectory() as folder:
        first, second = Path(folder) / "first", Path(folder) / "second"
        for target in (first, second):
            done = write_images(source, target, 2)
        expect(_contents(first) == _contents(second), "other files for one seed", "the same", "draw from the seed")
        expect(done == 2, f"{done} images reported to progress", "2, all of them", "call progress(number done)")
        examples = list(source.examples(str(first), count=2, seed=0))
        expect(len(examples) == 2, f"{len(examples)} examples of 2 images", "2", "let examples read what write makes")
        for example in examples:
            _check_example(example)
        from torchmetrics import MetricCollection  # which takes seconds

        metrics = source.metrics()
        expect(isinstance(metrics, MetricCollection), f"metrics {type(metrics).__name__}", "a MetricCollection", "wrap")
        expect(bool(len(metrics)), "no metrics", "at least one", "see energycomp_lab.evaluation")
        known = [_read_known(example, conditioner) for example in examples]
        true = [value for value in known if value is not None]
        if true:
            metrics.update(true, true, probability=[None] * len(true))  # only metrics that name it receive it
            metrics.compute()
        missing = f"{folder}/none"
        expect_refusal("examples of a folder that does not exist", source.examples, missing, count=1, seed=0)


def write_images(source: DataSource, folder: Path, count: int) -> int:
    """Writes images into a new folder, and returns how many were reported; `NotCheckedError` where it needs options."""
    reported = [0]
    folder.mkdir()
    try:
        source.write(folder, count=count, seed=0, options="", progress=reported.append)
    except InputError as error:
        raise NotCheckedError(f"it writes no images without options ({error})") from error
    return max(reported)


def _contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _check_example(example: Example) -> None:
    image = ImageProcessor(size=(32, 32))(example.image)
    expect(tuple(image.shape) == (1, 3, 32, 32), f"{len(image)} images in an example", "one", "split them")
    known: tuple[Any, ...] = (example.conditions, example.masks, example.factors)
    something = any(one is not None for one in known)
    expect(something, "an example without annotations", "conditions, masks or factors", "pass one of them to Example")
    try:
        json.dumps(example.conditions, allow_nan=False)
    except (TypeError, ValueError):
        expect(False, f"conditions {example.conditions!r}", "JSON data", "see `Conditioner.describe`")
    for tensor, ndim in ((example.masks, 3), (example.factors, 1)):
        legal = tensor is None or (tensor.ndim == ndim and bool(torch.isfinite(tensor.double()).all()))
        expect(legal, f"{tensor!r}", "finite masks (K, H, W) and factors (F,)", "stack those of the image")


def _read_known(example: Example, conditioner: Conditioner | None) -> torch.Tensor | None:
    """The values that metrics compare; None for conditions without a conditioner."""
    if example.factors is not None:
        return example.factors[None]
    if example.conditions is None or conditioner is None:
        return example.masks
    return true_values(example, conditioner)
