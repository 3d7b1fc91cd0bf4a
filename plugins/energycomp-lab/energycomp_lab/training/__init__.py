"""Train: one loop that resumes bit for bit, its losses, and recipes."""

from energycomp_lab.training.checkpoint import ema_weights as ema_weights
from energycomp_lab.training.config import FitConfig as FitConfig, Step as Step
from energycomp_lab.training.contrast import Rivals as Rivals, contrastive_loss as contrastive_loss
from energycomp_lab.training.fit import (
    Finished as Finished,
    FitResult as FitResult,
    Loss as Loss,
    OnSample as OnSample,
    fit as fit,
)
from energycomp_lab.training.loss import denoising_loss as denoising_loss
from energycomp_lab.training.order import MapStyle as MapStyle, TrainingData as TrainingData
from energycomp_lab.training.recipe import (
    Recipe as Recipe,
    Trainable as Trainable,
    augment as augment,
    collate as collate,
    exposed as exposed,
    option_number as option_number,
    start as start,
)
from energycomp_lab.training.validation import Standing as Standing, Validation as Validation
