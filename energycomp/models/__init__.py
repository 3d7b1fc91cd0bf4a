"""What is loaded: a model with its defaults, its codec, and its files."""

from energycomp.models.card import Result, card
from energycomp.models.codec import VAECodec, execution_device
from energycomp.models.defaults import Calibration, Defaults, log_errors
from energycomp.models.folder import is_folder
from energycomp.models.hub import HubSource, is_hub_id
from energycomp.models.model import Adapt, Model, checked_model, from_pretrained, model_of, shipped
from energycomp.models.sources import check_device, dtype_of
from energycomp.models.weights import load_weights, on_meta

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
    "dtype_of",
    "execution_device",
    "from_pretrained",
    "is_folder",
    "is_hub_id",
    "load",
    "load_weights",
    "log_errors",
    "model_of",
    "on_meta",
    "push_to_hub",
    "save_pretrained",
    "shipped",
]

load = Model.from_pretrained
"""The model of a registered name, a folder or a hub id."""
save_pretrained = Model.save_pretrained
"""`save_pretrained(model, folder)` is `model.save_pretrained(folder)`."""
push_to_hub = Model.push_to_hub
"""`push_to_hub(model, repo_id)` is `model.push_to_hub(repo_id)`."""
