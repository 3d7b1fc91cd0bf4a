"""Rooms with one to three lit solids on the floor, as in ObjectsRoom, rendered from back to front, with masks."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from energycomp.errors import InputError

SIZE = 32
MOST = 3  # solids
WIDTH = (0.14, 0.18)  # half the width of a solid in front, over the image's side
NEAR, FAR, SHRINK = 0.94, 0.6, 0.7  # y of the foot in front and at the wall, and how small a solid is there
EDGE = 0.03  # least distance of a solid from the left and right borders
GAP = 0.7  # least distance across of two solids over the sum of half their widths
HORIZON = (0.42, 0.52)  # y of the wall's lower edge
CORNER = (0.12, 0.3)  # how far the corner is from the side
SLOPE = 0.6  # of the side wall's lower edge
MUTED, VIVID = ((0.15, 0.45), (0.35, 0.7)), ((0.75, 1.0), (0.8, 1.0))  # saturation and value
LIGHT = (-0.5, -0.55, 0.67)  # where it comes from: left, above, in front
SHADOW = 0.45  # of the floor's brightness under a solid
GLOSS = 0.6


def layout(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """What a room (9,) and its solids (3, 8), the farthest first, are drawn from.

    The numbers of a room: colours of wall and floor; y of the wall's lower edge; x of the corner with a side wall; 1
    where that is on the left, -1 on the right, 0 without one. Those of a solid: index in `SOLIDS`, x of its middle, y
    of its foot, half its width, red, green, blue, and 1; zeros stand for solids that are not there.
    """
    if not 0 <= count <= MOST:
        raise InputError(f"got {count} solids; expected 0 to {MOST}, which find room without hiding each other")
    side = int(rng.integers(-1, 2))
    from_side = rng.uniform(*CORNER)
    room = [*_colours(rng, 2, *MUTED).flatten(), rng.uniform(*HORIZON), from_side if side >= 0 else 1 - from_side, side]
    solids = np.zeros((MOST, 8))
    depth = -np.sort(-rng.random(count))
    half = rng.uniform(*WIDTH, count) * (1 - (1 - SHRINK) * depth)
    foot = NEAR + (FAR - NEAR) * depth
    kinds = rng.integers(len(SOLIDS), size=count)
    solids[:count] = np.column_stack(
        [kinds, _across(rng, half), foot, half, _colours(rng, count, *VIVID), np.ones(count)]
    )
    return np.asarray(room), solids


def render(rooms: Tensor, solids: Tensor, *, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Images (B, 3, size, size) in [-1, 1] of rooms (B, 9) and solids (B, K, 8), and masks (B, K, size, size), bool.

    A mask holds the pixels of which a solid shows more than half.
    """
    rooms, solids = rooms.float(), solids.float()
    axis = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    images = _ground(rooms, u, v)
    shown = torch.zeros(len(solids), solids.shape[1], size, size)
    for k in range(solids.shape[1]):
        kinds, across, foot, half, *_, there = solids[:, k, :, None, None].unbind(1)
        half = half.clamp(min=1e-3)
        x, y = (u - across) / half, (foot - v) / half  # from the foot, to the right and upwards, in half widths
        under = (1 - torch.hypot(x, y / 0.3)).clamp(0, 1) * (1 - SHADOW) * there
        images = (images + 1) * (1 - under[:, None]) - 1
        distance, shade, gloss = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x)
        for number, draw in enumerate(SOLIDS.values()):
            chosen = kinds[:, 0, 0].long() == number
            distance[chosen], shade[chosen], gloss[chosen] = draw(x[chosen], y[chosen])
        inside = (0.5 - distance * half * size).clamp(0, 1) * there
        paint = (solids[:, k, 4:7, None, None] + 1) * shade[:, None] - 1
        paint = torch.lerp(paint, torch.ones(()), gloss[:, None])
        images = torch.lerp(images, paint, inside[:, None])
        shown[:, :k] *= 1 - inside[:, None]
        shown[:, k] = inside
    return images, shown > 0.5


def _colours(
    rng: np.random.Generator, count: int, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    """Colours (count, 3) in [-1, 1] of any hue."""
    drawn = zip(rng.random(count), rng.uniform(*saturation, count), rng.uniform(*value, count), strict=True)
    return np.array([colorsys.hsv_to_rgb(*numbers) for numbers in drawn]).reshape(count, 3) * 2 - 1


def _across(rng: np.random.Generator, half: np.ndarray) -> np.ndarray:
    """Middles (K,) of solids that hide at most a part of each other."""
    apart = GAP * (half[:, None] + half)
    while True:
        middles = rng.uniform(EDGE + half, 1 - EDGE - half)
        if (np.abs(middles[:, None] - middles) >= apart)[~np.eye(len(half), dtype=bool)].all():
            return middles


def _ground(rooms: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Wall, a side wall that is darker, and a floor that is brighter in front, (B, 3, H, W)."""
    size = len(u)
    horizon, corner, side = rooms[:, 6:, None, None].unbind(1)
    wall = rooms[:, :3, None, None]
    floor = rooms[:, 3:6, None, None]
    beyond = (corner - u) * side  # how far on the side wall's side of the corner
    edge = horizon + SLOPE * beyond.clamp(min=0)
    on_side = ((beyond * size + 0.5).clamp(0, 1) * side.abs())[:, None]
    on_floor = ((v - edge) * size + 0.5).clamp(0, 1)[:, None]
    walls = torch.lerp(wall, (wall + 1) * 0.75 - 1, on_side)
    return torch.lerp(walls, (floor + 1) * (0.8 + 0.3 * v) - 1, on_floor).clamp(-1, 1)


def _shade(x: Tensor, y: Tensor) -> Tensor:
    """Brightness (B, H, W) of a surface that faces (x, y) to the right and up, and for the rest the viewer."""
    z = (1 - x**2 - y**2).clamp(min=0).sqrt()
    return 0.45 + 0.55 * (x * LIGHT[0] - y * LIGHT[1] + z * LIGHT[2]).clamp(min=0)


def _sphere(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    up = y - 1
    gloss = GLOSS * torch.exp(-(torch.hypot(x + 0.35, up - 0.4) ** 2) / 0.05)
    return torch.hypot(x, up) - 1, _shade(x, up), gloss


def _box(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A front, and above and to the right of it what recedes by `back`."""
    height, right, back = 1.45, 0.5, 0.5
    front = _most(-1 - x, x - right, -y, y - height)
    side = _most(right - x, x - right - back, (x - right) - y, y - height - (x - right))
    top = _most(height - y, y - height - back, (y - height) - 1 - x, x - right - (y - height))
    distance = torch.minimum(front, torch.minimum(side, top))
    shade = torch.where(front <= distance, 0.85, torch.where(side <= distance, 0.5, 1.0))
    return distance, shade, torch.zeros_like(x)


def _cylinder(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    half, low, high, flat = 0.8, 0.25, 1.6, 0.25
    body = _most(x.abs() - half, low - y, y - high)
    lid = _ellipse(x, y - high, half, flat)
    distance = torch.minimum(torch.minimum(body, lid), _ellipse(x, y - low, half, flat))
    return (
        distance,
        torch.where(lid < 0, 1.0, _shade((x / half).clamp(-1, 1), torch.zeros_like(x))),
        torch.zeros_like(x),
    )


def _cone(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    half, low, high, flat = 0.9, 0.25, 2.2, 0.25
    slope = half / (high - low)
    body = _most((x.abs() - (high - y) * slope) / np.hypot(1, slope), low - y)
    width = ((high - y) * slope).clamp(0.05, half)
    shade = _shade((x / width).clamp(-1, 1) * 0.95, torch.full_like(x, 0.3))
    return torch.minimum(body, _ellipse(x, y - low, half, flat)), shade, torch.zeros_like(x)


def _most(*distances: Tensor) -> Tensor:
    """Signed distance from what all of these have in common, exact but at corners."""
    return torch.stack(distances).amax(0)


def _ellipse(x: Tensor, y: Tensor, half: float, flat: float) -> Tensor:
    return (torch.hypot(x / half, y / flat) - 1) * flat


# Signed distance from the edge, brightness and gloss at (x, y) from the foot, to the right and up, in half widths.
SOLIDS: Mapping[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]] = {
    "sphere": _sphere,
    "box": _box,
    "cylinder": _cylinder,
    "cone": _cone,
}
