"""CLEVRTex folders, written here in the layout of the public release."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp_datasets.clevr.layout import read
from energycomp_datasets.clevr.source import ClevrSource

PLACES = {0: [(160, 120), (80, 60), (240, 180)], 1: [(32, 24)] * 7, 1000: [(320, 240), (0, 0), (1, 1), (2, 2)]}


def record(index: int, places: list[tuple[int, int]]) -> dict[str, Any]:
    stem = f"CLEVRTEX_full_{index:06d}"
    entry = {"shape": "monkey", "size": "large", "rotation": 12.5, "material": "poliigonplaster07", "color": "red"}
    entry |= {"3d_coords": [0.1, 0.2, 0.9]}
    objects = [entry | {"pixel_coords": [*place, 11.6], "index": k} for k, place in enumerate(places, 1)]
    names = {"image_filename": f"{stem}.png", "mask_filename": f"{stem}_flat.png"}
    return {"num_objects": len(places), "split": "full", "image_index": index, "objects": objects} | names


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    folder = tmp_path / "clevrtex_full"
    for index, places in PLACES.items():
        stem = folder / str(index // 1000) / f"CLEVRTEX_full_{index:06d}"
        stem.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.new("RGBA", (320, 240), (index % 256, 90, 30, 255))
        picture.putpixel((160, 120), (255, 255, 255, 255))
        picture.save(stem.with_suffix(".png"))
        stem.with_suffix(".json").write_text(json.dumps(record(index, places), indent=2))
        for part in ("flat", "depth_0001", "albedo_0001", "shadow_0001", "normal_0001"):
            Image.new("L", (4, 3)).save(stem.parent / f"{stem.name}_{part}.png")
    return folder


def test_places_are_those_of_the_pictures_in_order(variant: Path) -> None:
    records = read(variant)
    assert [found.path for found in records] == [
        variant / "0/CLEVRTEX_full_000000.png",
        variant / "0/CLEVRTEX_full_000001.png",
        variant / "1/CLEVRTEX_full_001000.png",
    ]
    for found, places in zip(records, PLACES.values(), strict=True):
        assert found.count == len(places)
        assert torch.allclose(found.coordinates, torch.tensor(places) / torch.tensor([320.0, 240.0]))
    picture = ImageProcessor(size=(64, 64), resize="squash")(read(variant)[0].path)[0]
    row, column = divmod(int(picture.sum(0).argmax()), 64)
    x, y = read(variant)[0].coordinates[0]
    assert abs((column + 0.5) / 64 - x) <= 1 / 64
    assert abs((row + 0.5) / 64 - y) <= 1 / 64


@pytest.mark.parametrize("inside", [".", "..", "1"])
def test_a_folder_of_variants_a_variant_or_a_chunk(variant: Path, inside: str) -> None:
    assert len(read(variant / inside)) == (1 if inside == "1" else 3)


def test_examples_of_a_range_of_counts(variant: Path) -> None:
    source = ClevrSource()
    assert [example.name for example in source.examples(str(variant), count=2, seed=0)] == [
        "CLEVRTEX_full_000000.png",
        "CLEVRTEX_full_000001.png",
    ]
    (example,) = source.examples(f"{variant}:6-8", count=5, seed=0)
    assert len(example.conditions or ()) == 7
    with pytest.raises(InputError, match="holds no scene of 9 to 10 objects"):
        source.examples(f"{variant}:9-10", count=5, seed=0)


def test_only_what_is_asked_for_is_read_and_names_inside_are_not_followed(variant: Path) -> None:
    content = record(0, PLACES[0]) | {"image_filename": "../../../secret.png"}
    (variant / "0/CLEVRTEX_full_000000.json").write_text(json.dumps(content))
    assert read(variant)[0].path == variant / "0/CLEVRTEX_full_000000.png"
    (variant / "1/CLEVRTEX_full_001000.json").write_text("{")
    assert len(ClevrSource().examples(str(variant), count=2, seed=0)) == 2
    with pytest.raises(InputError, match=r"CLEVRTEX_full_001000\.json"):
        ClevrSource().examples(str(variant), count=3, seed=0)


MALFORMED = [
    "", "{", "[]", "3", "{}", '{"objects": 3}', '{"objects": {}}', '{"objects": [{}]}',
    *(f'{{"objects": [{{"pixel_coords": {place}}}]}}' for place in (
        "[1]", '["a", 2, 3]', "[NaN, 2, 3]", "[321, 2, 3]", "[1, -1, 3]", "[1" + "0" * 400 + ", 2, 3]")),
    json.dumps({"objects": [{"pixel_coords": [1, 2, 3]}] * 65}),
    json.dumps({"objects": [], "more": "x" * 1_000_000}),
    "[" * 100_000, "\x00\xff",
]  # fmt: skip


@pytest.mark.parametrize("text", MALFORMED, ids=lambda text: text[:40])
def test_malformed_records_are_refused(variant: Path, text: str) -> None:
    (variant / "0/CLEVRTEX_full_000001.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"got .*CLEVRTEX_full_000001\.json with .*expected the record of"):
        read(variant)


def test_what_is_missing_is_named_and_a_folder_of_masks_is_refused(variant: Path, tmp_path: Path) -> None:
    (variant / "0/CLEVRTEX_full_000001.json").unlink()
    with pytest.raises(InputError, match=r"CLEVRTEX_full_000001\.json with ValueError: no such file"):
        read(variant)
    (variant / "0/CLEVRTEX_full_000000.png").unlink()
    with pytest.raises(InputError, match=r"got no image .*CLEVRTEX_full_000000\.png"):
        read(variant)
    masks = tmp_path / "masks"
    masks.mkdir()
    (variant / "0/CLEVRTEX_full_000000_flat.png").rename(masks / "CLEVRTEX_full_000000_flat.png")
    with pytest.raises(InputError, match=r"expected the layout of CLEVR v1\.0 or of CLEVRTex"):
        read(masks)
