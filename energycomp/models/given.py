"""What functions are given for a model: a model, its name, or its folder."""

from __future__ import annotations

import json
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from energycomp.errors import InputError
from energycomp.models.defaults import Defaults
from energycomp.models.folder import CONFIG
from energycomp.models.model import Model

load = Model.from_pretrained
"""The model of a registered name, a folder or a hub id: `Model.from_pretrained`."""

save_pretrained = Model.save_pretrained
"""`save_pretrained(model, folder)` is `model.save_pretrained(folder)`."""

push_to_hub = Model.push_to_hub
"""`push_to_hub(model, repo_id)` is `model.push_to_hub(repo_id)`."""


def checked_model(model: Any) -> Model:
    """A model as it is; raises `InputError` for anything else, such as a name."""
    if not isinstance(model, Model):
        got = repr(model) if isinstance(model, str) else f"an object of {type(model).__name__}"
        raise InputError(f"got {got} for a model; expected a Model; load it once: model = energycomp.load('clevr')")
    return model


def model_of(given: Any) -> Model:
    """A model as it is, or that of a name, a folder or a hub id, which is loaded to the CPU.

    Raises:
        InputError: neither a model nor a name.

    >>> model_of(3)
    Traceback (most recent call last):
    energycomp.errors.InputError: got an object of int for a model; expected a Model; ...
    """
    return Model.from_pretrained(given) if isinstance(given, str | Path) else checked_model(given)


def from_pretrained(folder: str | Path) -> Model:
    """The model of a folder: `energycomp.load` for a folder alone, whatever its name."""
    return Model.from_pretrained(Path(folder))


def shipped_defaults(package: str, name: str = "") -> Defaults:
    """The defaults of the model that `shipped` gives, without what was fitted to its weights.

    An untrained model begins with them, so that they stand in its folder alone.

    >>> shipped_defaults("energycomp_clevr", "small").beta is None  # which was fitted to its weights
    True
    """
    config = json.loads((files(package) / "weights" / name / CONFIG).read_text(encoding="utf-8"))
    return Defaults(**config["defaults"]).unfitted()


def shipped(package: str, name: str = "") -> Model:
    """The model in the folder `weights` of an installed package, or in the folder `name` inside it."""
    with as_file(files(package) / "weights") as folder:
        return Model.from_pretrained(folder / name, engine="torch")  # `load` puts another in its place
