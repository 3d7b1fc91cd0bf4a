"""Train: one loop that resumes bit for bit, its loss and its checkpoints."""

from energycomp.training.checkpoint import (
    TrainingState,
    append_log,
    ema_state,
    ema_weights,
    load_checkpoint,
    newest_checkpoint,
    rewind_log,
    save_checkpoint,
)
from energycomp.training.fit import FitResult, fit
from energycomp.training.order import (
    COUNT,
    FitConfig,
    Order,
    batches,
    derived_seed,
    interrupt_flag,
    step_generator,
)
from energycomp.training.recipe import Recipe, collate, denoising_loss

__all__ = [
    "COUNT",
    "FitConfig",
    "FitResult",
    "Order",
    "Recipe",
    "TrainingState",
    "append_log",
    "batches",
    "collate",
    "denoising_loss",
    "derived_seed",
    "ema_state",
    "ema_weights",
    "fit",
    "interrupt_flag",
    "load_checkpoint",
    "newest_checkpoint",
    "rewind_log",
    "save_checkpoint",
    "step_generator",
]
