"""The detector beside models of marked photos, and the table that compares them."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from benchmarks.baselines.detector import Detect, detector_recipe, network_of
from benchmarks.worlds.compare import main
from energycomp_objects.formats import Mark, MarkedPhoto, MarkedPhotos, read_marks, write_marks
from energycomp_objects.recipe import objects
from energycomp_objects.score import fit_odds, read_photos

SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos of a disc on grey."""
    path = tmp_path_factory.mktemp("photos")
    photos = []
    for index in range(6):
        x, y = 14 + 6 * index, 48 - 6 * index
        image = Image.new("RGB", (SIDE, SIDE), "grey")
        ImageDraw.Draw(image).ellipse((x - 6, y - 6, x + 6, y + 6), fill="red")
        image.save(path / f"{index}.png")
        mark = Mark(x / SIDE, y / SIDE, 12 / SIDE, 12 / SIDE, {"category": "disc"})
        photos.append(MarkedPhoto(path / f"{index}.png", (SIDE, SIDE), (mark,)))
    write_marks(MarkedPhotos(tuple(photos), {"category": ("disc",)}), path, "imagefolder")
    return path


def test_a_detector_is_as_large_and_reads_by_its_score_alone(folder: Path) -> None:
    recipe = objects(data=folder, init=None, turns=True)
    smaller = detector_recipe(recipe, turns=True)
    ours, theirs = (
        sum(weight.numel() for weight in one.module.parameters() if weight.requires_grad) for one in (recipe, smaller)
    )
    assert theirs == pytest.approx(ours, rel=0.01)
    network = network_of(smaller.model)
    torch.nn.init.constant_(network.proposals[-1].bias[:1], 1.0)  # type: ignore[index, arg-type]
    answers = read_photos(smaller.model, read_marks(folder)[:2], Detect())
    assert fit_odds(answers)[2] == 0
    assert all(one.solution.count == sum(p > 0.5 for p in one.solution.trace["proposed"]) for one in answers)


def test_the_table_is_made_once(folder: Path, tmp_path: Path) -> None:
    options = ["--data", str(folder), "--kept", "2", "--photos", "3", "--steps", "1", "-o", str(tmp_path)]
    main(options)
    text = (tmp_path / "compare.md").read_text()
    assert "| 3 | energycomp | 1 |" in text
    assert "| 3 | detector |" in text
    main(options)
    assert (tmp_path / "compare.md").read_text() == text
