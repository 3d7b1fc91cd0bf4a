"""The shipped weights: objects and scenes, and what people do with them at the command line."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import energycomp
from energycomp.decomposition import traverse
from energycomp.plugins import find
from energycomp.seeds import seeded
from energycomp_datasets.rooms.arrow_room import arrow_rooms
from energycomp_datasets.rooms.classifier import load_classifier, structure_accuracy
from energycomp_lab.checks import check_model
from energycomp_lab.evaluation import evaluate
from energycomp_slots.decomposer import SlotDecomposer

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def slots() -> SlotDecomposer:
    return SlotDecomposer(energycomp.load("slots"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("pictures") / "room.png"
    save(arrow_rooms(np.random.default_rng(5), 1).images[0], path)
    return str(path)


def save(image: Tensor, path: Path) -> None:
    Image.fromarray(((image + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(path)


@pytest.mark.parametrize("name", ["slots", "slots-sprites"])
def test_slots_are_objects(name: str) -> None:
    model, source = energycomp.load(name), find("datasets", name)()
    examples = source.examples("synthetic", count=12, seed=1)
    report = evaluate(model, examples, source.metrics(), seed=1, progress=False)
    assert report.values["ari_fg"] > 0.9
    assert report.values["mse"] < report.values["mse_baseline"] / 10


def test_scenes_have_the_structure_of_rooms(slots: SlotDecomposer) -> None:
    assert slots.sample is not None
    scenes = slots.sample(100, generator=seeded(1))
    rooms = arrow_rooms(np.random.default_rng(6), 100)
    assert structure_accuracy(rooms.images) > 0.95
    assert structure_accuracy(slots.decode(slots.encode(rooms.images))) > 0.95
    assert structure_accuracy(scenes) > 0.8
    assert len({tuple(row) for row in load_classifier()(scenes)[0].argmax(2).tolist()}) > 6


def test_one_number_changes_one_object(slots: SlotDecomposer) -> None:
    rooms = arrow_rooms(np.random.default_rng(7), 8)
    latents = slots.encode(rooms.images)
    masks = slots.parts(latents).masks
    moved = []
    for slot in range(slots.slots):
        first, last = (slots.decode(some) for some in traverse(latents, slot, 0, [-1.5, 1.5]))
        moved.append(((first - last).abs().mean(1) / 2 * ~masks[:, slot]).mean((1, 2)))
    assert torch.stack(moved).mean() < 0.02


def test_slots_without_a_pixel_are_white(slots: SlotDecomposer) -> None:
    parts = slots.parts(slots.encode(arrow_rooms(np.random.default_rng(7), 8).images))
    empty = ~parts.masks.any((2, 3))
    assert 0 < empty.sum() < empty.numel()
    assert bool((parts.images[empty] == 1).all())
    assert bool((parts.images[~empty] < 0).flatten(1).any(1).all())


def test_the_command_line(picture: str, answer: Any) -> None:
    assert answer("sample", "slots", "-n", 4, "--grid", "-o", "scenes.png")["n"] == 4
    taken = answer("decompose", "slots", picture, "-o", "strip.png")
    assert len(taken["images"][0]["parts"]) == SlotDecomposer(energycomp.load("slots")).slots
    row = answer("traverse", "slots", picture, "--part", 2, "--dim", 5, "-o", "row.png")
    assert {"changed", "outside", "values"} <= row.keys()
    scores = answer("evaluate", "slots", "-n", 5, "--samples", 10)
    keys = {"ari_fg", "mse", "structure_accuracy", "slots_used", "images"}
    assert keys <= scores.keys()
    assert all(Path(name).is_file() for name in ("scenes.png", "strip.png", "row.png"))


def test_nothing_is_searched_for(picture: str, run: Any) -> None:
    for command in (("infer", "slots", picture), ("edit", "slots", picture, "--remove", 1)):
        assert "energycomp decompose" in run(*command)[2]


def test_odd_pictures(slots: SlotDecomposer) -> None:
    rooms = arrow_rooms(np.random.default_rng(8), 2).images
    large = torch.nn.functional.interpolate(rooms, scale_factor=3)
    assert (slots.decode(slots.encode(large)) - slots.decode(slots.encode(rooms))).abs().mean() < 0.02
    grey = Image.fromarray(((rooms[0].mean(0) + 1) * 127.5).byte().numpy(), "L")
    constant = torch.zeros(1, 3, 32, 32)
    one = SlotDecomposer(slots.model, slots=1)
    for decomposer, pictures in ((slots, [grey]), (slots, constant), (one, rooms)):
        parts = decomposer.parts(decomposer.encode(pictures))
        assert torch.isfinite(parts.whole).all()
        assert bool((parts.masks.sum(1) == 1).all())
    with pytest.raises(energycomp.errors.InputError, match="finite"):
        slots.encode(torch.full((1, 3, 32, 32), torch.nan))


def test_more_objects_than_in_training() -> None:
    source = find("datasets", "slots-sprites")()
    examples = source.examples("synthetic:5", count=30, seed=1)
    pictures = torch.stack([example.image for example in examples])
    metric = source.metrics()["ari_fg"]
    decomposer = SlotDecomposer(energycomp.load("slots-sprites"), slots=7)
    masks = decomposer.parts(decomposer.encode(pictures)).masks
    metric.update(list(masks), [example.masks for example in examples])
    assert metric.compute() > 0.8


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "scenes_of_slots.py"))
    assert {path.name for path in tmp_path.iterdir()} == {"scenes.png", "strip.png", "traverse.png"}


@pytest.mark.parametrize("name", ["slots", "slots-sprites"])
def test_models_conform(name: str) -> None:
    check_model(energycomp.load(name))
