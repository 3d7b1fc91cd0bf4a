"""How a scene is sampled: seed, steps, sampler and canvas."""

from __future__ import annotations

import re
from typing import Any

import attrs

from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Model

MAX_STEPS = 1_000


def _or_none(text: str | None) -> str | None:
    return text or None


@attrs.frozen
class Settings:
    """How a scene is sampled.

    Args:
        seed: of the random numbers.
        steps: num_inference_steps; None for those of the model.
        sampler: a registered sampler; None for a scheduler.
        scheduler: of diffusers, where there is no sampler; None for that of the model.
        canvas: WIDTHxHEIGHT in pixels of an image that is larger than those of the model; None for theirs.
    """

    seed: int = attrs.field(default=0)
    steps: int | None = attrs.field(default=None)
    sampler: str | None = None
    scheduler: str | None = None
    canvas: str | None = attrs.field(default=None, converter=_or_none)

    @seed.validator
    def _check_seed(self, _: Any, seed: Any) -> None:
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise InputError(f"got the seed {seed!r}; expected a whole number of at least 0, such as 0")

    @steps.validator
    def _check_steps(self, _: Any, steps: Any) -> None:
        if steps is not None and (type(steps) is not int or not 1 <= steps <= MAX_STEPS):
            raise InputError(f"got {steps!r} steps; expected 1 to {MAX_STEPS:,}, or nothing for those of the model")

    @canvas.validator
    def _check_canvas(self, _: Any, canvas: Any) -> None:
        if canvas is not None and not (isinstance(canvas, str) and re.fullmatch(r"[0-9]{1,5}x[0-9]{1,5}", canvas)):
            raise InputError(f"got the canvas {canvas!r}; expected WIDTHxHEIGHT in pixels, such as 384x128, or nothing")

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the canvas."""
        return None if self.canvas is None else tuple(map(int, reversed(self.canvas.split("x"))))  # type: ignore[return-value]

    def aspect(self, model: Model) -> float:
        """Width over height of the image as people see it."""
        own = model.processor.size if isinstance(model.processor, ImageProcessor) else (1, 1)
        height, width = self.size or own
        return model.defaults.aspect * width / height

    def given(self, model: Model) -> dict[str, Any]:
        """What is not as the model has it, as keywords of `Composer.sample`."""
        own = model.defaults.num_inference_steps
        steps = None if self.steps == own else self.steps
        chosen = {"num_inference_steps": steps, "sampler": self.sampler, "scheduler": self.scheduler}
        return {name: option for name, option in chosen.items() if option is not None}
