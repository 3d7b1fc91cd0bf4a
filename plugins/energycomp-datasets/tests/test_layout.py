import json
from pathlib import Path

import attrs
import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp_datasets.clevr.geometry import CAMERA_POSITION
from energycomp_datasets.clevr.layout import read, render_objects, scene_of, write
from energycomp_datasets.clevr.scenes import project
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_datasets.synthetic import HELD_OUT

REAL = Path(__file__).resolve().parents[4] / "shared/data/clevr_real_dev"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, 3, seed=4, size=(48, 32))
    return tmp_path


def test_what_is_written_reads_back(folder: Path) -> None:
    records = read(folder)
    assert [record.path.name for record in records] == [f"CLEVR_train_{index:06d}.png" for index in range(3)]
    for index, record in enumerate(records):
        scene = scene_of(4, index, (3, 5))
        assert record.count == len(scene.sizes)
        assert torch.allclose(record.coordinates, project(scene.positions, scene.camera), atol=1e-5)
        with Image.open(record.path) as picture:
            assert picture.size == (48, 32)


def test_official_fields(folder: Path) -> None:
    content = json.loads((folder / "scenes/CLEVR_train_scenes.json").read_text())
    record = content["scenes"][1]
    assert set(record) == {"image_index", "image_filename", "split", "directions", "objects"}
    fields = {"3d_coords", "pixel_coords", "shape", "color", "material", "size", "rotation"}
    assert all(set(entry) == fields and len(entry["pixel_coords"]) == 3 for entry in record["objects"])
    assert set(record["directions"]) == {"left", "right", "front", "behind", "above", "below"}


def test_nothing_partial_is_left_and_progress_is_told(tmp_path: Path) -> None:
    told = []
    write(tmp_path, 2, split="val", size=(24, 16), progress=told.append)
    assert told == [1, 2]
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_several_splits_and_a_test_split_without_scenes(folder: Path) -> None:
    write(folder, 1, split="val", seed=5, size=(48, 32))
    (folder / "images/test").mkdir()
    assert [record.path.parent.name for record in read(folder)] == ["train"] * 3 + ["val"]


def test_attributes_that_a_record_does_not_say_are_left_open(folder: Path) -> None:
    file = folder / "scenes" / "CLEVR_train_scenes.json"
    scenes = json.loads(file.read_text())
    del scenes["scenes"][0]["objects"][0]["material"]
    file.write_text(json.dumps(scenes))
    first, second, *_ = read(folder)
    assert first.attributes[0].keys() == {"size", "color", "shape"}
    assert first.attributes[1].keys() == second.attributes[0].keys() == {"size", "color", "material", "shape"}


def test_arrays_do_not_depend_on_the_order() -> None:
    images, coordinates = render_objects(3, seed=7, size=16)
    later, later_coordinates = render_objects(1, seed=7, size=16, start=2)
    assert images.shape == (3, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert later[0].equal(images[2])
    assert later_coordinates[0].equal(coordinates[2])


def test_counts_span_the_asked_range() -> None:
    counts = {len(scene_of(0, index, (1, 3)).sizes) for index in range(20)}
    assert counts == {1, 2, 3}


def test_a_folder_without_scenes_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match="expected the layout of CLEVR"):
            read(folder)


@pytest.mark.parametrize(
    "text", ["{", "[]", "3", '{"scenes": [{}]}', '{"scenes": [{"image_filename": "a.png", "objects": [{}]}]}']
)
def test_malformed_records_are_refused(folder: Path, text: str) -> None:
    (folder / "scenes/CLEVR_train_scenes.json").write_text(text)
    with pytest.raises(InputError, match="expected the records of CLEVR"):
        read(folder)


def test_no_records_are_refused(folder: Path) -> None:
    (folder / "scenes/CLEVR_train_scenes.json").write_text('{"scenes": []}')
    with pytest.raises(InputError, match="expected one record per image"):
        read(folder)


def test_a_missing_picture_is_named(folder: Path) -> None:
    (folder / "images/train/CLEVR_train_000001.png").unlink()
    with pytest.raises(InputError, match="CLEVR_train_000001"):
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
    found = torch.tensor([entry["3d_coords"] for entry in ClevrSource().scene_record(objects, "a.png")["objects"]])
    assert torch.allclose(found, scene.positions, atol=1e-3)


@pytest.mark.parametrize(
    ("described", "message"), [({"concept": "cat"}, "without a place"), ({"x": 0.5, "y": -1.0}, "horizon")]
)
def test_objects_that_have_no_place_in_the_scene(described: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClevrSource().scene_record([described], "a.png")


@pytest.mark.parametrize("name", ["../../outside.png", "/outside.png", "..", 3])
def test_pictures_outside_of_the_folder_are_refused(folder: Path, name: object) -> None:
    file = folder / "scenes/CLEVR_train_scenes.json"
    content = json.loads(file.read_text())
    content["scenes"][0]["image_filename"] = name
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="expected the records of CLEVR"):
        read(folder)
