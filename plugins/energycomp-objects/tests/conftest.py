"""Drawn photos of discs and squares, and an untrained model of them."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from energycomp.models import Model
from energycomp_objects.conditioner import Objects
from energycomp_objects.formats import Mark, MarkedPhoto, MarkedPhotos, read_marks, write_marks
from energycomp_objects.plan import make_plan
from energycomp_objects.recipe import build

SCHEMA = {"category": ("disc", "square")}
SIDE = 64


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos of discs and squares on grey, with boxes."""
    path = tmp_path_factory.mktemp("photos")
    random = torch.Generator().manual_seed(0)
    photos = []
    for index in range(6):
        image = Image.new("RGB", (SIDE, SIDE), "grey")
        marks = []
        for kind in ("disc", "square")[: 1 + index % 2]:
            x, y = (12 + 40 * torch.rand(2, generator=random)).tolist()
            draw = ImageDraw.Draw(image)
            shape = draw.ellipse if kind == "disc" else draw.rectangle
            shape((x - 6, y - 6, x + 6, y + 6), fill="red" if kind == "disc" else "white")
            marks.append(Mark(x / SIDE, y / SIDE, 12 / SIDE, 12 / SIDE, {"category": kind}))
        image.save(path / f"{index}.png")
        photos.append(MarkedPhoto(path / f"{index}.png", (SIDE, SIDE), tuple(marks)))
    write_marks(MarkedPhotos(tuple(photos), SCHEMA), path, "imagefolder")
    return path


@pytest.fixture(scope="session")
def model(folder: Path) -> Model:
    plan = make_plan(read_marks(folder))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(plan, Objects(SCHEMA), channels=(8, 16, 16), head=8)
