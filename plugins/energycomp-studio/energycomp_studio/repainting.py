"""The image that was read, with the changes of its scene."""

from __future__ import annotations

from typing import Any

from energycomp.errors import InputError
from energycomp.models import Model
from energycomp_edit import edit
from energycomp_studio.scene import Draft, changes, value
from energycomp_studio.settings import Settings
from energycomp_studio.staged import Reading, describe_values

STEPS = 25  # of a repainting at most, so that it takes about as long as a drawing


def settings_of(model: Model, seed: Any) -> Settings:
    """How changes are repainted: with the steps of the model, but at most 25."""
    return Settings(seed, steps=min(STEPS, model.defaults.num_inference_steps))


def repaint_changes(reading: Reading, scene: Draft, model: Model, settings: Settings) -> Reading:
    """The image with the changes of a scene, as it is read then; raises `InputError` where there are none."""
    found = changes(reading.described, scene)
    if not found:
        raise InputError("got nothing to change; expected an object that is moved, changed, added or removed")
    edited = edit(
        reading.picture,
        model,
        move={k: value(item, model)[0] for k, item in found.move.items()},
        remove=found.remove,
        add=[value(item, model)[0] for item in found.add],
        solution=reading.solution,
        num_inference_steps=settings.steps,
        generator=settings.seed,
        progress=False,
    )
    return Reading(edited.image, edited.new_solution, describe_values(edited.new_solution.conditions, model))
