"""Scenes that are larger than the images of a model: described objects on a canvas of windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.components import Composition, Condition, combine, crop
from energycomp.denoisers import Conditional
from energycomp.errors import InputError
from energycomp.models import Model
from energycomp_samplers import Canvas

MOST = 4_000_000  # pixels of a canvas
MARGIN = 0.1  # of a window; objects nearer to its edge are those of its neighbours


def canvas_of(model: Model, size: tuple[int, int]) -> Canvas:
    """A canvas (height, width) of windows of the model's size, which overlap by half, over the model's u."""
    channels, *own = model.denoiser.sample_shape
    least = model.processor.size
    step = least[0] // own[0]  # px of a latent
    if any(side < most or side % step for side, most in zip(size, least, strict=True)):
        got = f"got a canvas of {size[1]}x{size[0]} px for {model.name} of {least[1]}x{least[0]} px"
        steps = f", in steps of {step} px" if step > 1 else ""
        raise InputError(f"{got}; expected at least that size{steps}")
    if size[0] * size[1] > MOST:
        raise InputError(f"got a canvas of {size[1]}x{size[0]} px; expected at most {MOST:,} pixels; make it smaller")
    height, width = (side // step for side in size)
    tops, lefts = _starts(height, own[0]), _starts(width, own[1])
    parts = [crop(top, left, own[0], own[1]) for top in tops for left in lefts]
    return Canvas((channels, height, width), parts, model.unconditional)


def _starts(side: int, part: int) -> list[int]:
    """Where windows begin: every half window, and at the end."""
    return [*range(0, side - part, part // 2), side - part]


def wide(
    model: Model, values: Tensor, weights: Sequence[float], size: tuple[int, int], view: Condition | None = None
) -> Composition:
    """Objects (K, *V), whose places (x, y) are shares of a canvas (height, width), as one composition.

    Each window has the objects whose places it holds, at their places in it, composed by the model's rule; windows are
    joined by the mean of their predictions (MultiDiffusion, Bar-Tal et al., 2023). Costs a network evaluation for each
    object and window that it is in, and one per window for u; and one for a view, which all windows share.
    """
    canvas = canvas_of(model, size)
    around = [] if view is None else [Conditional(model.denoiser, view, "surroundings")]
    _, height, width = canvas.sample_shape
    scenes = []
    for part in canvas.parts:
        (_, rows), (_, columns) = part.axes
        corner = torch.tensor([columns[0] / width, rows[0] / height])
        share = torch.tensor([len(columns) / width, len(rows) / height])
        places = (values[:, :2] - corner) / share
        least, most = MARGIN * (corner > 0), 1 - MARGIN * (corner + share < 1 - 1e-6)  # the canvas's edges are no seams
        inside = ((places >= least) & (places <= most)).all(1).nonzero()[:, 0].tolist()
        moved = torch.cat([places, values[:, 2:]], dim=1)
        leaves = [weights[k] * model.leaf(moved[k : k + 1]) for k in inside]
        scenes.append(combine([*leaves, *around, model.unconditional], "product"))
    return canvas.join(scenes)
