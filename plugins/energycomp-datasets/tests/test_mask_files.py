"""Sources of scenes with masks: drawn ones, folders, public files of others, and scenes that a model makes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp_datasets.rooms import training
from energycomp_datasets.rooms.arrow_room import arrow_rooms, layout, render
from energycomp_datasets.rooms.mask_files import examples_in, images_in, mask_file
from energycomp_datasets.rooms.source import arrow_source, room, rooms_source, sprites_source
from energycomp_datasets.rooms.training import draw_world, in_file
from energycomp_datasets.synthetic import WRITTEN
from energycomp_lab.evaluation import DataSource

SOURCES: list[DataSource] = [arrow_source(), sprites_source(), rooms_source()]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: type(source).__name__)
def test_true_masks_are_found_whole(source: DataSource) -> None:
    examples = source.examples("synthetic", count=3, seed=0)
    true = [example.masks for example in examples]
    metrics = source.metrics()
    metrics.update(true, true)
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found == {"ari_fg": 1.0, "slots_used": pytest.approx(np.mean([len(masks) for masks in true]))}


@pytest.mark.parametrize(("source", "spec"), [(sprites_source(), "synthetic:4"), (rooms_source(), "synthetic:2")])
def test_so_many_objects(source: DataSource, spec: str) -> None:
    counts = {len(example.masks) for example in source.examples(spec, count=4, seed=0)}
    assert counts == {int(spec[-1])}


class Sampler:
    """Makes the scenes it was given, and notes how many were asked for at once."""

    def __init__(self, scenes: Tensor) -> None:
        self.scenes, self.sizes, self.draws = scenes, list[int](), list[int]()

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        self.sizes.append(n)
        self.draws.append(int(torch.randint(1 << 30, (), generator=generator)))
        start = sum(self.sizes[:-1])
        return self.scenes[start : start + n]


def test_sampled_scenes_are_scored() -> None:
    rng = np.random.default_rng(0)
    right = arrow_rooms(rng, 60).images
    wrong = render(layout(rng, np.ones((60, 3), dtype=int), rng.integers(3, size=60))).images
    sampler = Sampler(torch.stack([right, wrong], 1).flatten(0, 1))
    scores = arrow_source().scene_scores(sampler, count=120, seed=0)
    assert sampler.sizes == [50, 50, 20]
    assert scores["structure_accuracy"] == pytest.approx(0.5, abs=0.04)
    again = Sampler(right)
    arrow_source().scene_scores(again, count=60, seed=0)
    assert again.draws == sampler.draws[:2]
    assert len(set(sampler.draws)) == 3


def scenes(count: int = 3, entities: int = 5, size: tuple[int, int] = (8, 6)) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, H, W, 3) and masks (N, K, H, W): entity k fills column k, and the last is empty in every other."""
    images = np.random.default_rng(0).integers(256, size=(count, *size, 3), dtype=np.uint8)
    masks = np.zeros((count, entities, *size), dtype=np.uint8)
    for k in range(entities):
        masks[:, k, :, k] = 255
    masks[1::2, -1] = 0
    return images, masks


def write(path: Path, **arrays: Any) -> Path:
    if path.suffix == ".npz":
        save = np.savez_compressed if path.stem == "small" else np.savez
        save(path, **arrays)
    else:
        h5py = pytest.importorskip("h5py", reason="h5py, an optional dependency, is not installed")
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    return path


@pytest.fixture(params=["plain.npz", "small.npz", "scenes.h5", "scenes.hdf5"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    return tmp_path / request.param


@pytest.mark.parametrize(("images_name", "masks_name"), [("image", "mask"), ("imgs", "masks")])
def test_a_public_file_is_read(path: Path, images_name: str, masks_name: str) -> None:
    images, masks = scenes()
    kept = {images_name: images, masks_name: masks[..., None] if masks_name == "mask" else masks > 0}
    write(path, **kept, visibility=np.ones((3, 5), dtype=np.uint8))
    for source in SOURCES:
        examples = source.examples(str(path), count=2, seed=0)
        assert [len(example.masks) for example in examples] == [4, 3]  # without the background, and without padding
        for index, example in enumerate(examples):
            assert np.array_equal(example.image, images[index])
            assert np.array_equal(example.masks, masks[index, 1 : 1 + len(example.masks)] > 0)
    assert [len(example.masks) for example in rooms_source().examples(f"{path}:3", count=9, seed=0)] == [2, 1, 2]
    assert np.array_equal(np.concatenate(list(images_in(path, most=2))), images[:2])


def test_pictures_are_read_some_at_a_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp_datasets.rooms.mask_files.CHUNK", 2)
    images, _ = scenes(5)
    write(path, images=images)
    parts = list(images_in(path, most=9))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert np.array_equal(np.concatenate(parts), images)


@pytest.mark.parametrize(
    ("spec", "background"),
    [("objects_room_train.npz", 4), ("a/ObjectsRoom.H5", 4), ("objects room.npz:3", 3), ("clevr.hdf5", 1)],
)
def test_which_entities_are_background(spec: str, background: int) -> None:
    file = mask_file(spec)
    assert file.background == background
    assert f"{file.path}" == spec.removesuffix(":3")
    assert mask_file(Path(spec).stem) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i, m: {"pictures": i, "mask": m}, "an array image or images or imgs"),
        (lambda i, _: {"image": i}, "an array mask or masks"),
        (lambda i, m: {"image": i.astype(np.float32), "mask": m}, r"float32 \(3, 8, 6, 3\); expected uint8"),
        (lambda i, m: {"image": i.transpose(0, 3, 1, 2).copy(), "mask": m}, r"expected uint8 \(N, H, W, 3\)"),
        (lambda i, m: {"image": i[:0], "mask": m[:0]}, "at least one image"),
        (lambda i, m: {"image": i, "mask": m[0]}, r"\(N, K, H, W\)"),
        (lambda i, m: {"image": i, "mask": m.astype(np.int64)}, "uint8 or bool"),
        (lambda i, m: {"image": i, "mask": m[:2]}, "as many, of one size"),
        (lambda i, m: {"image": i, "mask": m[:, :, :4]}, "as many, of one size"),
        (lambda i, m: {"image": i, "mask": np.tile(m, (1, 13, 1, 1))}, "K at most 64"),
        (lambda i, m: {"image": np.tile(i, (1, 129, 1, 1)), "mask": m}, "at most 1024 pixels"),
    ],
)
def test_arrays_that_do_not_fit(path: Path, change: Any, message: str) -> None:
    write(path, **change(*scenes()))
    with pytest.raises(InputError, match=message):
        rooms_source().examples(str(path), count=2, seed=0)


def refused(path: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rooms_source().examples(str(path), count=1, seed=0)


def test_more_background_or_memory_than_there_is_and_damaged_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = scenes()
    write(path, image=images, mask=masks)
    assert len(rooms_source().examples(f"{path}:5", count=1, seed=0)[0].masks) == 0
    refused(f"{path}:6", "6 background entities")
    monkeypatch.setattr("energycomp_datasets.rooms.mask_files.MOST_BYTES", 2 * (8 * 6 * 3 + 5 * 8 * 6))
    with pytest.raises(InputError, match="use -n 2"):
        examples_in(mask_file(path), count=3)
    assert len(examples_in(mask_file(path), count=2)) == 2
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        path.write_bytes(content)
        refused(path, "cannot be read")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    objects = np.empty((3, 8, 6, 3), dtype=object)
    objects[:] = Attack()
    np.savez(tmp_path / "objects.npz", image=objects, mask=scenes()[1])
    refused(tmp_path / "objects.npz", "object")
    assert not (tmp_path / "touched").exists()


def test_arrays_in_fortran_order_in_other_files_or_without_h5py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, masks = scenes()
    np.savez(tmp_path / "turned.npz", image=np.asfortranarray(images), mask=masks)
    refused(tmp_path / "turned.npz", "Fortran order")
    h5py = pytest.importorskip("h5py", reason="h5py, an optional dependency, is not installed")
    write(tmp_path / "other.h5", image=images)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["image"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/image")
        file["mask"] = masks
    refused(tmp_path / "link.h5", "no array of this file")
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(tmp_path / "other.h5", "pip install h5py")


@pytest.mark.parametrize("world", training.WORLDS)
def test_training_pictures(world: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "DRAWN", 12)
    monkeypatch.setattr(training, "CHUNK", 5)
    images = draw_world(world, 16).images
    assert images.shape == (12, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert len(images.flatten(1).unique(dim=0)) == 12
    assert torch.equal(images, draw_world(world, 16).images)


def test_training_pictures_of_ones_own(path: Path) -> None:
    images, _ = scenes()
    write(path, images=images)
    found = in_file(Path(f"{path}:4"), ImageProcessor(size=(8, 6))).images
    assert np.array_equal(found.permute(0, 2, 3, 1), images)


def test_training_pictures_of_a_folder_and_of_no_world(tmp_path: Path) -> None:
    rooms_source().write(tmp_path, count=2, seed=3, options="2", progress=lambda _: None)
    found = in_file(tmp_path, ImageProcessor(size=(32, 32))).images
    assert torch.equal(found[1], ((room(1, WRITTEN + 3, counts=(2, 2)).image + 1) * 127.5).round().byte())
    with pytest.raises(InputError, match="expected one of arrow, sprites, rooms"):
        draw_world("clevr", 32)
