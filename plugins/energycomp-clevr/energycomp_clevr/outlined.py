"""How high and how far away a camera stands, from the outlines of objects whose sizes are known.

A camera that stands nearer sees larger outlines. One that stands higher sees more of the lids, and far objects larger
beside near ones. Both move edges by less than a pixel of a latent. They are therefore sought in the image itself, and
cost no network evaluation.

    1. Outlines  Geometry gives the outline of each object, a convex polygon, from place, size, shape, turn and camera.
    2. Edges     Along the normal of each point of an outline, the edge is where the colour changes most.
    3. Fit       Camera, places and turns move together until outlines meet edges, in Gauss-Newton steps (RAPiD of
                 Harris, 1992). Edges that are far off count less (Geman and McClure, 1987).

A camera that moves to the side is not seen here: the image is the same if the objects go around with it.

Notation: variable -> symbol
    numbers   theta: up and forward of the camera; x, y and turn of each object; pixels of `FRAME` and degrees
    points    q_i (N, 2): of an outline, with outward normals n_i
    apart     r_i = n_i . (edge_i - q_i)
    slopes    A = dh(n_i) / d theta, with h the support function of an outline: how far it reaches along a normal
    step      (A' W A + P)^-1 (A' W r - P (theta - expected)), with W the weights and P the precision of `expected`
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from energycomp_clevr.codes import CUBE, QUARTER, SHAPE, SIZE, TURN
from energycomp_clevr.sketch import HALF, LARGE, SMALL, looking
from energycomp_clevr.viewpoint import AXES, HOME

FRAME = (480, 320)  # width and height of CLEVR's images, in whose pixels all lengths are
SPHERE = 2  # among the shapes, from 1
ROUND = 96  # points of a rim
DIRECTIONS = 256  # normals that find a polygon
POINTS = 64  # of an outline
CORNER = 0.9  # where the bevel of a cube begins, in half extents
RIMS = ((1.0, 0.94), (0.97, 0.985), (0.94, 1.0))  # radius and height of the rims of a cylinder, in half extents
REACH = 4.0  # pixels from an outline in which edges are sought
STEP = 0.25  # pixels between the distances at which they are sought
FAINT = 0.05  # a change of colour that counts half
FAR = 0.6  # pixels: edges that are farther off count less
FIRST = 8  # the first step takes FIRST times as much
SPARSE = 8.0  # pixels of an outline that count as one edge with a standard error of one pixel
STEPS = 8  # of the fit
LEAST = 8  # points of an outline below which it is not used
PLACE, TURNED, CAMERA = 1.0, 3.0, 0.22  # std of places, of turns, and of a camera that was inferred by a network
CHANGE = (0.02, 0.02, 0.5, 0.5, 1.0)  # of up, forward, x, y and turn, for differences
TRIED = 18  # turns of a cube whose turn is open


class Body(NamedTuple):
    """A shape, from 1, and a half extent in scene units."""

    shape: int
    size: float


def fit_camera(picture: Image.Image, values: Tensor, view: Tensor) -> Tensor:
    """How far up and forward of its usual place a camera stands, (2,), in scene units.

    Costs about 0.05 s an object. Objects (K, 6) or (K, 7) of open size or shape are not used. `view` (2,) is what is
    expected, and is returned where no outline is in sight.
    """
    framed = picture.convert("RGB").resize(FRAME, Image.Resampling.BICUBIC)
    image = torch.from_numpy(np.array(framed)).permute(2, 0, 1).double() / 255
    values = values.detach().cpu().double()
    values = values[(values[:, SIZE] > 0) & (values[:, SHAPE] > 0)] if len(values) else values
    bodies = [Body(int(value[SHAPE]), SMALL if value[SIZE] == 1 else LARGE) for value in values]
    start = view.detach().cpu().double()
    # What is expected of the camera, and of x, y and turn of each object.
    turns = [_turn(image, body, value, start) for body, value in zip(bodies, values, strict=True)]
    places = values[:, :2] * torch.tensor(FRAME) if bodies else torch.zeros(0, 2, dtype=torch.float64)
    own = torch.cat([places, torch.tensor(turns, dtype=torch.float64)[:, None]], dim=1)
    expected = torch.cat([start, own.flatten()])
    precision = torch.tensor([CAMERA, CAMERA, *[PLACE, PLACE, TURNED] * len(bodies)], dtype=torch.float64) ** -2
    numbers = expected.clone()
    for number in range(STEPS):
        slopes, apart, weights = _measure(image, bodies, numbers)
        # Edges that are far off count less.
        weights = weights / (1 + (apart / (FAR * max(1, FIRST - 2 * number))).square()).square()
        hessian = slopes.T @ (weights[:, None] * slopes) + torch.diag(precision)
        gradient = slopes.T @ (weights * apart) - precision * (numbers - expected)
        numbers = numbers + torch.linalg.solve(hessian, gradient)
    return numbers[:2].to(view)


def _measure(image: Tensor, bodies: list[Body], numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes (E, 2 + 3 K), distances to edges (E,) and weights (E,) at the points of all outlines."""
    # The outlines, and how far they reach in each direction
    index = [[0, 1, *range(2 + 3 * k, 5 + 3 * k)] for k in range(len(bodies))]
    projected = [_project(body, numbers[own]) for body, own in zip(bodies, index, strict=True)]
    directions = _directions()
    reaches = [(directions @ each[:, :2].T).amax(1) for each in projected]
    slopes = [numbers.new_zeros(0, len(numbers))]
    aparts = [numbers.new_zeros(0)]
    weights = [numbers.new_zeros(0)]
    for k, (body, own) in enumerate(zip(bodies, index, strict=True)):
        points, normals, length = _outline(projected[k][:, :2])
        # Only what is in the image, and not in front of which another object stands.
        seen = ((points > REACH) & (points < torch.tensor(FRAME) - REACH)).all(1)
        for j, other in enumerate(projected):
            if other[:, 2].mean() < projected[k][:, 2].mean():
                seen &= (points @ directions.T > reaches[j] + REACH).any(1)
        if seen.sum() < LEAST:
            continue
        points = points[seen]
        normals = normals[seen]
        # Edges of the image near the outline, and how its points move with each number
        apart, strength = _edges(image, points, normals)
        here = (normals @ projected[k][:, :2].T).amax(1)
        slope = numbers.new_zeros(len(points), len(numbers))
        for column, (place, change) in enumerate(zip(own, CHANGE, strict=True)):
            moved = numbers[own]
            moved[column] += change
            slope[:, place] = ((normals @ _project(body, moved)[:, :2].T).amax(1) - here) / change
        slopes.append(slope)
        aparts.append(apart)
        weights.append(strength / (strength + FAINT) * length / POINTS / SPARSE)
    return torch.cat(slopes), torch.cat(aparts), torch.cat(weights)


def _turn(image: Tensor, body: Body, value: Tensor, view: Tensor) -> float:
    """The turn of an object in degrees: as its value says, or, of a cube, the one with the clearest edges."""
    if body.shape != CUBE:
        return 0.0
    if len(value) > TURN and value[TURN] > 0:
        return float(value[TURN]) - 1
    turns = [QUARTER * k / TRIED for k in range(TRIED)]
    clear = []
    for turn in turns:
        numbers = torch.cat([view, value[:2] * torch.tensor(FRAME), torch.tensor([turn], dtype=torch.float64)])
        points, normals, _ = _outline(_project(body, numbers)[:, :2])
        _, strength = _edges(image, points, normals, reach=1.0)
        clear.append(float(strength.clamp(max=0.3).mean()))
    return turns[max(range(TRIED), key=clear.__getitem__)]


def _project(body: Body, numbers: Tensor) -> Tensor:
    """Points (P, 3) whose hull is the outline: x and y in pixels, and their depth; `numbers` (5,) of one object."""
    up, forward, x, y, turn = numbers
    axes = torch.tensor(AXES, dtype=torch.float64)
    eye = torch.tensor(HOME, dtype=torch.float64) + up * axes[1] + forward * axes[2]
    axes = looking(eye)
    # The centre is as high as the half extent, on the ray through the place.
    aside = (2 * x / FRAME[0] - 1) * HALF[0]
    above = (1 - 2 * y / FRAME[1]) * HALF[1]
    ray = axes[2] + aside * axes[0] + above * axes[1]
    centre = eye + (body.size - eye[2]) / ray[2] * ray
    points = (centre + body.size * _surface(body, (centre - eye) / body.size, turn) - eye) @ axes.T
    tangents = points[:, :2] / points[:, 2:] / torch.tensor(HALF, dtype=torch.float64)
    half = torch.tensor(FRAME, dtype=torch.float64) / 2
    return torch.cat([half + half * tangents * torch.tensor([1.0, -1.0]), points[:, 2:]], dim=1)


def _surface(body: Body, away: Tensor, turn: Tensor) -> Tensor:
    """Points (P, 3) of an object of half extent 1 around its centre, seen from -`away`, whose hull is its outline."""
    angle = torch.arange(ROUND, dtype=torch.float64) * 2 * math.pi / ROUND
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)
    if body.shape == SPHERE:
        # The circle in which the cone of sight touches the sphere.
        distance = away.norm()
        sight = away / distance
        first = F.normalize(torch.linalg.cross(sight, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)), dim=0)
        both = torch.stack([first, torch.linalg.cross(sight, first)])
        return -sight / distance + (1 - distance**-2).sqrt() * circle @ both
    if body.shape == CUBE:
        # The bevel leaves three points of each corner. Turn 0 has a face that looks along the line of sight.
        corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
        points = torch.cat([corners * torch.where(torch.arange(3) == axis, 1.0, CORNER) for axis in range(3)])
        heading = torch.atan2(away[1], away[0]) + turn.deg2rad()
        cosine, sine = heading.cos(), heading.sin()
        turning = torch.stack([torch.stack([cosine, sine]), torch.stack([-sine, cosine])])
        return torch.cat([points[:, :2] @ turning, points[:, 2:]], dim=1)
    rims = [
        F.pad(radius * circle, (0, 1), value=side * height) for radius, height in RIMS for side in (-1.0, 1.0)
    ]  # fmt: skip
    return torch.cat(rims)


def _directions() -> Tensor:
    angle = torch.arange(DIRECTIONS, dtype=torch.float64) * 2 * math.pi / DIRECTIONS
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def _outline(points: Tensor) -> tuple[Tensor, Tensor, float]:
    """Of the hull of points (P, 2): `POINTS` of its points, evenly spaced, their normals, and its length."""
    corners = points[torch.unique_consecutive((_directions() @ points.T).argmax(1))]
    sides = corners.roll(-1, 0) - corners
    lengths = sides.norm(dim=1)
    ends = lengths.cumsum(0)
    along = (torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS * ends[-1]
    side = torch.searchsorted(ends, along).clamp(max=len(ends) - 1)
    unit = F.normalize(sides[side], dim=1)
    found = corners[side] + (along - ends[side] + lengths[side])[:, None] * unit
    # Corners follow the directions, clockwise in an image whose y points down: outward is to the left of a side.
    return found, torch.stack([unit[:, 1], -unit[:, 0]], dim=1), float(ends[-1])


def _edges(image: Tensor, points: Tensor, normals: Tensor, reach: float = REACH) -> tuple[Tensor, Tensor]:
    """How far along the normals (N, 2) of points (N, 2) the edges are, in pixels, and how much the colour changes."""
    count = round(reach / STEP)
    steps = torch.arange(-count, count + 1, dtype=torch.float64) * STEP

    def colors(offsets: Tensor) -> Tensor:
        places = points[:, None] + offsets[:, None] * normals[:, None]
        grid = 2 * places / torch.tensor(FRAME) - 1
        return F.grid_sample(image[None], grid[None], padding_mode="border", align_corners=False)[0]

    changes = (colors(steps + 0.5) - colors(steps - 0.5)).square().sum(0).sqrt()  # (N, S)
    # The clearest edge, near ones preferred, and the top of a parabola through it and both its neighbours.
    best = (changes * torch.exp(-(steps / reach).square())).argmax(1, keepdim=True).clamp(1, len(steps) - 2)
    before, here, after = (changes.gather(1, best + side)[:, 0] for side in (-1, 0, 1))
    curvature = before - 2 * here + after
    shift = torch.where(curvature < 0, (before - after) / (2 * curvature), 0.0).clamp(-1, 1)
    return steps[best[:, 0]] + STEP * shift, here
