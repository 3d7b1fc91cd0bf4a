"""Scenes by the placement rules of the official CLEVR generator (Johnson et al., 2017), under varied lights."""

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp_datasets.clevr.geometry import (
    CAMERA_POSITION,
    HALF_HEIGHT,
    HALF_WIDTH,
    MORE_SHAPES,
    SHAPES,
    camera_basis,
    interval,
    project,
    ray_grid,
    to_local,
)
from energycomp_datasets.clevr.lighting import Lighting, default_lighting, sample_lighting
from energycomp_datasets.clevr.textures import Textures, sample_textures

COLORS = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
MATERIALS = ("rubber", "metal")
SIZES = {"small": 0.35, "large": 0.7}
ATTRIBUTES = {"size": tuple(SIZES), "color": tuple(COLORS), "material": MATERIALS, "shape": SHAPES}
MAX_COUNT = 10
FOOTPRINT_GAP = 0.25  # scene units
DIRECTION_GAP = 0.4
FIELD = 6.0  # side of the square that objects stand in, around the origin
VISIBLE_FRACTION = 200 / (480 * 320)
CHECK_SHAPE = (80, 120)  # (H, W) of the id buffer that counts visible pixels


@attrs.frozen(eq=False)
class Scene:
    """One CLEVR scene of K objects.

    positions: `(K, 3)` centres in scene units, z up. sizes: `(K,)` half extents. rotations: `(K,)` radians about z.
    shapes, colors, materials: `(K,)` int64 indices into `SHAPES + MORE_SHAPES`, `COLORS`, `MATERIALS`. camera: `(3,)`,
    looking at the origin. textures: in place of the colours and of the grey ground.
    """

    positions: Tensor
    sizes: Tensor
    shapes: Tensor
    colors: Tensor
    materials: Tensor
    rotations: Tensor
    camera: Tensor
    lighting: Lighting
    textures: Textures | None = None


@attrs.frozen
class Variety:
    """How much random scenes vary; the defaults are those of the official generator, with lights a little beyond.

    Args:
        camera: the camera moves by up to this along each axis, in scene units.
        lights: factor on how much lights, colours, materials and the camera's response vary.
        sizes: relative change of each object's size.
        side: objects stand in a square of this side, placed at random within the official one of 6; crowded below that.
        gap, direction_gap: least distances between objects, see `FOOTPRINT_GAP` and `DIRECTION_GAP`.
    """

    camera: float = 0.5
    lights: float = 1.0
    sizes: float = 0.0
    side: float = 6.0
    gap: float = FOOTPRINT_GAP
    direction_gap: float = DIRECTION_GAP


CLEVR = Variety()


def scene_from_record(record: dict[str, Any], camera: Tensor | None = None) -> Scene:
    """The scene of one official record (an entry of `scenes` in a scenes file), under the base lights.

    The records do not hold the jittered camera, so the mean camera stands in unless `camera` `(3,)` is given.
    `rotation` is read as radians: the official generator draws it up to 360 and hands it to Blender as it is.
    """
    camera = torch.tensor(CAMERA_POSITION) if camera is None else camera
    known = {**ATTRIBUTES, "shape": SHAPES + MORE_SHAPES}
    codes: dict[str, list[int]] = {name: [] for name in known}
    places, rotations = [], []
    for number, entry in enumerate(record["objects"]):
        if missing := {*known, "3d_coords", "rotation"} - entry.keys():
            raise InputError(f"got object {number} of a scene record without {min(missing)!r}; add it")
        for name, words in known.items():
            if entry[name] not in words:
                raise InputError(f"got {name} {entry[name]!r} of object {number}; expected one of {', '.join(words)}")
            codes[name].append(words.index(entry[name]))
        places.append([float(v) for v in entry["3d_coords"]])
        rotations.append(float(entry["rotation"]))
    positions = torch.tensor(places, dtype=torch.float32).reshape(-1, 3)
    depths = (positions - camera) @ camera_basis(camera)[2]
    if not bool((depths > 0).all()):
        behind = places[int((depths > 0).long().argmin())]
        raise InputError(f"got the 3-D place {behind}, which is behind the camera; expected one in front of it")
    return Scene(
        positions=positions,
        sizes=torch.tensor(list(SIZES.values()))[torch.tensor(codes["size"], dtype=torch.long)],
        shapes=torch.tensor(codes["shape"], dtype=torch.long),
        colors=torch.tensor(codes["color"], dtype=torch.long),
        materials=torch.tensor(codes["material"], dtype=torch.long),
        rotations=torch.tensor(rotations),
        camera=camera,
        lighting=default_lighting(len(places)),
    )


def sample_scene(count: int, generator: torch.Generator, textured: bool = False, variety: Variety = CLEVR) -> Scene:
    """A scene of `count` objects (0 to 10) placed by rejection, every object with 200 visible pixels at 480x320.

    A textured one has further shapes, and patterns in random colours on the objects and on the ground. Source:
    `image_generation/render_images.py` of facebookresearch/clevr-dataset-gen. Raises `InputError` for another count.
    """
    if not 0 <= count <= MAX_COUNT:
        raise InputError(f"got {count} objects; expected 0 to {MAX_COUNT}, what the placement rules leave room for")
    shapes = SHAPES + MORE_SHAPES if textured else SHAPES
    while True:
        camera = (
            torch.tensor(CAMERA_POSITION) + 2 * variety.camera * torch.rand(3, generator=generator) - variety.camera
        )
        sizes = torch.tensor(list(SIZES.values()))[torch.randint(2, (count,), generator=generator)]
        if variety.sizes:
            sizes = sizes * (1 + variety.sizes * (2 * torch.rand(count, generator=generator) - 1))
        places = _place(sizes.tolist(), camera, generator, variety)
        if places is None:
            continue
        scene = Scene(
            positions=torch.cat([places, sizes[:, None]], 1),
            sizes=sizes,
            shapes=torch.randint(len(shapes), (count,), generator=generator),
            colors=torch.randint(len(COLORS), (count,), generator=generator),
            materials=torch.randint(len(MATERIALS), (count,), generator=generator),
            rotations=torch.rand(count, generator=generator) * 2 * math.pi,
            camera=camera,
            lighting=sample_lighting(count, generator, variety.lights),
        )
        ids, _ = id_buffer(scene, *CHECK_SHAPE)
        seen = torch.bincount(ids.flatten() + 1, minlength=count + 1)[1:]
        if bool((seen >= VISIBLE_FRACTION * ids.numel()).all()):
            return _paint(scene, generator) if textured else scene


def _paint(scene: Scene, generator: torch.Generator) -> Scene:
    """The scene with textures; each object's colour becomes the one of `COLORS` nearest to its texture's mean."""
    textures = sample_textures(len(scene.sizes), generator)
    means = torch.stack([t.colors.mean(0) for t in textures.objects]) if textures.objects else torch.zeros(0, 3)
    colors = torch.cdist(means, torch.tensor(list(COLORS.values())) / 255).argmin(1)
    return attrs.evolve(scene, colors=colors, textures=textures)


def _place(sizes: list[float], camera: Tensor, generator: torch.Generator, variety: Variety) -> Tensor | None:
    """Footprint centres `(K, 2)`, or None where an object found no place in 50 tries."""
    right = camera_basis(camera)[0, :2].tolist()
    corner = torch.tensor([-3.0, -3.0])
    side = variety.side
    if side < FIELD:
        corner = corner + (FIELD - side) * torch.rand(2, generator=generator)
    placed: list[tuple[float, float, float]] = []
    for size in sizes:
        for x, y in (torch.rand(50, 2, generator=generator) * side + corner).tolist():
            if all(_apart(x - a, y - b, size + other, right, variety) for a, b, other in placed):
                placed.append((x, y, size))
                break
        else:
            return None
    return torch.tensor(placed).reshape(-1, 3)[:, :2]


def _apart(dx: float, dy: float, reach: float, right: list[float], variety: Variety) -> bool:
    along, across = dx * right[0] + dy * right[1], dy * right[0] - dx * right[1]
    return math.hypot(dx, dy) >= reach + variety.gap and min(abs(along), abs(across)) >= variety.direction_gap


def id_buffer(scene: Scene, height: int, width: int) -> tuple[Tensor, Tensor]:
    """What each ray meets first: object index `(H, W)` int64 (-1 for the ground) and its ray parameter `(H, W)`.

    Rays are those of `ray_grid`; each object is tried inside the rectangle around its bounding sphere only.
    """
    rays = ray_grid(scene.camera, height, width)
    ids = torch.full((height, width), -1, dtype=torch.long)
    depth = -scene.camera[2] / rays[2]
    for k, (rows, columns) in enumerate(_rectangles(scene, height, width)):
        turn, size = float(scene.rotations[k]), float(scene.sizes[k])
        frame = (size, math.cos(turn), math.sin(turn))
        origin = to_local(scene.camera - scene.positions[k], *frame)
        enter, leave = interval(int(scene.shapes[k]), origin, to_local(rays[:, rows, columns], *frame))
        near = (enter < leave) & (enter > 0) & (enter < depth[rows, columns])
        depth[rows, columns] = torch.where(near, enter, depth[rows, columns])
        ids[rows, columns] = torch.where(near, k, ids[rows, columns])
    return ids, depth


def _rectangles(scene: Scene, height: int, width: int) -> list[tuple[slice, slice]]:
    """Row and column slices that hold each object's bounding sphere."""
    reach = scene.sizes * math.sqrt(3)
    depth = (scene.positions - scene.camera) @ camera_basis(scene.camera)[2]
    half = (1.15 * reach / (depth - reach)).clamp(0, 10)[:, None] / torch.tensor([2 * HALF_WIDTH, 2 * HALF_HEIGHT])
    middle = project(scene.positions, scene.camera)
    frame = torch.tensor([width, height])
    low, high = ((middle - half) * frame).floor().long(), ((middle + half) * frame).ceil().long()
    low, high = low.clamp_min(0), high.clamp_min(0)
    return [(slice(a[1], b[1]), slice(a[0], b[0])) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
