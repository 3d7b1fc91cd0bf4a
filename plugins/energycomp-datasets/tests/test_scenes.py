import json
from pathlib import Path

import attrs
import pytest
import torch

from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp_datasets.clevr.geometry import CAMERA_POSITION, SHAPES, camera_basis, interval, normal
from energycomp_datasets.clevr.scenes import Scene, id_buffer, project, sample_scene, scene_from_record

REAL = Path(__file__).resolve().parents[4] / "shared/data/clevr_real_dev/scenes/CLEVR_dev_scenes.json"


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


def test_scenes_follow_the_generator() -> None:
    one, same, other = (sample_scene(4, seeded(seed)) for seed in (1, 1, 2))
    assert one.positions.equal(same.positions)
    assert one.lighting.positions.equal(same.lighting.positions)
    assert not one.positions.equal(other.positions)


@pytest.mark.parametrize("count", [-1, 11])
def test_counts_without_room_are_refused(count: int) -> None:
    with pytest.raises(InputError, match="expected 0 to 10"):
        sample_scene(count, seeded(0))


def test_projection_of_the_frame() -> None:
    camera = torch.tensor(CAMERA_POSITION)
    right, up, forward = camera_basis(camera)
    corner = camera + 2 * (forward + 240 / 525 * right + 160 / 525 * up)
    assert torch.allclose(project(corner, camera), torch.tensor([1.0, 0.0]), atol=1e-5)


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_intervals_against_marching(shape: int) -> None:
    rng = seeded(shape)
    origin = torch.randn(3, 200, generator=rng) * 0.8
    direction = torch.randn(3, 200, generator=rng)
    steps = torch.linspace(-8, 8, 4001)
    x, y, z = origin[..., None] + direction[..., None] * steps
    box = torch.stack([x.abs(), y.abs(), z.abs()]).amax(0)
    pairs = torch.stack([x.abs() + y.abs(), y.abs() + z.abs(), z.abs() + x.abs()]).amax(0) / 1.88
    level = (torch.maximum(box, pairs), x * x + y * y + z * z, torch.maximum(x * x + y * y, z * z))[shape]
    enter, leave = interval(shape, tuple(origin), tuple(direction))
    length = ((level <= 1).sum(1) * 16 / 4000).float()
    # Rays that only graze the shape, or reach past the marched range, say nothing here.
    fair = (leave - enter).abs().gt(0.05) & enter.abs().lt(7) & leave.abs().lt(7)
    assert fair.sum() > 50
    assert torch.allclose((leave - enter).clamp_min(0)[fair], length[fair], atol=0.01)


def test_normals_point_outwards() -> None:
    points = torch.nn.functional.normalize(torch.randn(3, 100, generator=seeded(0)), dim=0)
    assert torch.allclose(normal(1, tuple(points)), points, atol=1e-6)
    top = (torch.tensor([0.2]), torch.tensor([-0.3]), torch.tensor([1.0]))
    for shape in (0, 2):
        assert torch.allclose(normal(shape, top)[:, 0], torch.tensor([0.0, 0.0, 1.0]), atol=1e-4)


def test_nearer_objects_hide_farther_ones() -> None:
    scene = sample_scene(2, seeded(0))
    near = scene.camera * 0.3
    stacked = torch.stack([near * 0.5, near])
    hidden = attrs.evolve(scene, positions=stacked, sizes=torch.tensor([0.35, 0.7]), shapes=torch.tensor([1, 1]))
    assert id_buffer(hidden, 32, 48)[0].unique().tolist() == [-1, 1]


@pytest.mark.skipif(not REAL.exists(), reason="the official scene records are not beside this checkout")
def test_projection_against_the_official_records() -> None:
    errors = []
    for record in json.loads(REAL.read_text())["scenes"]:
        scene = scene_from_record(record)
        pixels = torch.tensor([entry["pixel_coords"][:2] for entry in record["objects"]])
        offset = project(scene.positions, scene.camera) * torch.tensor([480.0, 320.0]) - pixels
        errors.append(offset.norm(dim=1))
    assert torch.cat(errors).mean() < 4.5  # px, the camera's unrecorded jitter
