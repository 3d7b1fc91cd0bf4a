"""A sketch of what a token says of an object, which the network of `clevr` sees.

Where the edges of a cube fall in the image follows from its place, its size and its turn by geometry alone. A network
would have to learn that from examples. The sketch says it: for each of 4x4 points of a grid cell, whether the object is
met there, and where its surface faces. It is empty where the size or the shape is open, or the turn of a cube.

Rays are those of CLEVR's usual camera, unless another one is given. The heads of the network see those of the usual
one: how far the camera of a scene stands from there is for them to learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from energycomp.denoisers import Cells
from energycomp_clevr.codes import ATTRIBUTES, CUBE
from energycomp_clevr.viewpoint import AXES, HOME

POINTS = 4  # along the side of a grid cell
SKETCHED = 4 * POINTS**2  # maps: how surely each point is inside, and its normal
HALF = (240 / 525, 160 / 525)  # tangents of half the horizontal and half the vertical field of view
SMALL, LARGE = 0.35, 0.7  # half extents in scene units
SOFT = 0.05  # half extents over which the edge of a silhouette fades: its gradient moves places
_WORDS = [1 if len(words) == 2 else len(words) for words in ATTRIBUTES.values()]
_SIZE = 2  # columns of a token
_SHAPES = slice(2 + sum(_WORDS[:-1]), 2 + sum(_WORDS))  # a turn follows them


def sketch(token: Tensor, grid: Sequence[int] | Cells, camera: Tensor | None = None) -> Tensor:
    """The sketches (R, 64, h, w) of tokens (R, 17 or more) on cells: 16 points' insides, then three times 16 normals.

    Insides are in [0, 1]. Normals look right, up and towards the camera; they are 0 outside. The camera stands (3,)
    scene units to the right, up and forward of its usual place.
    """
    size = token[:, _SIZE]
    shapes = token[:, _SHAPES]
    turn = token[:, _SHAPES.stop : _SHAPES.stop + 2]
    turned = turn.square().sum(1) > 0
    cells = grid if isinstance(grid, Cells) else Cells.all(grid, token.device)
    eye = Eye.at(token.new_zeros(3) if camera is None else camera.to(token))
    rays = _rays(cells.divided(POINTS), eye)
    maps = token.new_zeros(len(token), 4, *rays.shape[-2:])
    for kind, hit in enumerate((_box, _ball, _drum)):
        said = (size != 0) & (shapes[:, kind] == 1)
        if kind + 1 == CUBE:
            said = said & turned
        rows = said.nonzero()[:, 0]
        if len(rows):
            extent = torch.where(size[rows] > 0, LARGE, SMALL)
            angle = torch.atan2(turn[rows, 1], turn[rows, 0]) / 4
            maps = maps.index_copy(
                0, rows, _seen(hit, token[rows, :2], extent, angle, eye, rays[rows] if len(rays) > 1 else rays)
            )
    return F.pixel_unshuffle(maps, POINTS)


def distances(token: Tensor, camera: Tensor | None = None) -> Tensor:
    """How far the objects of tokens (R, 17 or more) are from the camera, (R,), in scene units."""
    eye = Eye.at(token.new_zeros(3) if camera is None else camera.to(token))
    return _away(token[:, :2], torch.where(token[:, _SIZE] > 0, LARGE, SMALL), eye).norm(dim=1)


class Eye(NamedTuple):
    """Where a camera stands (3,), and its right, up and forward (3, 3), in the scene."""

    place: Tensor
    axes: Tensor

    @classmethod
    def at(cls, offset: Tensor) -> Eye:
        """The camera at an offset (3,) from the usual one, right, up and forward of it.

        >>> Eye.at(torch.zeros(3)).axes[2]
        tensor([-0.6641,  0.5780, -0.4741])
        """
        usual = torch.tensor(AXES).to(offset)
        place = torch.tensor(HOME).to(offset) + offset @ usual
        if not bool(offset.any()):
            return cls(place, usual)
        return cls(place, looking(place))


def looking(eye: Tensor) -> Tensor:
    """Right, up and forward (3, 3) of a camera at a place (3,) that looks at the origin.

    >>> looking(torch.tensor([0.0, -1.0, 0.0])).tolist()[2]
    [-0.0, 1.0, -0.0]
    """
    forward = F.normalize(-eye, dim=0)
    right = F.normalize(torch.stack([forward[1], -forward[0], torch.zeros_like(forward[0])]), dim=0)
    return torch.stack([right, torch.linalg.cross(right, forward), forward])


class _Frame(NamedTuple):
    """Rays in the frame of objects of unit half extent: where they begin (R, 3, 1, 1), where to (R, 3, H, W)."""

    origin: Tensor
    direction: Tensor


Hit = Callable[[_Frame], tuple[Tensor, Tensor]]


def _seen(hit: Hit, place: Tensor, extent: Tensor, angle: Tensor, eye: Eye, rays: Tensor) -> Tensor:
    """Insides and normals (R, 4, H, W) of objects of one shape, of which `hit` knows how rays meet it."""
    right, up, forward = eye.axes
    away = _away(place, extent, eye)
    # Turn 0 has a face that looks along the line of sight.
    heading = torch.atan2(away[:, 1], away[:, 0]) + angle
    cosine = heading.cos()
    sine = heading.sin()
    still = torch.zeros_like(heading)
    turning = torch.stack([cosine, sine, still, -sine, cosine, still, still, still, still + 1], 1).view(-1, 3, 3)
    local = turning / extent[:, None, None]
    directions = torch.einsum("rij,rjhw->rihw", local, rays)
    frame = _Frame(-(local @ away[..., None])[..., None], directions)
    depth, normal = hit(frame)
    inside = torch.sigmoid(depth / SOFT)
    axes = torch.stack([right, up, -forward]) @ turning.mT  # of the camera, as the object sees them
    facing = torch.einsum("rij,rjhw->rihw", axes, normal)
    return torch.cat([inside[:, None], facing * inside[:, None]], dim=1)


def _away(place: Tensor, extent: Tensor, eye: Eye) -> Tensor:
    """From the camera to the centre of objects (R, 3), which is as high as half their extent, on the ray through their
    place.
    """
    right, up, forward = eye.axes
    across = (2 * place[:, :1] - 1) * HALF[0]
    above = (1 - 2 * place[:, 1:]) * HALF[1]
    towards = forward + across * right + above * up
    distance = (extent - eye.place[2]) / towards[:, 2].clamp(max=-1e-3)
    return distance[:, None] * towards


def _box(rays: _Frame) -> tuple[Tensor, Tensor]:
    """How deep rays pass through a cube (R, H, W), below 0 beside it, and the normals where they meet it."""
    inverse = 1 / torch.where(rays.direction.abs() < 1e-6, 1e-6, rays.direction)
    enter, leave = -rays.origin * inverse - inverse.abs(), -rays.origin * inverse + inverse.abs()
    first, face = enter.max(1)
    normal = -F.one_hot(face, 3).movedim(-1, 1) * rays.direction.sign()
    return leave.amin(1) - first, normal


def _ball(rays: _Frame) -> tuple[Tensor, Tensor]:
    inside, at = _round(rays.origin, rays.direction)
    return inside, F.normalize(rays.origin + at[:, None] * rays.direction, dim=1)


def _drum(rays: _Frame) -> tuple[Tensor, Tensor]:
    origin, direction = rays
    inside, at = _round(origin[:, :2], direction[:, :2])
    down = direction[:, 2]
    lid = (1 - origin[:, 2]) / torch.where(down.abs() < 1e-6, -1e-6, down)
    bottom = (-1 - origin[:, 2]) / torch.where(down.abs() < 1e-6, -1e-6, down)
    # A ray that meets the plane of the lid inside of the circle meets the lid; others meet the side, or pass.
    far = 2 * _middle(origin[:, :2], direction[:, :2]) - at
    depth = torch.minimum(inside, torch.minimum(bottom, far) - torch.maximum(lid, at))
    side = F.normalize(origin[:, :2] + at[:, None] * direction[:, :2], dim=1)
    on_lid = (lid > at)[:, None]
    normal = torch.cat([torch.where(on_lid, 0, side), on_lid.to(side)], dim=1)
    return depth, normal


def _middle(origin: Tensor, direction: Tensor) -> Tensor:
    """Where along rays (R, D, H, W) they are nearest to the origin of the frame."""
    return -(origin * direction).sum(1) / direction.square().sum(1).clamp_min(1e-9)


def _round(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Half of 1 - d^2, d the distance at which rays pass the centre, and where they enter the unit circle or ball."""
    middle = _middle(origin, direction)
    beside = 1 - (origin + middle[:, None] * direction).square().sum(1)
    length = direction.square().sum(1).clamp_min(1e-9).sqrt()
    return beside / 2, middle - beside.clamp_min(1e-6).sqrt() / length


def _rays(cells: Cells, eye: Eye) -> Tensor:
    """Directions (R, 3, H, W) of the rays through the centres of cells, of unit length along the line of sight."""
    right, up, forward = eye.axes[:, :, None, None]
    down, across = cells.centres(right)
    x = (2 * across - 1) * HALF[0]
    y = (1 - 2 * down) * HALF[1]
    return forward + right * x[:, None, None, :] + up * y[:, None, :, None]
