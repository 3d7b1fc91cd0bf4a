"""What is loaded: a model with its defaults, its codec, and its files."""

from energycomp.models.build import load_weights, no_larger_than, on_meta
from energycomp.models.calibration import Calibration, log_errors
from energycomp.models.card import Result, card
from energycomp.models.codec import VAECodec
from energycomp.models.config import config_of
from energycomp.models.defaults import Defaults
from energycomp.models.hub import HubSource, is_hub_id
from energycomp.models.loading import check_device, load, model_of, push_to_hub
from energycomp.models.model import Adapt, Model, checked_model
from energycomp.models.places import execution_device
from energycomp.models.pretrained import from_pretrained, is_folder, save_pretrained, shipped

__all__ = [
    "Adapt",
    "Calibration",
    "Defaults",
    "HubSource",
    "Model",
    "Result",
    "VAECodec",
    "card",
    "check_device",
    "checked_model",
    "config_of",
    "execution_device",
    "from_pretrained",
    "is_folder",
    "is_hub_id",
    "load",
    "load_weights",
    "log_errors",
    "model_of",
    "no_larger_than",
    "on_meta",
    "push_to_hub",
    "save_pretrained",
    "shipped",
]
