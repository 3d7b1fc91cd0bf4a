"""Records of an evaluation that is continued, conditions of examples as values, ranges of counts, and traversals."""

import json
import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor
from torchmetrics import MeanMetric, MetricCollection

from energycomp.errors import InputError
from energycomp.fields import parse_range
from energycomp.seeds import seeded
from energycomp.testing import Labels, UnitSquare, stripes_model, tinted_model, tiny_model
from energycomp_decomp import DiffusionDecomposer
from energycomp_lab.evaluation import (
    EstimationError,
    Example,
    MaskIoU,
    Report,
    evaluate,
    source_ability,
    strongest_dimensions,
    traverse_dimension,
    true_values,
)
from energycomp_lab.evaluation.records import from_numbers, to_numbers

Run = Callable[..., Report]
IMAGES = torch.rand(4, 3, 16, 16, generator=seeded(0))


def places(**options: Any) -> Report:
    true = [[(0.2, 0.3)], [], [(0.7, 0.8), (0.1, 0.1)], [(0.5, 0.5)]]
    examples = [Example(image, name=str(k), conditions=true[k]) for k, image in enumerate(IMAGES)]
    metrics = MetricCollection({"error": EstimationError()})
    return evaluate(tiny_model(draws=2), examples, metrics, solver="pursuit", count=(0, 2), progress=False, **options)


def attributes(**options: Any) -> Report:
    true = [{"x": 0.2, "y": 0.3, "tint": tint} for tint in ("red", "green", "red", "blue")]
    examples = [Example(image, conditions=[one]) for image, one in zip(IMAGES, true, strict=True)]
    metrics = MetricCollection({"error": EstimationError()})
    return evaluate(tinted_model(draws=2), examples, metrics, solver="pursuit", count=1, progress=False, **options)


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
    kept = json.loads(json.dumps(records[:2], allow_nan=False))  # as they come back from a file
    further: list[Any] = []
    continued = run(known=dict(enumerate(kept)), on_record=further.append)
    assert figures(continued) == figures(whole)
    assert [record["index"] for record in further] == [2, 3]
    assert all(a[name] == b[name] for a, b in zip(further, records[2:], strict=True) for name in a if name != "seconds")


@pytest.mark.parametrize("run", [places, masks])
def test_records_of_other_images_are_refused(run: Run) -> None:
    records: list[Any] = []
    run(on_record=records.append)
    with pytest.raises(InputError, match=r"a record of another image than .*; expected the records of"):
        run(known=dict(enumerate(records[1:])))


def test_numbers_come_back_to_the_bit_without_nan_in_json() -> None:
    values = torch.rand(5, 3) * torch.tensor([1e-30, 1.0, 1e30])
    values[2, 1] = math.nan
    returned = from_numbers(json.loads(json.dumps(to_numbers(values), allow_nan=False)), 3)
    assert torch.equal(returned.nan_to_num(7.0), values.nan_to_num(7.0))


def test_ranges_of_counts() -> None:
    for text, expected in (("3-5", (3, 5)), ("4", (4, 4)), ("0", (0, 0)), ("0-64", (0, 64))):
        assert parse_range(text) == expected
    for text in ("", "-", "-3", "3-", "5-3", "3-5-7", "a", "3.5", " 3", "0-65", "²", "٣"):
        with pytest.raises(InputError, match="expected two counts from 0 to 64"):
            parse_range(text)
    assert parse_range("1-3", least=1, greatest=3) == (1, 3)
    for text in ("0-3", "1-4"):
        with pytest.raises(InputError, match="from 1 to 3"):
            parse_range(text, least=1, greatest=3)


@attrs.frozen
class Attributes(Labels):
    """Two attributes, Hat and glasses, each yes or no."""

    size: int = 4
    paired: bool = True

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.tensor([2 * ("Hat", "glasses").index(kwargs["attribute"]) + (kwargs["value"] == "yes")])

    def describe(self, value: Tensor) -> Any:
        return {"attribute": ("Hat", "glasses")[int(value) // 2], "value": ("no", "yes")[int(value) % 2]}


def has(**values: bool) -> Example:
    stated = [{"attribute": name, "value": "yes" if value else "no"} for name, value in values.items()]
    return Example(None, name="a face", conditions=stated)


def test_conditions_are_values_of_the_conditioner() -> None:
    assert true_values(Example(None, conditions=[(0.1, 0.2), [0.3, 0.4]]), UnitSquare()).tolist() == [
        pytest.approx([0.1, 0.2]),
        pytest.approx([0.3, 0.4]),
    ]
    assert true_values(Example(None, conditions=[2, 0]), Labels(3)).tolist() == [2, 0]
    for conditioner, shape in ((UnitSquare(), (0, 2)), (Labels(3), (0,)), (Attributes(), (0,))):
        assert true_values(Example(None, conditions=[]), conditioner).shape == shape


def test_attributes_that_the_model_does_not_have_are_left_out() -> None:
    assert true_values(has(glasses=True, beard=False, hat=False), Attributes()).tolist() == [0, 3]
    with pytest.raises(InputError, match="got a face with the attributes beard, and a model of Hat, glasses; expected"):
        true_values(has(beard=True), Attributes())


def test_examples_without_conditions_and_with_others() -> None:
    with pytest.raises(InputError, match="got a room without conditions; expected those of its components"):
        true_values(Example(None, name="a room", masks=torch.zeros(0, 1, 1)), UnitSquare())
    with pytest.raises(InputError, match="expected two numbers"):
        true_values(has(hat=True), UnitSquare())

    class Strict(UnitSquare):
        def parse(self, x: float, y: float) -> Tensor:
            return torch.tensor([[x, y]])

    with pytest.raises(InputError, match=r"got a face with the conditions .* which Strict does not take"):
        true_values(has(hat=True), Strict())


def test_optional_abilities_of_a_source() -> None:
    class Source:
        def concepts(self, spec: str) -> tuple[str, ...]:
            return (spec,)

    assert source_ability(Source(), "concepts")("two") == ("two",)
    assert source_ability(Source(), "scene_scores") is None


def stripes() -> DiffusionDecomposer:
    return DiffusionDecomposer(stripes_model(parts=4))


LATENTS = stripes().encode(torch.full((1, 3, 16, 16), 0.3))


def test_a_dimension_changes_its_own_part_alone() -> None:
    found = traverse_dimension(stripes(), LATENTS, 1, 2, [0.0, 0.3, 0.6])
    assert found.dim == 2
    assert found.parts.whole.shape == (3, 3, 16, 16)
    assert found.changed == pytest.approx(0.6 / 3 / 2, abs=1e-5)  # one channel of three, of a range of 2
    assert found.outside == pytest.approx(0, abs=1e-6)


def test_the_strongest_dimensions_are_those_of_colour() -> None:
    dims = strongest_dimensions(stripes(), LATENTS, 3, (0.0, 0.5), count=3)
    assert len(dims) == 3
    changes = [traverse_dimension(stripes(), LATENTS, 3, dim, [0.0, 0.5]).parts.whole for dim in range(4)]
    moved = torch.stack([(whole[1] - whole[0]).abs().mean() for whole in changes])
    assert set(dims) == set(moved.topk(3).indices.tolist())


@pytest.mark.parametrize(
    ("part", "dim", "message"), [(4, 0, "got part 4 of 4"), (-1, 0, "got part -1"), (0, 4, "got dimension 4 of 4")]
)
def test_what_is_not_there(part: int, dim: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        traverse_dimension(stripes(), LATENTS, part, dim, [0.0, 1.0])
