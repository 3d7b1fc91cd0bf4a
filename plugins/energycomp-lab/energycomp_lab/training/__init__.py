"""Train: one loop that resumes bit for bit, its loss and its checkpoints."""

from energycomp_lab.training.checkpoint import (
    TrainingState,
    append_log,
    ema_state,
    ema_weights,
    load_checkpoint,
    newest_checkpoint,
    rewind_log,
    save_checkpoint,
)
from energycomp_lab.training.config import FitConfig, Step
from energycomp_lab.training.contrast import Rivals, contrastive_loss
from energycomp_lab.training.fit import FitResult, Loss, OnSample, fit
from energycomp_lab.training.loss import denoising_loss
from energycomp_lab.training.order import MapStyle, Order, TrainingData, batches, interrupt_flag, step_generator
from energycomp_lab.training.recipe import Recipe, Trainable, augment, collate, option_number, start

__all__ = [
    "FitConfig",
    "FitResult",
    "Loss",
    "MapStyle",
    "OnSample",
    "Order",
    "Recipe",
    "Rivals",
    "Step",
    "Trainable",
    "TrainingData",
    "TrainingState",
    "append_log",
    "augment",
    "batches",
    "collate",
    "contrastive_loss",
    "denoising_loss",
    "ema_state",
    "ema_weights",
    "fit",
    "interrupt_flag",
    "load_checkpoint",
    "newest_checkpoint",
    "option_number",
    "rewind_log",
    "save_checkpoint",
    "start",
    "step_generator",
]
