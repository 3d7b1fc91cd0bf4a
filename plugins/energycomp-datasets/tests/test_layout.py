import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp_datasets.clevr.geometry import CAMERA_POSITION
from energycomp_datasets.clevr.layout import (
    described_record,
    read,
    record_of,
    render_objects,
    scene_of,
    turns_of,
    write,
)
from energycomp_datasets.clevr.scenes import Scene, id_buffer, project
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_datasets.synthetic import HELD_OUT

REAL = Path(__file__).resolve().parents[4] / "shared/data/clevr_real_dev"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 3, seed=4, size=(48, 32))
    return tmp_path


def test_what_is_written_reads_back_with_official_fields(folder: Path) -> None:
    records = read(folder)
    assert [record.path.name for record in records] == [f"CLEVR_train_{index:06d}.png" for index in range(3)]
    for index, record in enumerate(records):
        scene = scene_of(4, index, (3, 5))
        assert record.count == len(scene.sizes)
        assert torch.allclose(record.coordinates, project(scene.positions, scene.camera), atol=1e-5)
        with Image.open(record.path) as picture:
            assert picture.size == (48, 32)
    content = json.loads((folder / "scenes/CLEVR_train_scenes.json").read_text())
    record = content["scenes"][1]
    assert set(record) == {"image_index", "image_filename", "split", "directions", "objects"}
    fields = {"3d_coords", "pixel_coords", "shape", "color", "material", "size", "rotation"}
    assert all(set(entry) == fields and len(entry["pixel_coords"]) == 3 for entry in record["objects"])
    assert set(record["directions"]) == {"left", "right", "front", "behind", "above", "below"}


def cubes(camera: torch.Tensor | None = None) -> Scene:
    """A scene of cubes, seen from CLEVR's mean camera."""
    scene = scene_of(4, 0, (5, 5))
    return attrs.evolve(
        scene, shapes=torch.zeros_like(scene.shapes), camera=torch.tensor(CAMERA_POSITION) if camera is None else camera
    )


def angle(one: torch.Tensor, other: torch.Tensor) -> float:
    """The greatest angle between turns, modulo 90 degrees."""
    away = (one - other) % 90
    return float(torch.minimum(away, 90 - away).max())


def test_a_turn_is_the_rotation_against_the_line_of_sight() -> None:
    """In three dimensions: the angle on the ground between the axis of a cube and what leads from the camera to it."""
    moved = torch.tensor(CAMERA_POSITION) + torch.tensor([0.4, -0.3, 0.4])
    for camera, most in ((None, 0.01), (moved, 1.0)):  # the record does not say how the camera is pitched
        scene = cubes(camera)
        dx, dy = (scene.positions - scene.camera)[:, :2].unbind(1)
        expected = (scene.rotations - torch.atan2(dy, dx)).rad2deg()
        found = turns_of(record_of(scene, "train", 0, "a.png"), project(scene.positions, scene.camera))
        assert angle(found, expected) < most
        assert ((found >= 0) & (found < 90)).all()


def test_turns_of_a_mirrored_scene_are_negative() -> None:
    """A scene that the renderer shows as the mirror image."""
    scene = cubes()
    azimuth = math.atan2(-CAMERA_POSITION[1], -CAMERA_POSITION[0])  # of the plane that the camera looks along
    cosine, sine = math.cos(2 * azimuth), math.sin(2 * azimuth)
    reflection = torch.tensor([[cosine, sine, 0.0], [sine, -cosine, 0.0], [0.0, 0.0, 1.0]])
    mirrored = attrs.evolve(scene, positions=scene.positions @ reflection, rotations=2 * azimuth - scene.rotations)
    same = id_buffer(mirrored, 32, 48)[0] == id_buffer(scene, 32, 48)[0].flip(1)
    assert float(same.float().mean()) > 0.99
    turns = [
        turns_of(record_of(one, "train", 0, "a.png"), project(one.positions, one.camera)) for one in (scene, mirrored)
    ]
    assert turns[1] is not None
    assert angle(turns[1], -turns[0]) < 0.01


@contextmanager
def edited(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of a folder, to be changed."""
    file = folder / "scenes" / "CLEVR_train_scenes.json"
    content = json.loads(file.read_text())
    yield content
    file.write_text(json.dumps(content))


def test_what_a_record_does_not_say_is_left_open(folder: Path) -> None:
    for record in read(folder):
        assert record.turns.isnan().tolist() == [one["shape"] != "cube" for one in record.attributes]
    with edited(folder) as content:
        del content["scenes"][0]["objects"][0]["rotation"], content["scenes"][1]["directions"]
    assert [record.turns is None for record in read(folder)] == [True, True, False]
    with edited(folder) as content:
        del content["scenes"][0]["objects"][0]["material"]
    first, second, *_ = read(folder)
    assert first.attributes[0].keys() == {"size", "color", "shape"}
    assert first.attributes[1].keys() == second.attributes[0].keys() == {"size", "color", "material", "shape"}


def test_splits_are_read_in_order_nothing_partial_is_left_and_progress_is_told(tmp_path: Path, folder: Path) -> None:
    told = []
    write(tmp_path / "new", 2, split="val", size=(24, 16), progress=told.append)
    assert told == [1, 2]
    assert not [path for path in (tmp_path / "new").rglob("*") if path.name.startswith(".")]
    write(folder, 1, split="val", seed=5, size=(48, 32))
    (folder / "images/test").mkdir()
    assert [record.path.parent.name for record in read(folder)] == ["train"] * 3 + ["val"]


def test_arrays_do_not_depend_on_the_order_and_counts_span_the_asked_range() -> None:
    images, coordinates = render_objects(3, seed=7, size=16)
    later, later_coordinates = render_objects(1, seed=7, size=16, start=2)
    assert images.shape == (3, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert later[0].equal(images[2])
    assert later_coordinates[0].equal(coordinates[2])
    counts = {len(scene_of(0, index, (1, 3)).sizes) for index in range(20)}
    assert counts == {1, 2, 3}


def test_a_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="expected the layout of CLEVR"):
            read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "expected the records of CLEVR") for text in ("{", "[]", "3", '{"scenes": [{}]}')),
        ('{"scenes": [{"image_filename": "a.png", "objects": [{}]}]}', "expected the records of CLEVR"),
        ('{"scenes": []}', "expected one record per image"),
    ],
)
def test_malformed_records_are_refused(folder: Path, text: str, message: str) -> None:
    (folder / "scenes/CLEVR_train_scenes.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read(folder)


@pytest.mark.parametrize("name", ["../../outside.png", "/outside.png", "..", 3, None])
def test_pictures_that_are_missing_or_outside_of_the_folder_are_refused(folder: Path, name: object) -> None:
    (folder / "images/train/CLEVR_train_000001.png").unlink()
    if name is not None:
        with edited(folder) as content:
            content["scenes"][0]["image_filename"] = name
    with pytest.raises(InputError, match="expected the records of CLEVR" if name else "CLEVR_train_000001"):
        read(folder)


@pytest.mark.skipif(not REAL.exists(), reason="the official pictures are not beside this checkout")
def test_the_official_layout() -> None:
    records = read(REAL)
    assert len(records) == 60
    assert all(record.coordinates.min() >= 0 and record.coordinates.max() <= 1 for record in records)


def test_examples_are_rendered_when_they_are_asked_for() -> None:
    examples = ClevrSource().examples("synthetic:2-4", count=1_000_000, seed=4)
    images, values = render_objects(3, objects=(2, 4), seed=HELD_OUT + 4)
    assert len(examples) == 1_000_000
    for example, image, value in zip(examples[:3], images, values, strict=True):
        assert torch.equal(example.image, image.float() / 127.5 - 1.0)
        found = [(one["x"], one["y"]) for one in example.conditions or ()]
        assert found == [(x, y) for x, y in value[:, :2].tolist()]
    assert examples[-1].name == "scene 999999"
    with pytest.raises(IndexError):
        examples[1_000_000]


def test_objects_are_described_in_three_dimensions() -> None:
    """The places of a record under the mean camera; a scene's own camera differs from it."""
    scene = attrs.evolve(scene_of(4, 1, (4, 4)), camera=torch.tensor(CAMERA_POSITION))
    places = project(scene.positions, scene.camera)
    sizes = ["large" if size > 0.5 else "small" for size in scene.sizes]
    objects = [{"x": x, "y": y, "size": size} for (x, y), size in zip(places.tolist(), sizes, strict=True)]
    found = torch.tensor([entry["3d_coords"] for entry in described_record(objects, "a.png")["objects"]])
    assert torch.allclose(found, scene.positions, atol=1e-3)
