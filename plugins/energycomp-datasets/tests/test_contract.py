"""One contract of all sources that draw their images, and one of all networks whose weights this package ships."""

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from energycomp.errors import CheckpointError, InputError
from energycomp.files import read_tensors
from energycomp.images import ImageProcessor, from_bytes
from energycomp.plugins import find
from energycomp.seeds import seeded
from energycomp_datasets.clevr.layout import described_record
from energycomp_datasets.clevr.reader import SceneReader, load_reader
from energycomp_datasets.clevr.scenes import sample_scene
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_datasets.clevr.videos import parse_videos
from energycomp_datasets.faces.source import draw as face
from energycomp_datasets.rooms.classifier import Classifier, load_classifier
from energycomp_datasets.rooms.rooms import layout as rooms_layout
from energycomp_datasets.rooms.source import arrow_room, arrow_source, room
from energycomp_datasets.shapes.lit import factors, render
from energycomp_datasets.shapes.shapes import layout as shapes_layout
from energycomp_datasets.shapes.source import draw as shapes
from energycomp_datasets.shipped import save_network
from energycomp_datasets.solids.solids import CONCEPTS, picture
from energycomp_datasets.solids.source import TextSource, draw as solids
from energycomp_datasets.synthetic import HELD_OUT, WRITTEN
from energycomp_lab.checks import check_dataset
from energycomp_lab.evaluation import DataSource

# Image number `index` of a seed, as training draws it.
DRAWN: dict[str, Callable[[int, int], Tensor]] = {
    "faces": lambda index, seed: from_bytes(torch.from_numpy(face(index, seed, "a")[0].copy()).permute(2, 0, 1)),
    "decomp": lambda index, seed: shapes(index, seed).image,
    "decomp-b": lambda index, seed: shapes(index, seed, world="b").image,
    "lit": lambda index, seed: render(factors(5, seed)[index : index + 1])[0],
    "slots": lambda index, seed: arrow_room(index, seed).image,
    "slots-rooms": lambda index, seed: room(index, seed).image,
    "slots-sprites": lambda index, seed: shapes(index, seed).image,
    "text": lambda index, seed: solids(index, seed)[1],
}
# What is no data of a source, and what the error says.
REFUSED: dict[str, dict[str, list[str]]] = {
    "faces": {"CelebA's layout": ["synthetic:3-5", "nowhere"]},
    "decomp": {"expected": ["synthetic:c", "synthetic:b:2:3", "synthetic:9", "nowhere", "empty"]},
    "slots": {"expected": ["synthetic:3", "nowhere.npz"]},
    "slots-rooms": {"expected": ["synthetic:4", "nowhere"]},
    "slots-sprites": {"expected": ["synthetic:9"]},
    "text": {
        "expected one of synthetic, synthetic:seen, synthetic:1, synthetic:3": [
            "synthetic:2", "synthetic:", "synthetic:unseen", "synthetic3",
        ],
        "which is not a folder": ["nowhere", "file", "nul\0byte", "x" * 300],
    },
}  # fmt: skip
CASES = [(name, spec, said) for name, known in REFUSED.items() for said, specs in known.items() for spec in specs]


@pytest.mark.parametrize("name", DRAWN)
def test_a_source_conforms(name: str) -> None:
    check_dataset(find("datasets", name)())


@pytest.mark.parametrize("name", DRAWN)
def test_examples_are_held_out_and_depend_on_seed_and_index_alone(name: str) -> None:
    source: DataSource = find("datasets", name)()
    few, many = (source.examples("synthetic", count=count, seed=1) for count in (2, 5))
    assert len(many) == 5
    one, other = few[1], many[1]
    assert (one.name, one.conditions) == (other.name, other.conditions)
    for a, b in ((one.image, other.image), (one.masks, other.masks), (one.factors, other.factors)):
        assert (a is None and b is None) or torch.equal(a, b)
    assert not torch.equal(many[0].image, many[1].image)
    assert not torch.equal(many[0].image, source.examples("synthetic", count=1, seed=2)[0].image)
    assert torch.equal(one.image, DRAWN[name](1, HELD_OUT + 1))
    assert not torch.equal(one.image, DRAWN[name](1, 1))


FOLDERS = [*((name, "") for name in DRAWN if name != "faces"), ("decomp", "b"), ("slots-rooms", "2"),
           *(("text", kind) for kind in ("seen", "1", "3"))]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), FOLDERS)
def test_a_folder_is_read_as_it_was_written(name: str, options: str, tmp_path: Path) -> None:
    """It holds the scenes of its own seed, which are neither those of training nor those that are held out."""
    source: Any = find("datasets", name)()
    told: list[int] = []
    source.write(tmp_path, count=3, seed=5, options=options, progress=told.append)
    assert told == [1, 2, 3]
    spec = f"synthetic:{options}" if options else "synthetic"
    drawn = source.examples(spec, count=3, seed=WRITTEN + 5 - HELD_OUT)
    written = sorted(source.examples(str(tmp_path), count=9, seed=0), key=lambda one: Path(one.image).name)
    assert len({0, HELD_OUT, WRITTEN}) == len(written) == 3
    for one, other in zip(written, drawn, strict=True):
        image = ImageProcessor(size=tuple(other.image.shape[1:]))(one.image)[0]
        assert float((image - other.image).abs().max()) <= 1.01 / 127.5
        assert one.conditions == other.conditions
        assert (one.masks is None and other.masks is None) or torch.equal(one.masks, other.masks)
        assert (one.factors is None and other.factors is None) or torch.allclose(one.factors, other.factors, atol=1e-5)


@pytest.mark.parametrize(("name", "spec", "said"), CASES)
def test_data_that_is_not_there(
    name: str, spec: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file").write_text("")
    with pytest.raises(InputError, match=said):
        find("datasets", name)().examples(spec, count=1, seed=0)


def pictures_in(folder: Path) -> str:
    """A folder of images whose name says no concept."""
    (folder / ",").mkdir()
    Image.new("RGB", (8, 8)).save(folder / "," / "1.png")
    return str(folder)


RANDOM = np.random.default_rng(0)
UNDRAWN: dict[str, tuple[Callable[[Path], object], str]] = {
    "six shapes": (lambda _: shapes_layout(RANDOM, 6), "expected"),
    "fewer than no shapes": (lambda _: shapes_layout(RANDOM, -1), "expected"),
    "world of shapes": (lambda _: shapes_layout(RANDOM, 2, world="c"), "expected"),
    "four solids in a room": (lambda _: rooms_layout(RANDOM, 4), "expected 0 to 3"),
    "eleven objects": (lambda _: sample_scene(11, seeded(0)), "expected 0 to 10"),
    "fewer than no objects": (lambda _: sample_scene(-1, seeded(0)), "expected 0 to 10"),
    **{f"solids {names}": (lambda _, names=names: picture(names, RANDOM), "expected some of red cube")
       for names in (["red cone"], ["cube"], ["purple cube"], ["red cube", "cat"])},
    "five solids": (lambda _: picture(CONCEPTS[:5], RANDOM), "at most 4"),
    **{f"videos {text}": (lambda _, text=text: parse_videos(text), "expected")
       for text in ("still", "1-3", "4-9", "8x8", "3f", "4-6:red")},
    **{f"clevr {spec}": (lambda _, spec=spec: ClevrSource().examples(spec, count=1, seed=0), "two counts from 0 to 10")
       for spec in ("synthetic:texture:3-5", "synthetic:textured:11", "synthetic:textured:3-5:4")},
    "a concept without a place": (lambda _: described_record([{"concept": "cat"}], "a.png"), "without a place"),
    "a place in the sky": (lambda _: described_record([{"x": 0.5, "y": -1.0}], "a.png"), "horizon"),
    "a folder without concepts": (
        lambda folder: TextSource().examples(pictures_in(folder), count=1, seed=0), "expected the concepts of its"),
    "options of writing": (lambda folder: TextSource().write(
        folder, count=1, seed=0, options="2", progress=lambda _: None), "'2'; expected one of seen, 1, 3, or none"),
    "options of arrow rooms": (lambda folder: arrow_source().write(
        folder, count=1, seed=0, options="3", progress=lambda _: None), "expected none"),
    **{f"classifier {shape}": (lambda _, shape=shape: Classifier().verdicts(torch.zeros(shape)), "expected")
       for shape in ((3, 32, 32), (1, 3, 64, 64), (1, 1, 32, 32))},
    "reader": (lambda _: load_reader().read(torch.zeros(1, 3, 64, 64)), r"expected \(B, 3, 128, 128\)"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), UNDRAWN.values(), ids=UNDRAWN)
def test_what_cannot_be_drawn_or_read(call: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        call(tmp_path)


NETWORKS: dict[str, tuple[Any, Any, Any]] = {  # as it ships, how it is loaded, and one of other sizes
    "classifier": (Classifier, load_classifier, lambda: Classifier((8, 8, 8, 8), width=8)),
    "reader": (SceneReader, load_reader, lambda: torch.nn.Linear(1, 1)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_are_float16(name: str) -> None:
    weights = Path(str(files("energycomp_datasets") / "weights" / name))
    assert sum(file.stat().st_size for file in weights.iterdir()) < (5_000_000 if name == "reader" else 1_000_000)
    assert {tensor.dtype for tensor in read_tensors(weights / "model.safetensors").values()} == {torch.float16}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_saved_and_loaded(name: str, tmp_path: Path) -> None:
    make, load, other = NETWORKS[name]
    save_network(other(), tmp_path / "new" / "other")
    with pytest.raises(CheckpointError, match="expected"):
        load(tmp_path / "new" / "other")
    network = make()
    save_network(network, tmp_path / "whole")
    loaded = load(tmp_path / "whole")
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    state = loaded.state_dict()
    for key, tensor in network.state_dict().items():
        np.testing.assert_array_equal(state[key], tensor.half().to(tensor.dtype))
    file = tmp_path / "whole" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CheckpointError, match="is damaged"):
        load(tmp_path / "whole")
