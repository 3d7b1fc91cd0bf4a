"""The image of a scene, as the settings on the page say."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import unquote

import torch
from PIL import Image

from energycomp import Composer
from energycomp.errors import EnergycompError
from energycomp.images import framed
from energycomp.models import Model
from energycomp.plugins import names
from energycomp_studio.pictures import SIDE
from energycomp_studio.preview import preview_options
from energycomp_studio.scene import OR, Draft, compose_scene, scene_of
from energycomp_studio.settings import Settings
from energycomp_studio.worker import StoppedError

DRAFT = 5  # steps of a sampler, while an object is dragged
PLAIN = "the model's own"
SCHEDULERS = ("DDIMScheduler", "DPMSolverMultistepScheduler")


def draw_scene(
    scene: Draft,
    model: Model,
    settings: Settings,
    *,
    draft: bool = False,
    is_old: Callable[[], bool] = lambda: False,
) -> Image.Image:
    """Draws the image of a scene, or a draft of it.

    Args:
        draft: asks the network at five steps only, see `Preview`; a chosen sampler takes five steps.
        is_old: asked after each step; ends the drawing where it is true.
    """

    def step(*_: Any) -> None:
        if is_old():
            raise StoppedError

    options = settings.given(model)
    preview = preview_options(model, settings.scheduler) if draft and settings.sampler is None else None
    if preview is not None:
        options = {**options, "scheduler": None, **preview}
    elif draft:
        steps = min(DRAFT, options.get("num_inference_steps", model.defaults.num_inference_steps))
        options |= {"num_inference_steps": steps, "guidance": "attributes", "guidance_scale": 1.0}
    generator = torch.Generator().manual_seed(settings.seed)
    composer = Composer(compose_scene(scene, model, settings))
    options |= {"report": lambda _: None}  # the line below the image says what `beyond` finds
    return composer.sample(generator=generator, callback_on_step_end=step, progress=False, **options)[0]


def settings_of(seed: Any, steps: Any, method: str, scene: Draft, canvas: str | None = None) -> Settings:
    """Reads what is chosen on the page, where one field lists schedulers and samplers; "or" has its sampler."""
    if method not in (PLAIN, *SCHEDULERS):
        return Settings(seed, steps, method, canvas=canvas)
    if len(scene.alternatives) > 1:
        return Settings(seed, steps, OR, canvas=canvas)
    return Settings(seed, steps, scheduler=None if method == PLAIN else method, canvas=canvas)


def frame_image(image: Image.Image, model: Model, settings: Settings) -> Image.Image:
    """An image as the command line writes it."""
    wide = settings.size is not None
    return framed(image, model.defaults.aspect, side=SIDE) if wide else model.shown(image, side=SIDE)


def read_address(address: str, known: Collection[str]) -> Mapping[str, Any] | None:
    """Reads the model, scene and settings behind # of the address; None for anything but a known model's."""
    try:
        kept = json.loads(unquote(address))
        scene = scene_of(kept)
        settings_of(kept["seed"], kept["steps"], kept["sampler"], scene, kept.get("canvas"))
    except (ValueError, KeyError, TypeError, RecursionError, EnergycompError):
        return None
    return {**kept, "scene": scene} if kept.get("model") in known and kept["sampler"] in methods() else None


def methods() -> list[str]:
    """The entries of the field "Sampler"."""
    return [PLAIN, *SCHEDULERS, *(name for name in names("samplers") if name != "scheduler")]
