import json
from itertools import product
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp_datasets.clevr.geometry import MORE_SHAPES, SHAPES, interval, normal
from energycomp_datasets.clevr.layout import read, render_objects, scene_of
from energycomp_datasets.clevr.renderer import instance_map, render
from energycomp_datasets.clevr.requests import KINDS
from energycomp_datasets.clevr.scenes import Scene, project
from energycomp_datasets.clevr.shading import ground_albedo, surface_albedos
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_datasets.clevr.textures import LATTICE, PATTERNS, _noise, paint, sample_textures
from energycomp_datasets.synthetic import HELD_OUT, WRITTEN


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene_of(3, index, (1, 6), textured=True) for index in range(40)]


def test_plain_scenes_stay_as_they_were() -> None:
    images, coordinates = render_objects(4, objects=(0, 6), seed=3)  # read off before there were textures
    sums = torch.stack([values[:, :2].sum() for values in coordinates])
    assert torch.allclose(sums, torch.tensor([2.59366965, 4.15319967, 4.89512634, 4.52191401]), atol=1e-5)
    assert torch.allclose(
        images.float().mean((1, 2, 3)), torch.tensor([113.5116, 116.8593, 122.4596, 111.1031]), atol=0.01
    )
    assert torch.allclose(images.float().std((1, 2, 3)), torch.tensor([16.1208, 24.8020, 21.8782, 18.2012]), atol=0.01)


def test_pictures_follow_the_seed_alone() -> None:
    images, coordinates = render_objects(2, seed=7, size=32, textured=True)
    again, _ = render_objects(1, seed=7, size=32, start=1, textured=True)
    other, _ = render_objects(1, seed=8, size=32, start=1, textured=True)
    plain, places = render_objects(2, seed=7, size=32)
    assert again[0].equal(images[1])
    assert not other[0].equal(images[1])
    assert [len(a) for a in coordinates] == [len(a) for a in places]
    assert ((images.float() - plain.float()).abs().mean((1, 2, 3)) > 10).all()


def test_all_shapes_and_patterns_occur(scenes: list[Scene]) -> None:
    assert {int(shape) for scene in scenes for shape in scene.shapes} == set(range(len(SHAPES + MORE_SHAPES)))
    for found in (
        {texture.pattern for scene in scenes for texture in scene.textures.objects},
        {scene.textures.ground.pattern for scene in scenes},
    ):
        assert found == set(PATTERNS)


def test_places_are_on_the_objects_own_pixels(scenes: list[Scene]) -> None:
    own = 0
    for scene in scenes:
        ids = instance_map(scene, (160, 240))
        depths = (scene.positions - scene.camera).norm(dim=1)
        for k, (x, y) in enumerate(project(scene.positions, scene.camera).tolist()):
            met = int(ids[int(y * 160), int(x * 240)])
            own += met == k
            assert met == k or (met >= 0 and depths[met] < depths[k])  # or on those of one that stands before it
    assert own / sum(len(scene.sizes) for scene in scenes) > 0.85


def test_objects_stand_out_from_the_ground(scenes: list[Scene]) -> None:
    gaps = []
    for scene in scenes[:12]:
        picture, ids = render(scene, (80, 120)), instance_map(scene, (80, 120))
        ground = picture[:, ids < 0].mean(1)
        gaps += [float((picture[:, ids == k].mean(1) - ground).norm()) for k in range(len(scene.sizes))]
    gaps = torch.tensor(gaps)
    assert gaps.median() > 0.3
    assert gaps.quantile(0.1) > 0.1


def level(shape: int, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """At most 1 inside of the shape."""
    if shape == 1:
        return x * x + y * y + z * z
    if shape == 2:
        return torch.maximum(x * x + y * y, z * z)
    if shape == 3:
        return torch.maximum((x * x + y * y).sqrt() - (1 - z) / 2 + 1, z.abs())
    if shape == 4:
        return (x * x + y * y) / 0.68**2 + z * z
    x, y, z = (x / 0.5, y / 0.5, z) if shape == 5 else (x, y, z)
    axes = [x.abs(), y.abs(), z.abs()]
    if shape in (0, 5):
        pairs = [(x.abs() + y.abs()) / 1.88, (y.abs() + z.abs()) / 1.88, (z.abs() + x.abs()) / 1.88]
        return torch.stack(axes + pairs).amax(0)
    return torch.stack([*axes, sum(axes) / 1.5]).amax(0)


@pytest.mark.parametrize("shape", range(7))
def test_intervals_against_marching(shape: int) -> None:
    rng = seeded(shape)
    origin = torch.randn(3, 400, generator=rng) * 0.8
    direction = torch.randn(3, 400, generator=rng)
    inside = level(shape, *(origin[..., None] + direction[..., None] * torch.linspace(-8, 8, 4001))) <= 1
    enter, leave = interval(shape, tuple(origin), tuple(direction))
    length = (inside.sum(1) * 16 / 4000).float()
    # Rays that only graze the shape, or reach past the marched range, say nothing here.
    fair = ((leave - enter).abs() > 0.05) & (enter.abs() < 7) & (leave.abs() < 7)
    assert (fair & (length > 0)).sum() > 50
    assert (enter >= leave).sum() > 20
    assert torch.allclose((leave - enter).clamp_min(0)[fair], length[fair], atol=0.01)
    assert bool((length[enter >= leave] < 0.02).all())


@pytest.mark.parametrize("shape", range(7))
def test_normals_against_the_gradient(shape: int) -> None:
    rng = seeded(shape)
    origin = torch.nn.functional.normalize(torch.randn(3, 400, generator=rng), dim=0) * 4
    direction = torch.randn(3, 400, generator=rng) * 0.3 - origin
    enter, leave = interval(shape, tuple(origin), tuple(direction))
    points = (origin + enter * direction)[:, enter < leave].requires_grad_()
    (gradient,) = torch.autograd.grad(level(shape, *points).sum(), points)
    cosine = (torch.nn.functional.normalize(gradient, dim=0) * normal(shape, tuple(points.detach()))).sum(0)
    assert len(cosine) > 100
    round_edges = {0: 0.6, 2: 0.85, 5: 0.6}  # of cube, cylinder and tower
    assert (cosine > 0.99).float().mean() > round_edges.get(shape, 0.99)
    assert (cosine > 0).all()


def test_noise_against_its_definition() -> None:
    lattice = torch.rand(LATTICE, LATTICE, LATTICE, generator=seeded(0))
    cells = torch.randn(3, 50, generator=seeded(1)) * 20
    low = cells.floor()
    smooth = (cells - low) ** 2 * (3 - 2 * (cells - low))
    expected = torch.zeros(50)
    for corner in product((0, 1), repeat=3):
        weight = torch.stack([s if c else 1 - s for c, s in zip(corner, smooth, strict=True)]).prod(0)
        x, y, z = (low + torch.tensor(corner)[:, None]).long() % LATTICE
        expected += weight * lattice[z, y, x]
    assert torch.allclose(_noise(lattice, cells), expected, atol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_vary_between_their_colours(pattern: str) -> None:
    texture = attrs.evolve(sample_textures(1, seeded(0)).objects[0], pattern=pattern)
    texture = attrs.evolve(texture, colors=torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]))
    color = paint(texture, torch.randn(3, 2000, generator=seeded(1)) * 3)
    assert color.min() >= 0
    assert color.max() <= 1
    share = color[1] / (color[0] + color[1])  # whatever the grain
    assert share.std() > 0.1


def test_textures_turn_with_their_objects(scenes: list[Scene]) -> None:
    scene = scenes[1]
    turn = torch.tensor(0.9)
    moved = attrs.evolve(
        scene, rotations=scene.rotations + turn, positions=scene.positions + torch.tensor([1.0, 2.0, 0.0])
    )
    offsets, ids = torch.randn(3, 30, generator=seeded(0)), torch.zeros(30, dtype=torch.long)
    spin = torch.tensor([[turn.cos(), -turn.sin(), 0], [turn.sin(), turn.cos(), 0], [0, 0, 1]])
    before = surface_albedos(scene, scene.positions[0][:, None] + offsets, ids)
    after = surface_albedos(moved, moved.positions[0][:, None] + spin @ offsets, ids)
    assert torch.allclose(before, after, atol=1e-2)
    assert ground_albedo(scene, offsets).shape == (3, 30)


@pytest.mark.parametrize(
    ("spec", "options"),
    [
        ("crowded:3-5:24x16", {"objects": (3, 5), "size": (24, 16), "variety": KINDS["crowded"]}),
        ("textured:2-4", {"objects": (2, 4), "textured": True}),
        ("textured", {"textured": True}),  # of 3 to 5 objects
    ],
)
def test_a_kind_counts_and_a_size(spec: str, options: dict[str, Any]) -> None:
    """Of held-out scenes."""
    examples = ClevrSource().examples(f"synthetic:{spec}", count=2, seed=4)
    images, places = render_objects(2, seed=HELD_OUT + 4, **options)
    for example, image, values in zip(examples, images, places, strict=True):
        assert torch.equal(example.image, image.float() / 127.5 - 1.0)
        assert [(one["x"], one["y"]) for one in example.conditions] == [(x, y) for x, y, *_ in values.tolist()]
    assert images.shape[2:] == ((16, 24) if "size" in options else images.shape[2:])
    with pytest.raises(InputError, match="a width and a height from 16 to 4096"):
        ClevrSource().examples("synthetic:3-5:9x9", count=1, seed=0)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    ClevrSource().write(tmp_path, count=1, seed=4, options="textured:3:48x32", progress=lambda done: None)
    scene = scene_of(WRITTEN + 4, 0, (3, 3), textured=True)
    (record,) = read(tmp_path)
    assert torch.allclose(record.coordinates, project(scene.positions, scene.camera), atol=1e-5)
    assert record.attributes == ()
    (content,) = json.loads((tmp_path / "scenes/CLEVR_train_scenes.json").read_text())["scenes"]
    assert content["ground_texture"] == scene.textures.ground.pattern
    assert [entry["texture"] for entry in content["objects"]] == [t.pattern for t in scene.textures.objects]
    names = SHAPES + MORE_SHAPES
    assert [names.index(entry["shape"]) for entry in content["objects"]] == scene.shapes.tolist()
