"""A network as components: denoisers, the evaluator that runs them, and networks that plugins share."""

from energycomp.components.predict import native_type, predict
from energycomp.components.prediction import PredictionType, convert
from energycomp.components.space import log_snr, signal_noise
from energycomp.denoisers.blocks import FiLMBlock, GroupNorm, Stage, place_maps
from energycomp.denoisers.denoiser import Codec, Conditional, Denoiser, compose_rows
from energycomp.denoisers.evaluator import RowCount, Trunk, count_rows, row_limit, rows, trunk
from energycomp.denoisers.protocols import HasNetwork, Network, Placed, TwoStage
from energycomp.denoisers.two_stage import TwoStageUNet
from energycomp.denoisers.unets import ConditionUNet, EmbeddingUNet

__all__ = [
    "Codec",
    "ConditionUNet",
    "Conditional",
    "Denoiser",
    "EmbeddingUNet",
    "FiLMBlock",
    "GroupNorm",
    "HasNetwork",
    "Network",
    "Placed",
    "PredictionType",
    "RowCount",
    "Stage",
    "Trunk",
    "TwoStage",
    "TwoStageUNet",
    "compose_rows",
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
