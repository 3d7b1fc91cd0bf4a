import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torchmetrics import CatMetric, MaxMetric, MeanMetric, Metric, MetricCollection

from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.inference import Problem, Solution
from energycomp.seeds import seeded
from energycomp.testing import stripes_model, tiny_model
from energycomp_lab.evaluation import (
    CountAccuracy,
    EstimationError,
    Example,
    ForegroundARI,
    MaskRecall,
    PerceptionRate,
    Precision,
    Report,
    bootstrap,
    evaluate,
)

TRUE = [torch.tensor([[0.1, 0.1], [0.5, 0.5], [0.9, 0.9]]), torch.tensor([[0.3, 0.3]]), torch.tensor([[0.2, 0.8]] * 2)]


class Guess:
    """Guesses at random from its generator; spends ten rows a component."""

    needs: ClassVar[None] = None

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        count = problem.counts[1]
        with count_rows(problem._predicted.spent):
            problem.errors(torch.rand(1, count, 2), problem.draw(10, generator))
        values = torch.rand(count, 2, generator=generator)
        return Solution(values, count, error=0.0, stderr=0.0, rows=problem.rows)


class Oracle:
    """Knows the answers, of which it leaves one out."""

    needs: ClassVar[None] = None

    def __init__(self) -> None:
        self.left = [TRUE[0], TRUE[1][:0], TRUE[2]]

    def solve(self, problem: Problem, *, generator: torch.Generator | None = None) -> Solution:
        values = self.left.pop(0)
        return Solution(values, len(values), error=0.0, stderr=0.0, rows=problem.rows)


METRICS = {
    "perception_rate": PerceptionRate, "precision": Precision, "estimation_error": EstimationError,
    "count_accuracy": CountAccuracy,
}  # fmt: skip


def collection() -> MetricCollection:
    return MetricCollection({name: kind() for name, kind in METRICS.items()}, compute_groups=False)


def evaluated(true: list[Tensor] = TRUE, **options: Any) -> tuple[Report, list[Solution]]:
    """The report, and all answers."""
    found: list[Solution] = []
    images = [
        Example(torch.zeros(3, 16, 16), name=f"image {k}", conditions=values.tolist()) for k, values in enumerate(true)
    ]
    given = {"solver": Guess(), "progress": False, "metrics": collection(), **options}
    return evaluate(tiny_model(), images, on_result=lambda _, __, solution: found.append(solution), **given), found


def test_values_are_those_of_the_metrics_over_all_pictures() -> None:
    metrics, expected = collection(), collection()
    report, found = evaluated(metrics=metrics, data="three")
    expected.update([solution.conditions for solution in found], TRUE)
    assert report.values == pytest.approx({name: value.item() for name, value in expected.compute().items()})
    assert (report.images, report.model, report.solver, report.data, report.seed) == (3, "tiny", "Guess", "three", 0)
    assert report.rows_per_image > 0
    assert report.seconds_per_image > 0
    assert all(metric.update_count == 0 for metric in metrics.values())


def test_an_answer_follows_from_seed_and_index_alone() -> None:
    whole, first, other = (
        [solution.conditions for solution in evaluated(true, seed=seed)[1]]
        for true, seed in ((TRUE, 0), (TRUE[:2], 0), (TRUE, 1))
    )
    assert all(torch.equal(a, b) for a, b in zip(first, whole, strict=False))
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0], other[0])


@pytest.mark.parametrize(("count", "expected"), [("true", [3, 1, 2]), (2, [2, 2, 2]), ((1, 4), [4, 4, 4])])
def test_counts_are_handed_on(count: object, expected: list[int]) -> None:
    assert [solution.count for solution in evaluated(count=count)[1]] == expected


def test_a_picture_without_an_answer_counts_as_missed() -> None:
    report, _ = evaluated(solver=Oracle())
    assert report.values["perception_rate"] == pytest.approx(5 / 6)
    assert report.values["precision"] == 1.0
    assert report.values["count_accuracy"] == pytest.approx(2 / 3)
    assert report.intervals["precision"] == (1.0, 1.0)
    assert report.intervals["perception_rate"][0] < 5 / 6 < report.intervals["perception_rate"][1]
    assert {*METRICS, "rows_per_image"} < set(report.as_dict())


def test_json_has_no_nan_and_no_examples_are_an_error() -> None:
    report, _ = evaluated(count=0)
    assert math.isnan(report.values["precision"])
    assert report.as_dict()["precision"] is None
    assert report.as_dict()["intervals"]["precision"] == [None, None]
    with pytest.raises(InputError, match="no examples"):
        evaluated([])


def test_bootstrap_is_that_of_a_loop_over_resamples() -> None:
    generator = seeded(3)
    found = [torch.rand(int(k), 2, generator=generator) for k in torch.randint(1, 6, (25,), generator=generator)]
    true = [torch.rand(int(k), 2, generator=generator) for k in torch.randint(1, 6, (25,), generator=generator)]
    parts, total = [], EstimationError()
    for f, t in zip(found, true, strict=True):
        metric = EstimationError()
        metric.update([f], [t])
        parts.append(metric)
        total.update([f], [t])
    interval = bootstrap(parts, float(total.compute()), seed=7, resamples=50)
    resampled = []
    for draw in torch.randint(25, (50, 25), generator=seeded(7)):
        metric = EstimationError()
        metric.update([found[k] for k in draw], [true[k] for k in draw])
        resampled.append(metric.compute())
    expected = torch.quantile(torch.stack(resampled), torch.tensor([0.025, 0.975], dtype=torch.float64))
    assert interval == pytest.approx(tuple(expected.tolist()))


def test_parts_without_masks_are_not_scored_as_parts_without_a_pixel() -> None:
    """Masks of two parts under the mean rule cannot be determined: their recall is not known, and was 0."""
    left = torch.arange(16).expand(2, 16, 16) < torch.tensor([4, 8]).view(2, 1, 1)
    examples = [Example(torch.where(left[:1], 0.9, -0.2).expand(3, -1, -1), masks=left[:1])] * 2
    metrics = MetricCollection({"recall": MaskRecall(), "ari": ForegroundARI()})
    report = evaluate(stripes_model(parts=2, rule="mean"), examples, metrics, progress=False)
    assert math.isnan(report.values["recall"])
    assert math.isnan(report.values["ari"])  # it was 1
    assert report.values["mse"] >= 0
    assert set(report.intervals) == {"mse", "mse_baseline"}


def test_bootstrap_of_metrics_that_were_asked_for_their_value_and_of_one_image() -> None:
    parts = [CountAccuracy() for _ in range(4)]
    for k, metric in enumerate(parts):
        metric.update([torch.zeros(k % 2, 2)], [torch.zeros(1, 2)])
    interval = bootstrap(parts, 0.5)
    assert [float(metric.compute()) for metric in parts] == [0.0, 1.0, 0.0, 1.0]
    assert bootstrap(parts, 0.5) == interval  # it was None
    assert interval == (0.0, 1.0)
    assert bootstrap(parts[:1], 0.0) is None  # no interval of a width of 0


def test_bootstrap_of_a_proportion_is_its_binomial_interval() -> None:
    parts: list[Metric] = []
    for k in range(400):
        metric = MeanMetric()
        metric.update(float(k % 10 == 0))
        parts.append(metric)
    interval = bootstrap(parts, 0.1)
    assert interval is not None
    half = 1.96 * math.sqrt(0.1 * 0.9 / 400)
    assert interval == pytest.approx((0.1 - half, 0.1 + half), abs=0.006)


@pytest.mark.parametrize("kind", [MaxMetric, CatMetric])
def test_a_metric_that_is_no_function_of_sums_has_no_interval(kind: type[Metric]) -> None:
    parts = [kind() for _ in range(5)]
    for k, metric in enumerate(parts):
        metric.update(float(k))
    assert bootstrap(parts, 4.0) is None
