"""What a figure or an output of a page was made with: a stamp that `tests/test_pages.py` compares with today's."""

from __future__ import annotations

from functools import cache

import energycomp
from energycomp.files import fingerprint


@cache
def made_with(name: str) -> str:
    """A model with 8 hex digits that other weights, noise schedules or numbers of steps change.

    >>> made_with("lit").startswith("made with lit ")
    True
    """
    model = energycomp.load(name)
    steps = f"{model.defaults.num_inference_steps} steps"
    return f"made with {name} {fingerprint({steps: model.denoiser.alphas_cumprod, **model.trained.state_dict()})[:8]}"
