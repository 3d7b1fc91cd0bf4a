"""The conformance check of training recipes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from energycomp.models import load_weights
from energycomp_lab.checks.expect import expect
from energycomp_lab.training.recipe import Trainable


def check_recipe(recipe: Trainable) -> None:
    """Checks a recipe: it trains for two steps, and the resulting weights fit its model."""
    expect(
        isinstance(recipe, Trainable), f"a {type(recipe).__name__}", "an energycomp_lab.training.Recipe", "return one"
    )
    with TemporaryDirectory() as folder:
        result = recipe.run(Path(folder), steps=2, seed=0, mixed_precision="no", progress=False)
    expect(result.step == 2, f"{result.step} steps", "2", "pass the changes of run on to its FitConfig")
    expect(bool(np.isfinite(result.loss)), f"a loss of {result.loss}", "a finite one", "check the learning rate")
    load_weights(recipe.model.trained, result.ema_state, "the recipe's result")
