"""A network as components: denoisers, the evaluator that runs them, and networks that plugins share."""

from energycomp.components.ledger import RowCount as RowCount, count_rows as count_rows
from energycomp.denoisers.codec import Codec as Codec
from energycomp.denoisers.configured import configured as configured
from energycomp.denoisers.denoiser import Conditional as Conditional, Denoiser as Denoiser, compose_rows as compose_rows
from energycomp.denoisers.engines import Engine as Engine
from energycomp.denoisers.evaluator import (
    Network as Network,
    Trunk as Trunk,
    TwoStage as TwoStage,
    row_limit as row_limit,
    rows as rows,
    trunk as trunk,
)
from energycomp.denoisers.layout import channels_last as channels_last
from energycomp.denoisers.time_embedding import TimestepEmbedding as TimestepEmbedding, Timesteps as Timesteps
from energycomp.denoisers.two_stage import (
    Cells as Cells,
    FiLMBlock as FiLMBlock,
    GroupNorm as GroupNorm,
    Stage as Stage,
    TwoStageUNet as TwoStageUNet,
    place_maps as place_maps,
)
from energycomp.denoisers.unets import (
    ConditionUNet as ConditionUNet,
    EmbeddingUNet as EmbeddingUNet,
    latent_unet as latent_unet,
)
