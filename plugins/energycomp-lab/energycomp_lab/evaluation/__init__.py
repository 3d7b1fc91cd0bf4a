"""Evaluate: data sources, metrics of scenes and masks, reports with intervals.

The metrics are resolved at first use, since importing torchmetrics takes seconds, and most commands measure nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp_lab.evaluation.calibrate import calibrate, measure_background
from energycomp_lab.evaluation.data import Example, Generated, true_values
from energycomp_lab.evaluation.evaluate import evaluate
from energycomp_lab.evaluation.model_card import Result, card
from energycomp_lab.evaluation.report import Report, bootstrap
from energycomp_lab.evaluation.sources import (
    DataSource,
    Exam,
    HasConcepts,
    HasRenderer,
    HasSceneScores,
    HasSizes,
    HasTask,
    dataset_of,
    source_of,
)
from energycomp_lab.evaluation.traversal import Traversal, strongest_dimensions, traverse_dimension

if TYPE_CHECKING:
    from energycomp_lab.evaluation.attributes import AttributeAccuracy, AttributeCalibration, attribute_metrics
    from energycomp_lab.evaluation.mask_metrics import (
        ForegroundARI,
        MaskIoU,
        MaskRecall,
        SlotsUsed,
        adjusted_rand_index,
        match_masks,
    )
    from energycomp_lab.evaluation.matching import FOUND_WITHIN, match, near_pairs
    from energycomp_lab.evaluation.scene_metrics import (
        CountAccuracy,
        EstimationError,
        ExactSet,
        PerceptionRate,
        Precision,
    )

__getattr__, _ = first_use(__name__, __file__)

__all__ = [
    "FOUND_WITHIN",
    "AttributeAccuracy",
    "AttributeCalibration",
    "CountAccuracy",
    "DataSource",
    "EstimationError",
    "ExactSet",
    "Exam",
    "Example",
    "ForegroundARI",
    "Generated",
    "HasConcepts",
    "HasRenderer",
    "HasSceneScores",
    "HasSizes",
    "HasTask",
    "MaskIoU",
    "MaskRecall",
    "PerceptionRate",
    "Precision",
    "Report",
    "Result",
    "SlotsUsed",
    "Traversal",
    "adjusted_rand_index",
    "attribute_metrics",
    "bootstrap",
    "calibrate",
    "card",
    "dataset_of",
    "evaluate",
    "match",
    "match_masks",
    "measure_background",
    "near_pairs",
    "source_of",
    "strongest_dimensions",
    "traverse_dimension",
    "true_values",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
