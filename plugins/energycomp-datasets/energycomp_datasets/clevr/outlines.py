"""A judge of shapes that is no network: the outline of an object against those of a cube, a sphere and a cylinder.

It is told where an object is and how large, and sees the image. The usual camera is assumed, so that samples, whose
camera is not known, and renders are judged alike.

    1. Silhouettes  Our geometry gives those of a sphere, a cylinder and a cube under 18 turns at that place.
    2. Seeds        What is inside all of them is the object; what is well outside of all of them is not.
    3. Outline      A pixel between belongs to the seeds that a random walker meets first, who seldom crosses an edge
                    (Grady, 2006). Soft shadows are no edges: the walker needs no image of the empty scene.
    4. Judgement    The silhouette that overlaps most (IoU), over small shifts and scales, names the shape.

Notation: variable -> symbol in Grady (2006)
    weights  w_ij = exp(-beta (g_i - g_j)^2)    laplacian  L    inside  x, the probability of the walker
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor
from torch.nn import functional as F

from energycomp_datasets.clevr.geometry import (
    CAMERA_POSITION,
    HALF_HEIGHT,
    HALF_WIDTH,
    SHAPES,
    camera_basis,
    interval,
    to_local,
    unproject,
)
from energycomp_datasets.clevr.scenes import SIZES

SIDE = 64  # pixels of a window
RAYS = 2  # along the side of a pixel
REACH = 2.1  # half the side of a window, over the half extent of the object
CORNER = 1.5  # how far an outline is from its centre at most, over the half extent
TURNS = 18  # of a cube, in a quarter
SCALES = (0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12)
SHIFT = 3  # pixels of a window
SURE = 3  # pixels of a window by which seeds inside are away from all outlines
CLEAR = 5  # and those outside
BETA = 60.0  # of the weights
LEAST = 1e-5  # their squared differences are divided by their mean
LUCK = 0.003  # overlap that a cube gains by its many turns, on renders


class Outline(NamedTuple):
    """What the outline of an object says: its shape, the turn of a cube, and the overlap (IoU) of each shape."""

    shape: str
    turn: float | None
    overlaps: dict[str, float]


def judge(image: Tensor, values: Tensor) -> list[Outline | None]:
    """The outlines of objects (K, 2 + ...), as `object_values` has them, in the whole frame (3, H, W), in any range.

    Costs about 0.1 s an object. An object that is not `in_view` is None.
    """
    sizes = _sizes(values)
    return [
        judge_object(image, place, size) if seen else None
        for place, size, seen in zip(values[:, :2], sizes.tolist(), in_view(values).tolist(), strict=True)
    ]


def in_view(values: Tensor) -> Tensor:
    """Which of described objects (K, 2 + ...) are whole: nothing in front of them, nor the edge of the image (K,).

    It follows from places and sizes; an outline is taken for a disc that holds it.
    """
    camera = torch.tensor(CAMERA_POSITION)
    sizes = _sizes(values)
    depths = (unproject(values[:, :2], sizes, camera) - camera) @ camera_basis(camera)[2]
    middle = (2 * values[:, :2] - 1) * torch.tensor([HALF_WIDTH, HALF_HEIGHT])
    radii = CORNER * sizes / depths
    inside = (middle.abs() + radii[:, None] < torch.tensor([HALF_WIDTH, HALF_HEIGHT])).all(1)
    touching = torch.cdist(middle, middle) < radii + radii[:, None]
    nearer = depths < depths[:, None]
    return inside & ~(touching & nearer).any(1)


def judge_object(image: Tensor, place: Tensor, size: float) -> Outline:
    """The outline of an object of half extent `size` whose centre is seen at `place` (2,) of an image (3, H, W)."""
    masks = silhouettes(place, size)
    # The outline at every scale, and the masks slid over it.
    outlines = _scale(outline(image, masks, place, size))
    shared = F.conv2d(F.pad(outlines, (SHIFT,) * 4), masks[:, None])
    areas = outlines.square().sum((2, 3))[:, :, None, None] + masks.square().sum((1, 2))[:, None, None]
    overlaps = (shared / (areas - shared)).amax((0, 2, 3))
    # The best turn of a cube, a sphere and a cylinder.
    each = [float(overlaps[:TURNS].max()) - LUCK, *overlaps[TURNS:].tolist()]
    shape = max(range(len(SHAPES)), key=each.__getitem__)
    turn = None if shape else 90 * int(overlaps[:TURNS].argmax()) / TURNS
    return Outline(SHAPES[shape], turn, dict(zip(SHAPES, each, strict=True)))


def silhouettes(place: Tensor, size: float) -> Tensor:
    """Masks (TURNS + 2, SIDE, SIDE) in [0, 1] of cubes under each turn, a sphere and a cylinder, in a window."""
    camera = torch.tensor(CAMERA_POSITION)
    middle, half = _window(place, size)
    right, up, forward = camera_basis(camera)
    aside = _steps(SIDE * RAYS) * half
    x, y = (2 * place[0] - 1) * HALF_WIDTH + aside, (1 - 2 * place[1]) * HALF_HEIGHT - aside
    rays = forward[:, None, None] + right[:, None, None] * x + up[:, None, None] * y[:, None]
    # Turn 0 has a face that looks along the line of sight.
    sight = math.atan2(*(middle - camera)[:2].flip(0).tolist())
    masks = []
    for shape, turn in [*((0, k) for k in range(TURNS)), (1, 0), (2, 0)]:
        angle = sight + math.pi / 2 * turn / TURNS
        frame = (size, math.cos(angle), math.sin(angle))
        enter, leave = interval(shape, to_local(camera - middle, *frame), to_local(rays, *frame))
        masks.append((enter < leave).float())
    return F.avg_pool2d(torch.stack(masks)[:, None], RAYS)[:, 0]


def outline(image: Tensor, masks: Tensor, place: Tensor, size: float) -> Tensor:
    """The pixels (SIDE, SIDE) of a window that belong to the object, in [0, 1], between seeds that `masks` leave."""
    _, half = _window(place, size)
    x, y = 2 * place[0] - 1 + _steps(SIDE) * half / HALF_WIDTH, 2 * place[1] - 1 + _steps(SIDE) * half / HALF_HEIGHT
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None]
    window = F.grid_sample(image[None], grid, "bicubic", padding_mode="border", align_corners=False)[0]
    within, without = (masks > 0.5).all(0), (masks <= 0.5).all(0)
    return _walk(window, _shrink(within, SURE), _shrink(without, CLEAR))


def _walk(window: Tensor, seeds: Tensor, others: Tensor) -> Tensor:
    """The probability of each pixel of a window (3, H, W) that a random walker from there meets a seed first."""
    pixels = window.double().numpy()
    free = ~(seeds | others).flatten().numpy()
    index = np.arange(seeds.numel()).reshape(seeds.shape)
    # Edges to the right and down, with the squared difference of the colours.
    first = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    second = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    differences = [np.square(np.diff(pixels, axis=axis)).sum(0).ravel() for axis in (2, 1)]
    squared = np.concatenate(differences)
    usual = squared[free[first] | free[second]].mean() + 1e-12
    weights = np.exp(-BETA * squared / usual) + LEAST
    # L x = 0 at the free pixels, with x known at the seeds.
    both = np.concatenate([first, second]), np.concatenate([second, first])
    graph = sparse.coo_array((np.tile(weights, 2), both), shape=(index.size, index.size)).tocsr()
    laplacian = (sparse.diags_array(graph.sum(1)) - graph).tocsr()
    inside = seeds.flatten().double().numpy()
    known = laplacian[free][:, ~free] @ inside[~free]
    inside[free] = spsolve(laplacian[free][:, free].tocsc(), -known)
    return torch.from_numpy(inside).float().reshape(seeds.shape)


def _scale(inside: Tensor) -> Tensor:
    """The outline (SIDE, SIDE) made smaller and larger, (S, 1, SIDE, SIDE)."""
    steps = _steps(SIDE)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    grids = torch.stack([grid * scale for scale in SCALES])
    return F.grid_sample(inside.expand(len(SCALES), 1, SIDE, SIDE), grids, align_corners=False)


def _shrink(mask: Tensor, by: int) -> Tensor:
    """A mask without the pixels that are within `by` of its edge."""
    return F.max_pool2d((~mask).float()[None, None], 2 * by + 1, 1, by)[0, 0] == 0


def _window(place: Tensor, size: float) -> tuple[Tensor, Tensor]:
    """The centre (3,) of an object under the usual camera, and half the side of its window at unit distance."""
    camera = torch.tensor(CAMERA_POSITION)
    middle = unproject(place[None], torch.tensor([size]), camera)[0]
    return middle, size * REACH / ((middle - camera) @ camera_basis(camera)[2])


def _steps(count: int) -> Tensor:
    """Centres of `count` equal parts of [-1, 1]."""
    return (torch.arange(count) + 0.5) * 2 / count - 1


def _sizes(values: Tensor) -> Tensor:
    """Half extents (K,); an object of open size is drawn large."""
    small, large = SIZES.values()
    return torch.where(values[:, 2] == 1, small, large)
