"""Previews: the image of a sampler, of which the network is asked at few steps only."""

from __future__ import annotations

from typing import Any

import attrs
from torch import Tensor

from energycomp.components import PredictionType, convert
from energycomp.models import Model
from energycomp.sampling import Run, SchedulerSampler, Steps, Target

ASKED = (0.0, 0.15, 0.35, 0.6, 0.85)  # shares of the trajectory at which the network is asked


@attrs.frozen
class Preview:
    """All steps of a scheduler, with its noise, of which five ask the network; between them its x0 is kept.

    The noise of a step is that of the whole run with the same seed. What a scene leaves open, such as the colour of an
    object, is therefore mostly what that run makes of it. A run of five steps would draw other noise.
    """

    scheduler: Any = None

    def start(self, run: Run, /) -> Steps:
        """The steps of the scheduler, over what it holds."""
        held: Any = _Held(run.target)
        return SchedulerSampler(self.scheduler).start(attrs.evolve(run, target=held))


@attrs.define(eq=False)
class _Held:
    """A target that asks another one at the shares `ASKED`, and keeps its x0 until the next of them."""

    target: Target
    asked: int = 0
    x0: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)

    def compose(self, sample: Tensor, timestep: Tensor, *, prediction_type: PredictionType = "epsilon") -> Tensor:
        """As `Target.compose`."""
        space = self.target.noised_space
        share = 1.0 - (float(timestep[0]) + 1.0) / len(space.alphas_cumprod)
        if self.x0 is None or (self.asked < len(ASKED) and share >= ASKED[self.asked] - 1e-6):
            self.x0 = self.target.compose(sample, timestep, prediction_type="sample")
            self.asked += 1
        return convert(self.x0, sample, *space.levels(timestep, sample.dtype), source="sample", target=prediction_type)


def preview_options(model: Model, scheduler: str | None) -> dict[str, Any] | None:
    """Makes keywords of `Composer.sample` for a preview; None for a model with a sampler, unless told a scheduler."""
    own = model.sampling()
    if scheduler is None and "sampler" in own:
        return None
    guided: dict[str, Any] = {name: own[name] for name in ("guidance", "guidance_scale") if name in own}
    return {"sampler": Preview(scheduler or own["scheduler"]), **guided}
