"""An interrupted evaluation that continues from its records gives the report of an uninterrupted one, to the bit."""

import json
import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torchmetrics import MeanMetric, MetricCollection

from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp.testing import stripes_model, tinted_model, tiny_model
from energycomp_lab.evaluation import EstimationError, Example, MaskIoU, Report, evaluate
from energycomp_lab.evaluation.records import from_numbers, to_numbers

Run = Callable[..., Report]
IMAGES = torch.rand(4, 3, 16, 16, generator=seeded(0))


def places(**options: Any) -> Report:
    true = [[(0.2, 0.3)], [], [(0.7, 0.8), (0.1, 0.1)], [(0.5, 0.5)]]
    examples = [Example(image, name=str(k), conditions=true[k]) for k, image in enumerate(IMAGES)]
    metrics = MetricCollection({"error": EstimationError()})
    return evaluate(tiny_model(draws=8), examples, metrics, solver="pursuit", count=(0, 2), progress=False, **options)


def attributes(**options: Any) -> Report:
    true = [{"x": 0.2, "y": 0.3, "tint": tint} for tint in ("red", "green", "red", "blue")]
    examples = [Example(image, conditions=[one]) for image, one in zip(IMAGES, true, strict=True)]
    metrics = MetricCollection({"error": EstimationError()})
    return evaluate(tinted_model(draws=8), examples, metrics, solver="pursuit", count=1, progress=False, **options)


def masks(**options: Any) -> Report:
    stripe = torch.arange(16).expand(1, 16, 16) < 4
    examples = [Example(image, masks=stripe) for image in IMAGES]
    return evaluate(stripes_model(), examples, MetricCollection([MaskIoU()]), progress=False, **options)


def factors(**options: Any) -> Report:
    model = stripes_model()
    examples = [Example(image, factors=torch.zeros(12)) for image in IMAGES]

    class LatentMean(MeanMetric):
        def update(self, found: list[torch.Tensor], true: list[torch.Tensor]) -> None:
            super().update(found[0].mean() - true[0].mean())

    return evaluate(model, examples, MetricCollection({"latents": LatentMean()}), progress=False, **options)


def figures(report: Report) -> str:
    return repr(attrs.evolve(report, seconds_per_image=0.0))  # a text, in which NaN equals NaN


@pytest.mark.parametrize("run", [places, attributes, masks, factors])
def test_an_interrupted_run_continues_to_the_same_report(run: Run) -> None:
    records: list[Any] = []
    whole = run(on_record=records.append)
    assert [record["index"] for record in records] == [0, 1, 2, 3]
    assert figures(run()) == figures(whole)
    kept = json.loads(json.dumps(records[:2], allow_nan=False))  # as they come back from a file
    further: list[Any] = []
    continued = run(known=kept, on_record=further.append)
    assert figures(continued) == figures(whole)
    assert [record["index"] for record in further] == [2, 3]
    assert all(a[name] == b[name] for a, b in zip(further, records[2:], strict=True) for name in a if name != "seconds")


@pytest.mark.parametrize("run", [places, masks])
def test_records_of_other_images_are_refused(run: Run) -> None:
    records: list[Any] = []
    run(on_record=records.append)
    with pytest.raises(InputError, match=r"a record of another image than .*; expected the records of"):
        run(known=records[1:])
    with pytest.raises(InputError, match="got 5 records for 4 examples"):
        run(known=[*records, records[0]])


def test_numbers_come_back_to_the_bit_without_nan_in_json() -> None:
    values = torch.rand(5, 3) * torch.tensor([1e-30, 1.0, 1e30])
    values[2, 1] = math.nan
    returned = from_numbers(json.loads(json.dumps(to_numbers(values), allow_nan=False)), 3)
    assert torch.equal(returned.nan_to_num(7.0), values.nan_to_num(7.0))
