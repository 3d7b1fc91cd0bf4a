"""Evaluate: data sources, metrics of scenes and masks, reports with intervals."""

from energycomp.evaluation.attribute_metrics import AttributeAccuracy, AttributeCalibration, attribute_metrics
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
from energycomp.evaluation.mask_metrics import (
    ForegroundARI,
    MaskIoU,
    MaskRecall,
    SlotsUsed,
    adjusted_rand_index,
    match_masks,
)
from energycomp.evaluation.report import Report, bootstrap
from energycomp.evaluation.scene_metrics import (
    FOUND_WITHIN,
    CountAccuracy,
    EstimationError,
    ExactSet,
    PerceptionRate,
    Precision,
    match,
)

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
    "parse_range",
    "true_values",
]
