"""Metrics of answers to marked photos: objects, their counts, and how likely proposals are objects.

Each is updated with records as `energycomp_lab.evaluation.evaluate` keeps them: the true values, those of the answer,
and the trace and the counts of the solution.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import BinaryCalibrationError

from energycomp_objects.counts import count_posterior, interval

NEAR = 0.5  # of the sides of a marked object, within which an answer is that object
POINT = 0.08  # of the sides of a photo, for the sides of an object of which a point is marked
BINS = 10  # of the calibration error

Record = Mapping[str, Any]


def object_metrics(words: Sequence[str]) -> MetricCollection:
    """The metrics of answers to marked photos.

    Recall and precision of the answers; over photos, how often the likeliest count is right, its mean error, and how
    often its 90 % interval holds, of all objects and of each word of the first attribute. And of all proposals the
    calibration error of their probabilities, the greatest recall at a precision of 0.95, and where pycocotools is
    installed average precision.
    """
    metrics: dict[str, Metric | MetricCollection] = {"recall": Ratio(_recall), "precision": Ratio(_precision)}
    if find_spec("pycocotools") is not None:
        metrics |= {name: AveragePrecision(name) for name in ("map_50", "map")}
    for word in (None, *words):
        name = "" if word is None else f"_{word}"
        metrics[f"count_exact{name}"] = Ratio(partial(_exact_count, word=word))
        metrics[f"count_error{name}"] = Ratio(partial(_count_error, word=word))
        metrics[f"count_in_90{name}"] = Ratio(partial(_count_in_interval, word=word))
    metrics["recall_at_precision_95"] = RecallAtPrecision()
    metrics["calibration_error"] = ProposalCalibrationError(n_bins=BINS)
    return MetricCollection(metrics, compute_groups=False)


class Ratio(Metric):
    """The ratio of two sums over images.

    Args:
        measure: what a record adds to both.
    """

    full_state_update = False
    part: Tensor
    whole: Tensor

    def __init__(self, measure: Callable[[Record], tuple[float, float]]) -> None:
        super().__init__()
        self.measure = measure
        for name in ("part", "whole"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, _found: Sequence[Tensor], _true: Sequence[Tensor], record: Sequence[Record] = ()) -> None:
        """Adds the records of images."""
        for one in record:
            part, whole = self.measure(one)
            self.part += part
            self.whole += whole

    def compute(self) -> Tensor:
        """NaN where nothing was measured."""
        return self.part / self.whole


class ProposalCalibrationError(BinaryCalibrationError):
    """The expected calibration error of the probability that a proposal is an object."""

    def update(  # type: ignore[override]
        self, _found: Sequence[Tensor], _true: Sequence[Tensor], record: Sequence[Record] = ()
    ) -> None:
        """Adds the records of images."""
        for one in record:
            if one["trace"]["proposed"]:
                is_object = match_proposals(_values(one, "true"), one["trace"])
                super().update(torch.tensor(one["trace"]["proposed"], dtype=torch.float32), is_object.int())

    def compute(self) -> Tensor:
        """NaN without proposals."""
        return super().compute() if self.confidences else torch.tensor(torch.nan)


class RecallAtPrecision(Metric):
    """The greatest recall of objects, whatever their words, with proposals above a probability.

    Args:
        least: precision that these proposals have.
    """

    full_state_update = False
    probability: list[Tensor]
    right: list[Tensor]
    marks: Tensor

    def __init__(self, least: float = 0.95) -> None:
        super().__init__()
        self.least = least
        for name in ("probability", "right"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.add_state("marks", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, _found: Sequence[Tensor], _true: Sequence[Tensor], record: Sequence[Record] = ()) -> None:
        """Adds the records of images."""
        for one in record:
            self.probability.append(torch.tensor(one["trace"]["proposed"], dtype=torch.float32))
            self.right.append(match_proposals(_values(one, "true"), one["trace"]))
            self.marks += len(one["true"])

    def compute(self) -> Tensor:
        """In [0, 1]; NaN without marks."""
        if not self.marks:
            return torch.tensor(torch.nan)
        order = torch.cat(self.probability).argsort(descending=True, stable=True)
        right = torch.cat(self.right)[order].cumsum(0)
        precise = right >= self.least * (1 + torch.arange(len(right)))
        return right[precise].max() / self.marks if precise.any() else torch.tensor(0.0)


class AveragePrecision(Metric):
    """Average precision of all proposals by the tools of COCO (Lin et al., 2014), the mean over words.

    A proposal's score is the probability that it is an object, times the share of its likeliest word.

    Args:
        figure: over boxes that agree by an IoU of 0.5, or the mean over those of 0.5 to 0.95.
    """

    full_state_update = False
    marks: list[Tensor]
    proposals: list[Tensor]

    def __init__(self, figure: Literal["map_50", "map"]) -> None:
        super().__init__()
        self.figure = figure
        for name in ("marks", "proposals"):
            self.add_state(name, [], dist_reduce_fx=None)

    def update(self, _found: Sequence[Tensor], _true: Sequence[Tensor], record: Sequence[Record] = ()) -> None:
        """Adds the records of images; of a model without boxes, nothing."""
        for one in record:
            trace = one["trace"]
            if "width" not in trace:
                continue
            true = _values(one, "true").double()
            count = len(trace["proposed"])
            shares = torch.tensor(trace.get("sure 0", [1.0] * count), dtype=torch.float64)
            score = torch.tensor(trace["proposed"], dtype=torch.float64) * shares
            code = torch.tensor(trace.get("words 0", [1] * count))
            box = torch.tensor([trace[name] for name in ("x", "y", "width", "height")], dtype=torch.float64).T
            word = true[:, 4] if true.shape[1] > 4 else torch.ones(len(true))
            self.marks.append(torch.cat([_corner(true[:, :4]), word[:, None]], dim=1)[word > 0])
            self.proposals.append(torch.cat([_corner(box), score[:, None], code[:, None]], dim=1))

    def compute(self) -> Tensor:
        """In [0, 1]; NaN without marks."""
        if not sum(map(len, self.marks)):
            return torch.tensor(torch.nan)
        precision = _coco_precision(self.marks, self.proposals)
        return precision[0].mean() if self.figure == "map_50" else precision.mean()


def _coco_precision(marks: Sequence[Tensor], proposals: Sequence[Tensor]) -> Tensor:
    """Precision (IoU, recall, word) of the words that occur.

    Args:
        marks: of each image (M, 5), a box and the number of a word.
        proposals: (N, 6), a box, a score and the number of a word.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    boxes = [(image, *mark) for image, each in enumerate(marks) for mark in each.tolist()]
    scored = [(image, *proposal) for image, each in enumerate(proposals) for proposal in each.tolist()]
    known = COCO()
    known.dataset = {
        "info": {},
        "images": [{"id": image} for image in range(len(marks))],
        "categories": [{"id": word} for word in sorted({int(box[-1]) for box in boxes})],
        "annotations": [
            {"id": k, "image_id": image, "category_id": int(word), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for k, (image, *box, word) in enumerate(boxes, 1)
        ],
    }
    with redirect_stdout(io.StringIO()):
        known.createIndex()
        answers = known.loadRes(np.array(scored).reshape(-1, 7)) if scored else COCO()
        evaluation = COCOeval(known, answers, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = torch.from_numpy(evaluation.eval["precision"])[:, :, :, 0, -1]  # of boxes of any size
    return precision.clamp(min=0.0)


def _corner(box: Tensor) -> Tensor:
    """Boxes (N, 4) by their centres as COCO has them, by the corner of least x and y."""
    return torch.cat([box[:, :2] - box[:, 2:] / 2, box[:, 2:]], dim=1)


def match(marked: Tensor, values: Tensor) -> list[tuple[int, int]]:
    """Pairs of marks (K, V) and values (N, V) that are nearest, within `NEAR` of a mark's sides.

    >>> match(torch.tensor([[0.5, 0.5, 0.2, 0.1]]), torch.tensor([[0.5, 0.6], [0.55, 0.5]]))
    [(0, 1)]
    """
    if not len(marked) or not len(values):
        return []
    sides = marked[:, 2:4] if marked.shape[1] >= 4 else torch.full((len(marked), 2), POINT)
    away = (marked[:, None, :2] - values[None, :, :2]) / (sides[:, None] * NEAR).clamp(min=1e-3)
    distance = away.norm(dim=2)
    pairs = zip(*linear_sum_assignment(distance.clamp(max=5.0).numpy()), strict=True)
    return [(int(a), int(b)) for a, b in pairs if distance[a, b] < 1]


def match_proposals(marked: Tensor, trace: Mapping[str, Sequence[float]]) -> Tensor:
    """Which proposals (M,) of a trace are marks (K, V)."""
    proposed = torch.tensor([trace["x"], trace["y"]], dtype=torch.float32).T
    is_object = torch.zeros(len(proposed), dtype=torch.bool)
    is_object[[k for _, k in match(marked, proposed)]] = True
    return is_object


def _values(record: Record, name: Literal["true", "conditions"]) -> Tensor:
    """The values (K, V) of a record; (0, 2) of none."""
    return torch.tensor(record[name], dtype=torch.float32) if record[name] else torch.zeros(0, 2)


def _recall(record: Record) -> tuple[float, float]:
    return len(match(_values(record, "true"), _values(record, "conditions"))), len(record["true"])


def _precision(record: Record) -> tuple[float, float]:
    return len(match(_values(record, "true"), _values(record, "conditions"))), len(record["conditions"])


def _counts(record: Record, word: str | None) -> tuple[int, int, int, int]:
    """The true number of objects, the likeliest one, and the ends of its interval; of a word, or of all objects."""
    if word is None:
        trace = record["trace"]
        posterior = count_posterior(trace["proposed"], spread=float(*trace.get("spread", [0.0])))
        return len(record["true"]), int(posterior.argmax()), *interval(posterior)
    code = 1 + list(record["counts"]).index(word)
    column = 4 if "width" in record["trace"] else 2
    true = sum(value[column] == code for value in record["true"])
    return true, *record["counts"][word]


def _exact_count(record: Record, word: str | None) -> tuple[float, float]:
    true, count, *_ = _counts(record, word)
    return count == true, 1


def _count_error(record: Record, word: str | None) -> tuple[float, float]:
    true, count, *_ = _counts(record, word)
    return abs(count - true), 1


def _count_in_interval(record: Record, word: str | None) -> tuple[float, float]:
    true, _, low, high = _counts(record, word)
    return low <= true <= high, 1
