"""Models that decompose images, on stripes, whose parts are known exactly: `energycomp evaluate`, and training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics import MetricCollection

from energycomp import plugins
from energycomp.models import save_pretrained
from energycomp.seeds import seeded
from energycomp.testing import stripes_model
from energycomp_lab.checks.painter import StripesPainter, paint_stripes, painted_model
from energycomp_lab.commands.train import _sampler
from energycomp_lab.evaluation import Example, ForegroundARI, MaskIoU, MaskRecall, SlotsUsed, evaluate

pytestmark = pytest.mark.usefixtures("stripes")
K = 4


@pytest.fixture
def run(run: Callable[..., Any]) -> Callable[..., Any]:
    """Runs the command line in a folder with a model: exit code, stdout, stderr."""
    save_pretrained(stripes_model(), "./model")
    return run


class Source:
    """Stripes with their masks; scenes are judged by their brightness."""

    def examples(self, spec: str, *, count: int, seed: int) -> list[Example]:
        colours = torch.rand(count, K, 3, generator=seeded(seed)) * 0.7 + 0.2
        return [Example(image, name=spec, masks=StripesPainter().masks) for image in paint_stripes(colours)]

    def write(self, *args: Any, **kwargs: Any) -> None: ...

    def metrics(self) -> MetricCollection:
        metrics = {"recall": MaskRecall(), "iou": MaskIoU(), "ari": ForegroundARI(), "slots": SlotsUsed()}
        return MetricCollection(metrics, compute_groups=False)

    def scene_scores(self, decomposer: Any, *, count: int, seed: int) -> dict[str, float]:
        pictures = decomposer.sample(count, generator=seeded(seed))
        return {"scenes": float(len(pictures)), "brightness": float(pictures.mean())}


def test_evaluate_takes_masks_of_a_dataset_and_searches_views(run: Any) -> None:
    plugins.register("datasets", "stripes", Source)
    code, out, err = run("evaluate", "./model", "-n", 2, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["recall"], report["iou"], report["ari"], report["slots"], report["images"]) == (1, 1, 1, K, 2)
    assert report["solver"] == "StripesEncoder"
    assert "scenes" not in report
    assert report["mse"] < 1e-9 < report["mse_baseline"]
    code, _, err = run("evaluate", "./model", "-n", 2, "--count", "3")
    assert code == 2
    assert "a solver or a count" in err
    code, out, err = run("evaluate", "./model", "-n", 2, "--option", "views=2", "--json")
    assert code == 0, err
    assert json.loads(out)["solver"] == "StripesEncoder, 2 views"


def test_evaluate_judges_scenes_of_the_model_too(run: Any) -> None:
    save_pretrained(painted_model(), "./painted")
    plugins.register("datasets", "painted", Source)
    code, out, err = run("evaluate", "./painted", "-n", 2, "--samples", 7, "--seed", 3, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["recall"], report["ari"], report["slots"], report["scenes"]) == (1, 1, K, 7)
    assert report["solver"] == "StripesPainter"
    expected = StripesPainter().sample(7, generator=seeded(3)).mean()
    assert report["brightness"] == pytest.approx(float(expected))
    assert "ari" in report["intervals"]
    assert "brightness" not in report["intervals"]
    assert "scenes" not in json.loads(run("evaluate", "./painted", "-n", 1, "--samples", 0, "--json")[1])
    assert "brightness" in run("evaluate", "./painted", "-n", 1)[1]
    code, _, err = run("evaluate", "./painted", "-n", 1, "--solver", "pursuit")
    assert code == 2
    assert "which decomposes images" in err


def test_scenes_get_the_decomposer_that_took_the_pictures_apart() -> None:
    given: list[Any] = []
    examples, metrics = Source().examples("", count=1, seed=0), Source().metrics()

    def scenes(decomposer: Any) -> dict[str, float]:
        given.append(decomposer)
        return {"fid": 2.0}

    report = evaluate(painted_model(), examples, metrics, progress=False, scenes=scenes)
    assert report.values["fid"] == report.as_dict()["fid"] == 2
    assert isinstance(given[0], StripesPainter)


def test_training_shows_scenes_of_the_model(tmp_path: Path) -> None:
    _sampler(painted_model(), tmp_path)(None, 7)
    grid = np.asarray(Image.open(tmp_path / "step-000007.png")).astype(float)
    assert grid.shape == (4 * 130 + 2, 4 * 130 + 2, 3)
    scenes = StripesPainter().sample(16, generator=seeded(0))
    expected = 127.5 * (scenes[4].permute(1, 2, 0).numpy() + 1)
    scene = Image.fromarray(expected.round().astype(np.uint8)).resize((128, 128), Image.Resampling.LANCZOS)
    assert np.abs(grid[132:260, 2:130] - np.asarray(scene)).max() <= 2
