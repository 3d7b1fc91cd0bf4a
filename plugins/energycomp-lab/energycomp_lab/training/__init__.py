"""Train: one loop that resumes bit for bit, its losses, and recipes."""

from energycomp_lab.training.checkpoint import ema_weights
from energycomp_lab.training.config import FitConfig, Step
from energycomp_lab.training.contrast import Rivals, contrastive_loss
from energycomp_lab.training.fit import FitResult, Loss, OnSample, fit
from energycomp_lab.training.loss import denoising_loss
from energycomp_lab.training.order import MapStyle, TrainingData
from energycomp_lab.training.recipe import Recipe, Trainable, augment, collate, exposed, option_number, start

__all__ = [
    "FitConfig",
    "FitResult",
    "Loss",
    "MapStyle",
    "OnSample",
    "Recipe",
    "Rivals",
    "Step",
    "Trainable",
    "TrainingData",
    "augment",
    "collate",
    "contrastive_loss",
    "denoising_loss",
    "ema_weights",
    "exposed",
    "fit",
    "option_number",
    "start",
]
