"""Moving pictures: frames drawn from a script of places."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energycomp.components import Conditioner, ability, prior_of
from energycomp.denoisers import Conditional
from energycomp.errors import InputError
from energycomp.fields import is_whole
from energycomp.models import Model, model_of
from energycomp.sampling import Composer
from energycomp.seeds import as_seed, derived_seed
from energycomp_clevr.codes import CUBE, QUARTER, SHAPE, SIZE, TURN
from energycomp_clevr.seen import check_viewpoint
from energycomp_clevr.viewpoint import AXES, HOME, Viewpoint
from energycomp_datasets.clevr.geometry import project, unproject
from energycomp_datasets.clevr.scenes import SIZES

ARROW = "->"
MOST = 1_000  # frames
SIDE = 320  # px


def film(
    model: Model | str | Path,
    script: Sequence[str],
    *,
    frames: int = 16,
    camera: str | None = None,
    generator: int = 0,
    **options: Any,
) -> list[Image.Image]:
    """Frames in which objects move from place to place. Costs what as many samples cost.

    All frames start from the same noise, and the sampler adds the same to each, so that what does not move stays as it
    is. Colours and materials that are left open may change between frames. Cubes slide without turning: what a text
    says of a turn holds at the first of its places, as the usual camera sees it.

    Args:
        script: objects with key places, which take equal times: "red cube at 0.2,0.5 -> 0.7,0.5". An object without an
            arrow stays where it is, and one without a place is given one. An object or the camera has to move.
        camera: key offsets of the camera in scene units, right, up and forward, from where it sees the places of the
            script: "0,0,0 -> 1,0,0". The model must take `energycomp_clevr.viewpoint.Viewpoint`, as `clevr` does.

    Raises:
        InputError: no object; nothing that moves; a text, a place or an offset that is none; another number of frames;
            or a model that takes no such texts.

    >>> from energycomp import load
    >>> script = ["red cube at 0.2,0.5 -> 0.7,0.5"]
    >>> frames = film(load("clevr-small"), script, frames=2, num_inference_steps=2, progress=False)
    >>> len(frames), frames[0].size
    (2, (480, 320))
    """
    model = model_of(model)
    seed = as_seed(generator)
    own = model.conditioner
    read, place = ability(own, "read"), ability(own, "placed")
    if read is None or place is None:
        raise InputError(f"got the model {model.name}, which reads no objects; expected one that does, such as clevr")
    if not is_whole(frames) or not 2 <= frames <= MOST or not script:
        raise InputError(f"got {len(script)} objects and frames={frames}; expected at least 1, and from 2 to {MOST:,}")
    if camera is None and not any(ARROW in text for text in script):
        raise InputError(
            f"got {'; '.join(script)}, of which nothing moves; expected where an object goes, such as "
            f"'red cube at 0.2,0.5 {ARROW} 0.7,0.5', or a path of the camera, such as '0,0,0 {ARROW} 1,0,0'; "
            "energycomp sample draws one image"
        )
    offsets = None
    if camera is not None:
        check_viewpoint(model)
        offsets = interpolate(camera, frames, 3)
    # A component for each object, with a value for each frame
    heads = place([text.split(ARROW)[0].strip() for text in script], torch.Generator().manual_seed(seed))
    leaves = []
    for number, (text, head) in enumerate(zip(script, heads, strict=True)):
        values = _draw_outline(model.conditioner, read(head), derived_seed(seed, number)).repeat(frames, 1)
        _, arrow, keys = text.partition(ARROW)
        if arrow:
            values[:, :2] = interpolate(f"{values[0, 0]},{values[0, 1]} {ARROW} {keys}", frames, 2)
        values = _face(values, torch.zeros(frames, 3) if offsets is None else offsets)
        if offsets is not None:
            values[:, :2] = _see(values, offsets)
        if not bool(own.support.check(values).all()):
            raise InputError(f"got {text!r} with a place outside of the image; expected numbers in [0, 1]")
        leaves.append(model.leaf(values, name=text))
    # The camera is one more
    if offsets is not None:
        view = Viewpoint(model.denoiser.token_shape)
        condition = view(torch.cat([view.parse(camera=offset) for offset in offsets.tolist()]))
        leaves.append(Conditional(model.denoiser, condition, name="camera"))
    # All frames from the same noise
    images = Composer(leaves).sample(frames, generator=[seed] * frames, **options)
    return [model.shown(image, side=SIDE) for image in images]


def _draw_outline(conditioner: Conditioner, values: Tensor, seed: int) -> Tensor:
    """Values (1, V) with what shapes an outline drawn once for all frames, where the model draws it."""
    prior = prior_of(conditioner)
    return values if prior is None else prior.draw_open(values, torch.Generator().manual_seed(seed))


def _points(values: Tensor) -> Tensor:
    """Where the objects of values (F, V) stand in scene units, (F, 3), seen by the usual camera."""
    heights = torch.where(values[:, SIZE] == 1, SIZES["small"], SIZES["large"])
    return unproject(values[:, :2], heights, torch.tensor(HOME))


def _cameras(offsets: Tensor) -> Tensor:
    """Where a camera with offsets (F, 3) stands, in scene units."""
    return torch.tensor(HOME) + offsets @ torch.tensor(AXES)


def _see(values: Tensor, offsets: Tensor) -> Tensor:
    """Where a camera that is moved (F, 3) sees what the usual one sees at places of values (F, V), (F, 2)."""
    cameras = _cameras(offsets)
    return torch.stack([project(point, camera) for point, camera in zip(_points(values), cameras, strict=True)])


def _face(values: Tensor, offsets: Tensor) -> Tensor:
    """Values (F, V) of one object whose turn is that of the first place for the usual camera, and does not change."""
    if values.shape[1] <= TURN or values[0, TURN] == 0 or values[0, SHAPE] != CUBE:
        return values
    points = _points(values)
    sight = points - _cameras(offsets)
    first = points[0] - torch.tensor(HOME)
    angle = (torch.atan2(first[1], first[0]) - torch.atan2(sight[:, 1], sight[:, 0])).rad2deg()
    turns = (values[:, TURN] - 1 + angle).round() % QUARTER
    return torch.cat([values[:, :TURN], 1 + turns[:, None]], dim=1)


def interpolate(text: str, frames: int, numbers: int) -> Tensor:
    """Key places, evenly in time and with straight lines between them, (frames, numbers).

    >>> interpolate("0,0.5 -> 0.5,0.5 -> 0.5,1", 5, 2).tolist()
    [[0.0, 0.5], [0.25, 0.5], [0.5, 0.5], [0.5, 0.75], [0.5, 1.0]]
    """
    try:
        known = torch.tensor([[float(one) for one in re.split(r"[,\s]+", key.strip())] for key in text.split(ARROW)])
    except ValueError:
        known = torch.empty(0)
    if known.ndim != 2 or known.shape[1] != numbers or not bool(known.isfinite().all()):
        example = f" {ARROW} ".join([",".join(["0.2"] * numbers), ",".join(["0.5"] * numbers)])
        raise InputError(f"got {text!r}; expected {numbers} numbers, and arrows between such places, as {example}")
    at = np.linspace(0, len(known) - 1, frames)
    columns = [np.interp(at, np.arange(len(known)), column) for column in known.T.numpy()]
    return torch.from_numpy(np.stack(columns, axis=1)).float()
