"""How a model is sampled where a person says nothing: one frozen value, which its leaves hold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs

STEPS = 50  # where nothing says how many


@attrs.frozen
class SamplingDefaults:
    """What `Composer.sample` takes where it is given nothing. Two are equal if all fields are.

    Args:
        scheduler: name of a diffusers scheduler, see `make_scheduler`; without effect where there is a sampler.
        sampler: registered name; None for the loop of the scheduler.
        num_inference_steps: steps.
        guidance: registered name; None for none.
        guidance_scale: of the guidance.
        prior: what draws what components leave open, see `prior_of`; None for none.

    >>> SamplingDefaults(guidance="rescaled", guidance_scale=7.5).options()["guidance_scale"]
    7.5
    """

    scheduler: str | None = None
    sampler: str | None = None
    num_inference_steps: int = STEPS
    guidance: str | None = None
    guidance_scale: float | None = None
    prior: Any = None

    def options(self) -> dict[str, Any]:
        """As keywords of `Composer.sample`."""
        method = {"scheduler": self.scheduler} if self.sampler is None else {"sampler": self.sampler}
        guidance = {"guidance": self.guidance, "guidance_scale": self.guidance_scale}
        drawn = {} if self.prior is None else {"prior": self.prior}
        steps = {"num_inference_steps": self.num_inference_steps}
        return {**method, **steps, **(guidance if self.guidance else {}), **drawn}


def agreed(values: Iterable[SamplingDefaults]) -> SamplingDefaults:
    """The value that all are; that of no model where there is none, or where two differ."""
    different = set(values)
    return different.pop() if len(different) == 1 else SamplingDefaults()
