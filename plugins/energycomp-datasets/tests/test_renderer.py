"""Renders and the scenes they are of: sizes, colours, shadows, placement, projection, and what is hidden."""

import json
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, camera_basis
from energycomp_datasets.clevr.lighting import default_lighting
from energycomp_datasets.clevr.renderer import instance_map, render
from energycomp_datasets.clevr.scenes import COLORS, Scene, id_buffer, project, sample_scene, scene_from_record
from energycomp_datasets.clevr.shading import visibility

REAL = Path(__file__).resolve().parents[4] / "shared/data/clevr_real_dev"


def lone(
    shape: str = "sphere",
    color: str = "red",
    material: str = "rubber",
    size: str = "large",
    place: tuple[float, float] = (0.0, 0.0),
) -> Scene:
    height = {"small": 0.35, "large": 0.7}[size]
    entry = {"3d_coords": [*place, height], "rotation": 0.5, "shape": shape, "color": color}
    return scene_from_record({"objects": [entry | {"material": material, "size": size}]})


@pytest.mark.parametrize("size", [(64, 64), (48, 72)])
def test_pictures_have_the_asked_size_and_range(size: tuple[int, int]) -> None:
    picture = render(sample_scene(4, seeded(0)), size)
    assert picture.shape == (3, *size)
    assert picture.dtype == torch.float32
    assert picture.isfinite().all()
    assert picture.min() >= -1
    assert picture.max() <= 1


def test_the_frame_is_squashed_on_both_axes() -> None:
    scene = lone(place=(1.5, -0.5))
    ids = instance_map(scene, (64, 64))
    rows, columns = (ids == 0).nonzero().float().T
    middle = torch.stack([columns.mean() + 0.5, rows.mean() + 0.5]) / 64
    assert torch.allclose(middle, project(scene.positions, scene.camera)[0], atol=0.01)
    assert (rows.max() - rows.min()) / (columns.max() - columns.min()) == pytest.approx(1.5, abs=0.15)


@pytest.mark.parametrize("material", ["rubber", "metal"])
@pytest.mark.parametrize("shape", ["cube", "sphere", "cylinder"])
def test_objects_show_their_colour(shape: str, material: str) -> None:
    for color, channels in COLORS.items():
        scene = lone(shape, color, material)
        inside = instance_map(scene) == 0
        mean = render(scene)[:, inside].mean(1)
        if color == "gray":
            assert mean.max() - mean.min() < 0.06
        else:
            assert int(mean.argmax()) == int(np.argmax(channels))


def test_size_changes_leave_the_mean_alone() -> None:
    scene = sample_scene(4, seeded(3))
    scene = attrs.evolve(scene, lighting=default_lighting(4))
    small, large = render(scene, (32, 48)), render(scene, (128, 192))
    reduced = torch.nn.functional.avg_pool2d(large, 4)
    assert (small - reduced).abs().mean() < 0.01


def test_shadow_below_and_light_beside_an_object() -> None:
    scene = lone(size="small")
    key = scene.lighting.positions[0]
    behind = -key[:2] / key[:2].norm() * 0.8  # the side away from the key light, within the shadow of a small sphere
    points = torch.tensor([[*behind.tolist(), 0.0], [3.0, 3.0, 0.0]]).T
    seen = visibility(scene, points)[0]
    assert seen[0] == 0
    assert seen[1] == 1


def test_metal_mirrors_its_neighbours() -> None:
    chrome = lone(color="gray", material="metal")
    neighbour = lone(color="yellow", place=(0.5, -1.7))
    names = ("positions", "sizes", "shapes", "colors", "materials", "rotations")
    both = {name: torch.cat([getattr(chrome, name), getattr(neighbour, name)]) for name in names}
    pair = attrs.evolve(chrome, **both, lighting=default_lighting(2))
    inside = instance_map(pair, (80, 120)) == 0
    red, _, blue = render(pair, (80, 120))[:, inside]
    assert (red - blue).max() > 0.1


@pytest.mark.skipif(not REAL.exists(), reason="the official pictures are not beside this checkout")
def test_close_to_the_official_pictures() -> None:
    records = json.loads((REAL / "scenes/CLEVR_dev_scenes.json").read_text())["scenes"][:20]
    differences = []
    for record in records:
        photo = Image.open(REAL / "images/dev" / record["image_filename"]).convert("RGB").resize((64, 64))
        photo = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
        picture = (render(scene_from_record(record)) + 1) * 127.5
        differences.append((picture - photo).abs().mean())
    assert torch.stack(differences).mean() < 8  # of 255; the camera and the lights of the pictures are not recorded


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"3d_coords": [30.0, -30.0, 0.7]}, "behind the camera"),
        ({"3d_coords": [float("nan"), 0.0, 0.7]}, "behind the camera"),
        ({"color": "pink"}, "got color 'pink' of object 0; expected one of gray"),
        ({"shape": "blob"}, "got shape 'blob'"),
        ({"rotation": None}, "without 'rotation'"),
    ],
)
def test_records_that_cannot_be(change: dict[str, Any], message: str) -> None:
    cube = {"3d_coords": [0, 0, 0.7], "size": "large", "shape": "cube", "rotation": 30.0}
    cube |= {"color": "red", "material": "metal"} | change
    with pytest.raises(InputError, match=message):
        scene_from_record({"objects": [{name: value for name, value in cube.items() if value is not None}]})


RECORDS = Path(__file__).resolve().parents[4] / "shared/data/clevr_real_dev/scenes/CLEVR_dev_scenes.json"


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = seeded(0)
    return [sample_scene(3 + k % 6, rng) for k in range(12)]


def test_placement_rules(scenes: list[Scene]) -> None:
    for scene in scenes:
        right, _, _ = camera_basis(scene.camera)
        front = torch.stack([right[1], -right[0]])
        offset = scene.positions[:, None, :2] - scene.positions[:, :2]
        pairs = ~torch.eye(len(scene.sizes), dtype=torch.bool)
        gap = offset.norm(dim=-1) - scene.sizes[:, None] - scene.sizes
        assert scene.positions[:, :2].abs().max() <= 3
        assert scene.positions[:, 2].equal(scene.sizes)
        assert gap[pairs].min() >= 0.25 - 1e-5
        assert (offset @ right[:2])[pairs].abs().min() >= 0.4 - 1e-5
        assert (offset @ front)[pairs].abs().min() >= 0.4 - 1e-5


def test_every_object_is_visible(scenes: list[Scene]) -> None:
    for scene in scenes:
        ids, _ = id_buffer(scene, 320, 480)
        seen = torch.bincount(ids.flatten() + 1, minlength=len(scene.sizes) + 1)[1:]
        assert seen.min() >= 0.85 * 200  # counted at a quarter of the resolution when the scene was drawn


def test_projection_of_the_frame() -> None:
    camera = torch.tensor(CAMERA_POSITION)
    right, up, forward = camera_basis(camera)
    corner = camera + 2 * (forward + 240 / 525 * right + 160 / 525 * up)
    assert torch.allclose(project(corner, camera), torch.tensor([1.0, 0.0]), atol=1e-5)


def test_nearer_objects_hide_farther_ones() -> None:
    scene = sample_scene(2, seeded(0))
    near = scene.camera * 0.3
    stacked = torch.stack([near * 0.5, near])
    hidden = attrs.evolve(scene, positions=stacked, sizes=torch.tensor([0.35, 0.7]), shapes=torch.tensor([1, 1]))
    assert id_buffer(hidden, 32, 48)[0].unique().tolist() == [-1, 1]


@pytest.mark.skipif(not RECORDS.exists(), reason="the official scene records are not beside this checkout")
def test_projection_against_the_official_records() -> None:
    errors = []
    for record in json.loads(RECORDS.read_text())["scenes"]:
        scene = scene_from_record(record)
        pixels = torch.tensor([entry["pixel_coords"][:2] for entry in record["objects"]])
        offset = project(scene.positions, scene.camera) * torch.tensor([480.0, 320.0]) - pixels
        errors.append(offset.norm(dim=1))
    assert torch.cat(errors).mean() < 4.5  # px, the camera's unrecorded jitter
