"""Textured scenes with a normalised ground, and the scores of their masks."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.decomposition.textured import main, normalise, scenes, scores, size
from energycomp.images import save_image, to_output
from energycomp_datasets.shapes.shapes import GROUND
from energycomp_slots.model import untrained

Scenes = tuple[Tensor, list[Tensor]]


@pytest.fixture(scope="module")
def drawn() -> Scenes:
    return scenes(3, seed=5)


def test_objects_differ_from_the_normalised_ground_and_true_masks_score_1(drawn: Scenes) -> None:
    images, masks = drawn
    differs = (normalise(images) - torch.tensor(GROUND)[:, None, None]).abs().amax(1) > 0.3
    objects = torch.stack([some.any(0) for some in masks])
    assert differs[objects].float().mean() > 0.6
    assert differs[~objects].float().mean() < 0.05
    dim = images.clamp(-0.5, 0.5)  # normalised images do not depend on the illumination
    torch.testing.assert_close(normalise(dim + 0.4), normalise(dim), atol=0.02, rtol=0)
    found = scores(masks, masks, seed=0)
    assert found == {"ari_fg": 1.0, "ari_fg_interval": [1, 1], "miou": 1.0, "miou_interval": [1, 1]}


def test_parameters_of_scenes_do_not_count() -> None:
    plain, full = (untrained(size=16, slots=3, width=8, channels=8, plain=plain) for plain in (True, False))
    assert size(plain.trained) == size(full.trained) < sum(p.numel() for p in full.trained.parameters())


def test_folders_and_lines(drawn: Scenes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_image(to_output(drawn[0][:1], "pil")[0], tmp_path / "one.png")
    main(["--normalise", str(tmp_path), "-o", str(tmp_path / "out")])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one.png"]
    untrained(size=16, slots=3, width=8, channels=8).save_pretrained(tmp_path / "model")
    main(["--models", "components", str(tmp_path / "model"), "-n", "2"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["images"] for line in lines] == [2, 2]
    assert 0 <= lines[1]["miou"] <= 1
    assert lines[1]["parameters"] > 0
