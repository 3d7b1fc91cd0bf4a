"""Evaluate: data sources, metrics of scenes and masks, tables with intervals."""

from energycomp.evaluation.data import DataSource, Example, Generated, parse_range
from energycomp.evaluation.disentanglement import (
    MeanCorrelation,
    MutualInformationGap,
    entropies,
    information_gaps,
    matched_correlations,
    mutual_information,
)
from energycomp.evaluation.evaluate import Report, bootstrap, evaluate, evaluate_parts
from energycomp.evaluation.mask_metrics import (
    ForegroundARI,
    MaskIoU,
    MaskRecall,
    SlotsUsed,
    adjusted_rand_index,
    match_masks,
)
from energycomp.evaluation.perceptual import (
    FeatureNetwork,
    FrechetDistance,
    KernelDistance,
    PerceptualDistance,
    perceptual_distance,
)
from energycomp.evaluation.scene_metrics import CountAccuracy, EstimationError, PerceptionRate, Precision, match

__all__ = [
    "CountAccuracy",
    "DataSource",
    "EstimationError",
    "Example",
    "FeatureNetwork",
    "ForegroundARI",
    "FrechetDistance",
    "Generated",
    "KernelDistance",
    "MaskIoU",
    "MaskRecall",
    "MeanCorrelation",
    "MutualInformationGap",
    "PerceptionRate",
    "PerceptualDistance",
    "Precision",
    "Report",
    "SlotsUsed",
    "adjusted_rand_index",
    "bootstrap",
    "entropies",
    "evaluate",
    "evaluate_parts",
    "information_gaps",
    "match",
    "match_masks",
    "matched_correlations",
    "mutual_information",
    "parse_range",
    "perceptual_distance",
]
