"""A network as components: denoisers, the evaluator that runs them, and networks that plugins share."""

from energycomp.denoisers.denoiser import Codec, Denoiser, PredictionType, convert, log_snr, signal_noise
from energycomp.denoisers.evaluator import (
    RowCount,
    Trunk,
    count_rows,
    native_type,
    predict,
    row_limit,
    rows,
    trunk,
)
from energycomp.denoisers.two_stage import (
    FiLMBlock,
    GroupNorm,
    Network,
    Stage,
    TwoStage,
    TwoStageUNet,
    place_maps,
)
from energycomp.denoisers.unets import ConditionUNet, EmbeddingUNet

__all__ = [
    "Codec",
    "ConditionUNet",
    "Denoiser",
    "EmbeddingUNet",
    "FiLMBlock",
    "GroupNorm",
    "Network",
    "PredictionType",
    "RowCount",
    "Stage",
    "Trunk",
    "TwoStage",
    "TwoStageUNet",
    "convert",
    "count_rows",
    "log_snr",
    "native_type",
    "place_maps",
    "predict",
    "row_limit",
    "rows",
    "signal_noise",
    "trunk",
]
