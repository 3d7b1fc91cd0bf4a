"""Evaluate: data sources, metrics of scenes and masks, reports with intervals.

The metrics are resolved at first use, since importing torchmetrics takes seconds, and most commands measure nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.evaluation.calibrate import calibrate
from energycomp.evaluation.data import (
    DataSource,
    Example,
    Generated,
    HasConcepts,
    HasSceneRecords,
    HasSceneScores,
    parse_range,
    true_values,
)
from energycomp.evaluation.evaluate import evaluate, evaluate_parts
from energycomp.evaluation.report import Report, bootstrap
from energycomp.imports import first_use

if TYPE_CHECKING:
    from energycomp.evaluation.attributes import AttributeAccuracy, AttributeCalibration, attribute_metrics
    from energycomp.evaluation.mask_metrics import (
        ForegroundARI,
        MaskIoU,
        MaskRecall,
        SlotsUsed,
        adjusted_rand_index,
        match_masks,
    )
    from energycomp.evaluation.scene_metrics import (
        FOUND_WITHIN,
        CountAccuracy,
        EstimationError,
        ExactSet,
        PerceptionRate,
        Precision,
        match,
        near_pairs,
    )

_NAMES = {
    "attributes": ("AttributeAccuracy", "AttributeCalibration", "attribute_metrics"),
    "mask_metrics": ("ForegroundARI", "MaskIoU", "MaskRecall", "SlotsUsed", "adjusted_rand_index", "match_masks"),
    "scene_metrics": (
        "FOUND_WITHIN",
        "CountAccuracy",
        "EstimationError",
        "ExactSet",
        "PerceptionRate",
        "Precision",
        "match",
        "near_pairs",
    ),
}

__all__ = [
    "FOUND_WITHIN",
    "AttributeAccuracy",
    "AttributeCalibration",
    "CountAccuracy",
    "DataSource",
    "EstimationError",
    "ExactSet",
    "Example",
    "ForegroundARI",
    "Generated",
    "HasConcepts",
    "HasSceneRecords",
    "HasSceneScores",
    "MaskIoU",
    "MaskRecall",
    "PerceptionRate",
    "Precision",
    "Report",
    "SlotsUsed",
    "adjusted_rand_index",
    "attribute_metrics",
    "bootstrap",
    "calibrate",
    "evaluate",
    "evaluate_parts",
    "match",
    "match_masks",
    "near_pairs",
    "parse_range",
    "true_values",
]

__getattr__ = first_use(__name__, _NAMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
