"""The official CLEVR layout: `images/<split>/CLEVR_<split>_000000.png` and `scenes/CLEVR_<split>_scenes.json`."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energycomp.errors import InputError
from energycomp.files import atomic_file
from energycomp.images import save_image, to_bytes
from energycomp_datasets.clevr import clevrtex
from energycomp_datasets.clevr.geometry import (
    CAMERA_POSITION,
    HALF_HEIGHT,
    HALF_WIDTH,
    MORE_SHAPES,
    SHAPES,
    camera_basis,
    project,
    unproject,
)
from energycomp_datasets.clevr.records import SceneRecord, centres, vectors
from energycomp_datasets.clevr.renderer import render
from energycomp_datasets.clevr.scenes import ATTRIBUTES, CLEVR, COLORS, MATERIALS, SIZES, Scene, Variety, sample_scene

FRAME = (480, 320)  # (width, height) px, the frame of `pixel_coords` whatever the stored image's size


def generator_of(seed: int, index: int) -> torch.Generator:
    """The random numbers of scene or video number `index` of `seed`."""
    entropy = np.random.SeedSequence([seed, index]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(entropy[0]) << 31 | int(entropy[1]) >> 1)


def scene_of(
    seed: int, index: int, objects: tuple[int, int], textured: bool = False, variety: Variety = CLEVR
) -> Scene:
    """Scene number `index` of `seed` with a count uniform in `objects`, both ends included."""
    generator = generator_of(seed, index)
    low, high = objects
    count = int(torch.randint(low, high + 1, (), generator=generator))
    return sample_scene(count, generator, textured, variety)


@torch.no_grad()
def render_objects(
    count: int,
    objects: tuple[int, int] = (3, 5),
    seed: int = 0,
    size: int | tuple[int, int] = 64,
    start: int = 0,
    variety: Variety = CLEVR,
    textured: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Images `(N, 3, H, W)` uint8 and the objects (`(K, 6)` float32 each, see `object_values`) from `start` on.

    `size` is a side, or (width, height), in px.
    """
    width, height = (size, size) if isinstance(size, int) else size
    images = torch.empty(count, 3, height, width, dtype=torch.uint8)
    values = []
    for row in range(count):
        scene = scene_of(seed, start + row, objects, textured, variety)
        images[row] = to_bytes(render(scene, (height, width)))
        values.append(object_values(scene))
    return images, values


def describe_objects(scene: Scene) -> list[dict[str, Any]]:
    """The objects of a scene as {"x": 0.3, "y": 0.4}, with their words where the scene is not textured."""
    described = []
    for x, y, *codes in object_values(scene).tolist():
        one = {"x": x, "y": y}
        if scene.textures is None:
            one |= {name: words[int(code) - 1] for (name, words), code in zip(ATTRIBUTES.items(), codes, strict=True)}
        described.append(one)
    return described


def object_values(scene: Scene) -> Tensor:
    """The objects of a scene `(K, 6)`: x and y in [0, 1], then the places, from 1, of size, colour, material, shape.

    0 would be an attribute that is not known. Shapes of textured scenes are those of `SHAPES + MORE_SHAPES`, which
    `ATTRIBUTES` has no words for.
    """
    words = [(scene.sizes > sum(SIZES.values()) / 2).long(), scene.colors, scene.materials, scene.shapes]
    return torch.cat([project(scene.positions, scene.camera), torch.stack(words, 1) + 1.0], dim=1)


@torch.no_grad()
def write(
    folder: str | Path,
    count: int,
    objects: tuple[int, int] = (3, 5),
    split: str = "train",
    seed: int = 0,
    size: tuple[int, int] = FRAME,
    progress: Callable[[int], None] | None = None,
    textured: bool = False,
    variety: Variety = CLEVR,
) -> None:
    """Write `count` rendered scenes of `seed` under `folder`: images of `size` (width, height) px, then the records.

    Each file appears complete or not at all. `pixel_coords` are in the 480x320 frame whatever `size` is. About 0.5 s an
    image at 480x320, 0.02 s at 64x64.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(folder, 1, size=(48, 32))
    ...     [record.count in (3, 4, 5) for record in read(folder)]
    [True]
    """
    folder = Path(folder)
    images = folder / "images" / split
    (folder / "scenes").mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(count):
        scene = scene_of(seed, index, objects, textured, variety)
        name = f"CLEVR_{split}_{index:06d}.png"
        array = to_bytes(render(scene, (size[1], size[0]))).permute(1, 2, 0).numpy()
        save_image(Image.fromarray(array), images / name)
        records.append(record_of(scene, split, index, name))
        if progress is not None:
            progress(index + 1)
    target = folder / "scenes" / f"CLEVR_{split}_scenes.json"
    with atomic_file(target) as temporary:
        temporary.write_text(json.dumps({"info": {"split": split, "version": "1.0"}, "scenes": records}))


def read(folder: str | Path) -> list[SceneRecord]:
    return list(scan(folder))


def scan(folder: str | Path) -> Iterator[SceneRecord]:
    """The record of each image, of every split in `folder` that has a scenes file, or of CLEVRTex.

    Takes CLEVR v1.0 as downloaded; its test split has no scenes and is left out. Takes CLEVRTex as `clevrtex.images`
    finds it, a record at a time. Raises `InputError` for a folder of neither, a malformed record or a missing image.
    """
    folder = Path(folder)
    files = sorted((folder / "scenes").glob("CLEVR_*_scenes.json"))
    if not files:
        images = clevrtex.images(folder)
        if not images:
            raise InputError(
                f"got {folder} without scenes/CLEVR_*_scenes.json or CLEVRTEX_*.png; expected the layout of CLEVR v1.0 "
                "or of CLEVRTex; pass the folder that holds images/ and scenes/, or make one: energycomp data clevr"
            )
        yield from clevrtex.scenes(images)
        return
    found = [record for file in files for record in _read_split(folder, file)]
    if not found:
        raise InputError(f"got no scenes in {folder / 'scenes'}; expected one record per image; write the images again")
    yield from found


def _read_split(folder: Path, file: Path) -> list[SceneRecord]:
    split = file.name.removeprefix("CLEVR_").removesuffix("_scenes.json")
    records = []
    try:
        for scene in json.loads(file.read_text())["scenes"]:
            coordinates = centres(scene["objects"], FRAME)
            path = _inside(folder / "images", scene.get("split", split), scene["image_filename"])
            words = tuple(_words(entry) for entry in scene["objects"])
            known = words if any(words) else ()
            seen = {"camera": vectors(scene, "camera"), "lights": vectors(scene, "lights", rows=True)}
            turns = turns_of(scene, coordinates)
            records.append(SceneRecord(path, coordinates, len(coordinates), known, turns=turns, **seen))
    except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"got {file} with {type(error).__name__}: {error}; expected the records of CLEVR v1.0; "
            "download or write it again"
        ) from error
    for record in records:
        if not record.path.is_file():
            raise InputError(
                f"got no image {record.path}; expected the one that {file} names; unpack the images of {split} again"
            )
    return records


def turns_of(scene: Mapping[str, Any], places: Tensor) -> Tensor | None:
    """How the cubes of a record are turned to the line of sight, (K,) degrees in [0, 90); NaN for other shapes.

    0 is a cube one of whose faces looks along the line of sight, 45 one of whose edges does. None where the record
    does not say which direction is "behind".

    >>> scene = {"directions": {"behind": [0, 1, 0]}, "objects": [{"shape": "cube", "rotation": 0.5}]}
    >>> turns_of(scene, torch.tensor([[0.5, 0.5]])).round()
    tensor([29.])
    """
    if "directions" not in scene or not all("rotation" in entry for entry in scene["objects"]):
        return None
    ahead = scene["directions"]["behind"]
    pitch = math.asin(CAMERA_POSITION[2] / math.hypot(*CAMERA_POSITION))
    across = (2 * places[:, 0] - 1) * HALF_WIDTH
    up = (1 - 2 * places[:, 1]) * HALF_HEIGHT
    # The ray to a place leaves the middle of the picture to the right by this angle, seen from above.
    aside = torch.atan2(across, math.cos(pitch) + math.sin(pitch) * up)
    sight = math.atan2(ahead[1], ahead[0]) - aside
    turned = torch.tensor([float(entry["rotation"]) for entry in scene["objects"]]) - sight
    is_cube = torch.tensor([entry.get("shape") == "cube" for entry in scene["objects"]], dtype=torch.bool)
    return torch.where(is_cube, turned.rad2deg() % 90, torch.nan)


def _words(entry: Mapping[str, Any]) -> dict[str, str]:
    """The attributes of an object of a record, those that CLEVR has; a texture hides colour and material."""
    return (
        {}
        if "texture" in entry
        else {name: entry[name] for name, words in ATTRIBUTES.items() if entry.get(name) in words}
    )


def _inside(folder: Path, *parts: str) -> Path:
    if any(Path(part).name != part or part == ".." for part in parts):
        raise ValueError(f"the image {'/'.join(parts)} outside of {folder}")
    return folder.joinpath(*parts)


def described_record(
    objects: Sequence[Mapping[str, Any]], name: str, camera: Sequence[float] = CAMERA_POSITION
) -> dict[str, Any]:
    """The record of an image from objects such as {"x": 0.3, "y": 0.45, "size": "large", "color": "red", ...}.

    The official records do not hold the camera: 3-D places are those under `camera`, by default the mean one.
    Attributes that are not known are left out; an object of unknown size is taken for a small one.

    Raises:
        InputError: an object without a place, or a place above the horizon.

    >>> described_record([{"x": 0.5, "y": 0.5, "shape": "cube"}], "a.png")["objects"][0]["shape"]
    'cube'
    """
    if missing := [one for one in objects if not {"x", "y"} <= one.keys()]:
        raise InputError(f"got {dict(missing[0])} without a place; expected x and y of every object; use another model")
    eye = torch.tensor(camera)
    heights = torch.tensor([SIZES[one.get("size", "small")] for one in objects])
    places = torch.tensor([[one["x"], one["y"]] for one in objects]).reshape(-1, 2)
    points = unproject(places, heights, eye) if len(objects) else torch.zeros(0, 3)
    depths = (points - eye) @ camera_basis(eye)[2]
    entries = []
    for one, place, point, depth in zip(objects, places, points.tolist(), depths.tolist(), strict=True):
        known = {name: one[name] for name in ATTRIBUTES if name in one}
        entries.append({"3d_coords": point, "pixel_coords": [*(place * torch.tensor(FRAME)).tolist(), depth], **known})
    return {"image_filename": name, "objects": entries}


def record_of(scene: Scene, split: str, index: int, name: str) -> dict[str, Any]:
    """A scene as an entry of "scenes" in the official layout."""
    right, _, forward = camera_basis(scene.camera)
    flat = torch.nn.functional.normalize(forward * torch.tensor([1.0, 1.0, 0.0]), dim=0)
    directions = {"right": right, "left": -right, "behind": flat, "front": -flat}
    directions |= {"above": torch.tensor([0.0, 0.0, 1.0]), "below": torch.tensor([0.0, 0.0, -1.0])}
    pixels = project(scene.positions, scene.camera) * torch.tensor(FRAME)
    depths = (scene.positions - scene.camera) @ forward
    palette = list(COLORS)
    entries = [
        {
            "3d_coords": scene.positions[k].tolist(),
            "pixel_coords": [*pixels[k].tolist(), float(depths[k])],
            "shape": (SHAPES + MORE_SHAPES)[scene.shapes[k]],
            "color": palette[scene.colors[k]],
            "material": MATERIALS[scene.materials[k]],
            "size": "large" if scene.sizes[k] > 0.5 else "small",
            "rotation": float(scene.rotations[k]),
        }
        for k in range(len(scene.sizes))
    ]
    grounds = {}
    if scene.textures is not None:
        grounds = {"ground_texture": scene.textures.ground.pattern}
        for entry, texture in zip(entries, scene.textures.objects, strict=True):
            entry["texture"] = texture.pattern
    return {
        "image_index": index,
        "image_filename": name,
        "split": split,
        "directions": {key: value.tolist() for key, value in directions.items()},
        "objects": entries,
        **grounds,
    }
