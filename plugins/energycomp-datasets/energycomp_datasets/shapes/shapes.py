"""Coloured shapes on a dark ground, rendered with smooth edges, with the mask and the parameters of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs
import numpy as np
import torch
from torch import Tensor

from energycomp.errors import InputError

SIZE = 32
GROUND = (-0.80, -0.78, -0.72)  # red, green, blue of every world, so that parts of one fit into another
RADIUS = (4.5, 6.0)  # px, of the circle around a shape
GAP = 0.85  # least distance of two centres over the sum of their radii
SHADE = 0.08  # colours differ by as much from those of their palette
TRIES = 200


@attrs.frozen
class World:
    """What the objects of one kind of image are: shapes by name, and colours (red, green, blue) in [-1, 1]."""

    shapes: tuple[str, ...]
    palette: tuple[tuple[float, float, float], ...]


WORLDS: Mapping[str, World] = {
    "a": World(
        ("circle", "square", "triangle"),
        ((0.9, -0.6, -0.6), (-0.6, 0.75, -0.5), (-0.5, -0.3, 0.95), (0.95, 0.85, -0.6)),
    ),
    "b": World(
        ("cross", "ring", "star"),
        ((0.95, 0.2, -0.75), (-0.6, 0.85, 0.9), (0.85, -0.45, 0.9), (0.9, 0.9, 0.9)),
    ),
}


@attrs.frozen(eq=False)
class ShapesScene:
    """One image (3, H, W) in [-1, 1], the masks (K, H, W) of its objects, and what each was drawn from (K, 7).

    The numbers of an object: the index of its shape; x and y of its centre, in [0, 1]; the radius over the image's
    side; red, green and blue in [-1, 1].
    """

    image: Tensor
    masks: Tensor
    factors: Tensor


def scene(rng: np.random.Generator, count: int, *, world: str = "a", size: int = SIZE) -> ShapesScene:
    """An image with `count` objects that hardly overlap."""
    objects = layout(rng, count, world=world)[None]
    images, masks = render(torch.from_numpy(objects).float(), world=world, size=size)
    return ShapesScene(images[0], masks[0], torch.from_numpy(objects[0]).float())


def layout(rng: np.random.Generator, count: int, *, world: str = "a") -> np.ndarray:
    """What `count` objects are drawn from, (count, 7): the numbers of `ShapesScene.factors`."""
    if world not in WORLDS:
        raise InputError(f"got the world {world!r}; expected one of {', '.join(WORLDS)}")
    if not 0 <= count <= 5:
        raise InputError(f"got {count} objects; expected 0 to 5, which find room without hiding each other")
    kind = WORLDS[world]
    radius = rng.uniform(*RADIUS, count) / SIZE
    shape, colour = rng.integers(len(kind.shapes), size=count), rng.integers(len(kind.palette), size=count)
    shade = rng.uniform(-SHADE, SHADE, (count, 3))
    colours = np.clip(np.asarray(kind.palette)[colour] + shade, -1, 1)
    return np.column_stack([shape, _places(rng, radius), radius, colours])


def _places(rng: np.random.Generator, radius: np.ndarray) -> np.ndarray:
    """Centres (K, 2) inside the image, all tried anew where the last finds no room."""
    while True:
        places: list[np.ndarray] = []
        for r in radius:
            for _ in range(TRIES):
                place = rng.uniform(r, 1 - r, 2)
                room = GAP * (radius[: len(places)] + r)
                if not places or bool((np.hypot(*(np.stack(places) - place).T) >= room).all()):
                    places.append(place)
                    break
        if len(places) == len(radius):
            return np.stack(places) if places else np.zeros((0, 2))


def render(objects: Tensor, *, world: str = "a", size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, size, size) in [-1, 1] of objects (B, K, 7), and their masks (B, K, size, size), bool.

    An edge covers the share of a pixel that lies inside. A mask holds the pixels of which an object shows more than
    half; where two touch, the later one is in front.
    """
    objects = objects.float()
    batch, count = objects.shape[:2]
    axis = (torch.arange(size) + 0.5) / size
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    images = torch.tensor(GROUND)[:, None, None].expand(batch, 3, size, size).clone()
    shown = torch.zeros(batch, count, size, size)
    for k in range(count):
        index, x, y, radius, *colour = objects[:, k].unbind(1)
        dx, dy = (u - x[:, None, None]) / radius[:, None, None], (v - y[:, None, None]) / radius[:, None, None]
        inside = torch.zeros(batch, size, size)
        for number, name in enumerate(WORLDS[world].shapes):
            chosen = index.long() == number
            distance = DISTANCES[name](dx[chosen], dy[chosen]) * radius[chosen, None, None] * size
            inside[chosen] = (0.5 - distance).clamp(0, 1)
        images = torch.lerp(images, torch.stack(colour, 1)[..., None, None], inside[:, None])
        shown[:, :k] *= 1 - inside[:, None]
        shown[:, k] = inside
    return images, shown > 0.5


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(torch.maximum(0.866 * x - 0.5 * y, -0.866 * x - 0.5 * y), y) - 0.55


def _cross(x: Tensor, y: Tensor) -> Tensor:
    x, y = x.abs(), y.abs()
    along, across = torch.maximum(x, y), torch.minimum(x, y)
    return torch.maximum(along - 0.95, across - 0.32)


def _star(x: Tensor, y: Tensor) -> Tensor:
    wave = torch.cos(5 * torch.atan2(y, x))
    return (torch.hypot(x, y) - (0.68 + 0.3 * wave)) * 0.7


# Signed distances from the edge, in units of the radius of the circle around a shape, negative inside.
DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "circle": lambda x, y: torch.hypot(x, y) - 0.85,
    "square": lambda x, y: torch.maximum(x.abs(), y.abs()) - 0.72,
    "triangle": _triangle,
    "cross": _cross,
    "ring": lambda x, y: (torch.hypot(x, y) - 0.7).abs() - 0.25,
    "star": _star,
}
