"""Arrow Room: an arrow in front points at the one of three objects whose shape is unique (thesis section 3.4)."""

from __future__ import annotations

from typing import cast

import attrs
import numpy as np
import torch
from torch import Tensor

from energycomp_datasets.shapes.shapes import DISTANCES

SIZE = 32
SHAPES = ("circle", "triangle", "cross")
PLACES = ((0.17, 0.27), (0.5, 0.27), (0.83, 0.27))  # (x, y) in [0, 1], about which the objects stand
FRONT = (0.5, 0.76)  # about which the arrow stands
RADIUS = (3.8, 4.4)  # px of 32, of the circle around an object
# Objects move independently, as far as there is room: a model without labels cannot discover what never moves.
JITTER = ((0.035, 0.1), (0.035, 0.1), (0.035, 0.1), (0.03, 0.04))
PALETTE = (
    (0.9, -0.6, -0.6),
    (-0.6, 0.75, -0.5),
    (-0.4, -0.2, 0.95),
    (0.95, 0.85, -0.6),
    (0.9, -0.3, 0.85),
    (0.9, 0.9, 0.9),
)
SHADE = 0.08
WALL = (-0.75, -0.72, -0.66)
FLOOR = (-0.55, -0.58, -0.62)
HORIZON = 0.55
LENGTH = 0.18  # half the arrow's
SHAFT = 0.045  # half its width
HEAD = (0.13, 0.14)  # half the width of the head, and its length


@attrs.frozen(eq=False)
class ArrowRooms:
    """Images (B, 3, H, W) in [-1, 1], masks (B, 4, H, W) of three objects and the arrow, and their labels.

    `shapes` are the index of each object's shape, (B, 3), `target` says at which of them the arrow points, (B,).
    """

    images: Tensor
    masks: Tensor
    shapes: Tensor
    target: Tensor

    @property
    def right(self) -> Tensor:
        """Whether the arrow points at the one object whose shape is unique, (B,) bool."""
        return points_at_odd(self.shapes, self.target)


def points_at_odd(shapes: Tensor, target: Tensor) -> Tensor:
    """Whether exactly one of the shapes (B, 3) is unlike the others, and is the target (B,)."""
    odd = (shapes[:, :, None] == shapes[:, None]).sum(2) == 1
    pointed: Tensor = odd.gather(1, target[:, None])[:, 0]
    return pointed & (odd.sum(1) == 1)


def arrow_rooms(rng: np.random.Generator, count: int, *, size: int = SIZE) -> ArrowRooms:
    """Rooms as they should be: two objects of one shape, one of another, and the arrow points at that."""
    target = rng.integers(3, size=count)
    common = rng.integers(len(SHAPES), size=count)
    unique = (common + rng.integers(1, len(SHAPES), size=count)) % len(SHAPES)
    shapes = np.where(np.arange(3) == target[:, None], unique[:, None], common[:, None])
    return render(layout(rng, shapes, target), size=size)


def layout(rng: np.random.Generator, shapes: np.ndarray, target: np.ndarray) -> Tensor:
    """What rooms are drawn from, (B, 4, 8): three objects and the arrow.

    The numbers of an object: index of its shape (of the arrow: of the object that it points at), x, y, radius over the
    image's side, red, green, blue, and 1 (0 leaves it out).
    """
    count = len(shapes)
    kind = np.column_stack([shapes, target])
    places = np.asarray([*PLACES, FRONT]) + np.asarray(JITTER) * rng.uniform(-1, 1, (count, 4, 2))
    radius = rng.uniform(*RADIUS, (count, 4)) / SIZE
    colours = np.asarray(PALETTE)[rng.integers(len(PALETTE), size=(count, 4))]
    colours = np.clip(colours + rng.uniform(-SHADE, SHADE, (count, 4, 3)), -1, 1)
    numbers = [kind[..., None], places, radius[..., None], colours, np.ones((count, 4, 1))]
    return torch.from_numpy(np.concatenate(numbers, axis=2)).float()


def render(objects: Tensor, *, size: int = SIZE) -> ArrowRooms:
    """Rooms (B, ...) of what `layout` makes, (B, 4, 8)."""
    count = len(objects)
    axis = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    ground = torch.lerp(
        torch.tensor(WALL)[:, None, None], torch.tensor(FLOOR)[:, None, None], ((v - HORIZON) * size + 0.5).clamp(0, 1)
    )
    images = ground.expand(count, 3, size, size).clone()
    shown = torch.zeros(count, 4, size, size)
    kinds, x, y, radius, *colour, there = objects.unbind(2)
    kinds = kinds.long()
    for k in range(4):
        dx, dy = u - x[:, k, None, None], v - y[:, k, None, None]
        if k == 3:
            aim = kinds[:, 3, None]
            distance = _arrow(dx, dy, x[:, :3].gather(1, aim)[:, 0] - x[:, 3], y[:, :3].gather(1, aim)[:, 0] - y[:, 3])
        else:
            distance = torch.zeros(count, size, size)
            for number, name in enumerate(SHAPES):
                chosen = kinds[:, k] == number
                r = radius[chosen, k, None, None]
                distance[chosen] = DISTANCES[name](dx[chosen] / r, dy[chosen] / r) * r
        inside = (0.5 - distance * size).clamp(0, 1) * there[:, k, None, None]
        paint = torch.stack([channel[:, k] for channel in colour], 1)[..., None, None]
        images = torch.lerp(images, paint, inside[:, None])
        shown[:, :k] *= 1 - inside[:, None]
        shown[:, k] = inside
    return ArrowRooms(images, shown > 0.5, kinds[:, :3], kinds[:, 3])


def _arrow(dx: Tensor, dy: Tensor, to_x: Tensor, to_y: Tensor) -> Tensor:
    """Signed distance (B, H, W) from an arrow about the origin that points along (to_x, to_y), (B,)."""
    norm = torch.hypot(to_x, to_y)
    ax, ay = (to_x / norm)[:, None, None], (to_y / norm)[:, None, None]
    along = dx * ax + dy * ay
    across = (dy * ax - dx * ay).abs()
    half_width, length = HEAD
    neck = LENGTH - length
    shaft = torch.maximum(torch.maximum(-LENGTH - along, along - neck), across - SHAFT)
    slope = cast("float", np.hypot(half_width, length))
    side = (across * length + (along - LENGTH) * half_width) / slope
    head = torch.maximum(side, neck - along)
    return torch.minimum(shaft, head)
