"""Coloured solids that words can name, their captions, and the pairs that are held out from training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, SHAPES
from energycomp_datasets.clevr.lighting import sample_lighting
from energycomp_datasets.clevr.renderer import render
from energycomp_datasets.clevr.scenes import COLORS, Scene, id_buffer

SIZE = 64
TINTS = ("red", "blue", "green", "yellow")
CONCEPTS = tuple(f"{tint} {shape}" for tint in TINTS for shape in SHAPES)
HELD_OUT_SHARE = 0.3
NEARNESS = 0.72  # of the camera, as a share of CLEVR's distance: objects are 8 to 20 px wide
REACH = 1.7  # scene units from the origin on each axis
SIZES = (0.45, 0.8)  # half extents
GAP = 0.15
VISIBLE = 64  # px


def caption(concepts: Sequence[str]) -> str:
    """The caption of an image of these objects."""
    return " and ".join(f"a {concept}" for concept in concepts)


@cache
def held_out_pairs() -> tuple[tuple[str, str], ...]:
    """The 30 % of all pairs of concepts that no training image shows; each concept is in two to four of them."""
    pairs = list(combinations(CONCEPTS, 2))
    wanted = round(HELD_OUT_SHARE * len(pairs))
    rng = np.random.default_rng(0)
    chosen: list[tuple[str, str]] = []
    uses = dict.fromkeys(CONCEPTS, 0)
    for index in rng.permutation(len(pairs)):
        pair = pairs[index]
        if len(chosen) < wanted and max(uses[name] for name in pair) < math.ceil(2 * wanted / len(CONCEPTS)):
            chosen.append(pair)
            for name in pair:
                uses[name] += 1
    return tuple(sorted(chosen, key=pairs.index))


@cache
def seen_pairs() -> tuple[tuple[str, str], ...]:
    """The other pairs, which training images show."""
    return tuple(pair for pair in combinations(CONCEPTS, 2) if pair not in held_out_pairs())


@cache
def seen_triples() -> tuple[tuple[str, str, str], ...]:
    """Sets of three concepts without a held-out pair."""
    seen = set(seen_pairs())
    return tuple(names for names in combinations(CONCEPTS, 3) if seen.issuperset(combinations(names, 2)))


def picture(concepts: Sequence[str], rng: np.random.Generator, *, size: int = SIZE) -> Tensor:
    """An image (3, size, size) in [-1, 1] of an object per concept, each of at least 64 of 64x64 px."""
    return picture_and_places(concepts, rng, size=size)[0]


@torch.no_grad()
def picture_and_places(concepts: Sequence[str], rng: np.random.Generator, *, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """A `picture`, and the number of the object that each of 64x64 px shows, from 0; -1 for none."""
    if unknown := [name for name in concepts if name not in CONCEPTS]:
        raise InputError(f"got the concept {unknown[0]!r}; expected some of {', '.join(CONCEPTS)}")
    if len(concepts) > 4:
        raise InputError(f"got {len(concepts)} objects; expected at most 4, what there is room for")
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    while True:
        scene = _scene(concepts, rng, generator)
        ids = _middle(id_buffer(scene, SIZE, SIZE * 3 // 2)[0])
        seen = torch.bincount(ids.flatten() + 1, minlength=len(concepts) + 1)[1:]
        if bool((seen >= VISIBLE).all()):
            return _middle(render(scene, (size, size * 3 // 2), rays=(2, 2))), ids


def _middle(frame: Tensor) -> Tensor:
    """The square in the middle of frames (..., H, 3/2 H)."""
    height = frame.shape[-2]
    return frame[..., height // 4 : height // 4 + height].clone()


def _scene(concepts: Sequence[str], rng: np.random.Generator, generator: torch.Generator) -> Scene:
    """A scene whose objects do not touch, under lights of its own."""
    count = len(concepts)
    while True:
        sizes = rng.uniform(*SIZES, count)
        places = rng.uniform(-REACH, REACH, (count, 2))
        apart = (math.dist(places[i], places[j]) > sizes[i] + sizes[j] + GAP for i, j in combinations(range(count), 2))
        if all(apart):
            break
    names = [concept.split() for concept in concepts]
    camera = NEARNESS * (np.array(CAMERA_POSITION) + rng.uniform(-0.5, 0.5, 3))
    return Scene(
        positions=torch.tensor(np.concatenate([places, sizes[:, None]], 1), dtype=torch.float32).reshape(-1, 3),
        sizes=torch.tensor(sizes, dtype=torch.float32),
        shapes=torch.tensor([SHAPES.index(shape) for _, shape in names], dtype=torch.long),
        colors=torch.tensor([list(COLORS).index(tint) for tint, _ in names], dtype=torch.long),
        materials=torch.zeros(count, dtype=torch.long),
        rotations=torch.tensor(rng.uniform(0, 2 * math.pi, count), dtype=torch.float32),
        camera=torch.tensor(camera, dtype=torch.float32),
        lighting=sample_lighting(count, generator),
    )
