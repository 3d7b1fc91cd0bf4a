"""Evaluate: data sources, metrics of scenes and masks, reports with intervals.

The metrics are resolved at first use, since importing torchmetrics takes seconds, and most commands measure nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp_lab.evaluation.calibrate import (
    LEAST as LEAST,
    calibrate as calibrate,
    fit_sure as fit_sure,
    join_counts as join_counts,
    measure_background as measure_background,
)
from energycomp_lab.evaluation.data import Example as Example, Generated as Generated, true_values as true_values
from energycomp_lab.evaluation.evaluate import evaluate as evaluate
from energycomp_lab.evaluation.model_card import Result as Result, card as card
from energycomp_lab.evaluation.report import Report as Report, bootstrap as bootstrap
from energycomp_lab.evaluation.sources import (
    DataSource as DataSource,
    Exam as Exam,
    dataset_of as dataset_of,
    source_ability as source_ability,
    source_of as source_of,
)
from energycomp_lab.evaluation.traversal import (
    Traversal as Traversal,
    strongest_dimensions as strongest_dimensions,
    traverse_dimension as traverse_dimension,
)

if TYPE_CHECKING:
    from energycomp_lab.evaluation.attributes import (
        AttributeAccuracy as AttributeAccuracy,
        AttributeCalibration as AttributeCalibration,
        attribute_metrics as attribute_metrics,
    )
    from energycomp_lab.evaluation.mask_metrics import (
        ForegroundARI as ForegroundARI,
        MaskIoU as MaskIoU,
        MaskRecall as MaskRecall,
        SlotsUsed as SlotsUsed,
        adjusted_rand_index as adjusted_rand_index,
        match_masks as match_masks,
    )
    from energycomp_lab.evaluation.matching import (
        FOUND_WITHIN as FOUND_WITHIN,
        match as match,
        near_pairs as near_pairs,
    )
    from energycomp_lab.evaluation.scene_metrics import (
        CountAccuracy as CountAccuracy,
        EstimationError as EstimationError,
        ExactSet as ExactSet,
        PerceptionRate as PerceptionRate,
        Precision as Precision,
    )

__getattr__, _lazy = first_use(__name__, __file__)


def __dir__() -> list[str]:
    return sorted({*globals(), *_lazy})
