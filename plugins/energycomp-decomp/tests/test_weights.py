"""The weights in the package: objects are found, parts are added, and the page on decomposing runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
import torch

import energycomp
from energycomp.conformance import check_model
from energycomp.evaluation import evaluate_parts
from energycomp.latents import add, recombine
from energycomp.model import Model
from energycomp_decomp.data import ShapesSource

PAGE = Path(__file__).parents[3] / "docs" / "decompose.md"


@pytest.fixture(scope="module")
def model() -> Model:
    return energycomp.load("decomp")


def test_the_model_conforms(model: Model) -> None:
    check_model(model)


def test_objects_are_found(model: Model) -> None:
    source = ShapesSource()
    quick = attrs.evolve(model, defaults=attrs.evolve(model.defaults, num_inference_steps=10))
    examples = source.examples("synthetic", count=8, seed=1)
    report = evaluate_parts(quick, examples, source.metrics(), progress=False)
    assert report.values["recall"] > 0.75
    assert report.values["mse"] < report.values["mse_baseline"] / 2.5


def test_latents_have_mean_0_and_variance_1(model: Model) -> None:
    examples = ShapesSource().examples("synthetic:3", count=64, seed=0)
    latents = energycomp.DiffusionDecomposer(model).encode(torch.stack([example.image for example in examples]))
    assert float(latents.flatten(0, 1).mean(0).abs().max()) < 0.3
    assert float((latents.flatten(0, 1).std(0) - 1).abs().max()) < 0.3


def test_all_parts_of_two_pictures_are_shown_together(model: Model) -> None:
    one, two = ShapesSource().examples("synthetic:2", count=2, seed=3)
    pictures, decomposer = torch.stack([one.image, two.image]), energycomp.DiffusionDecomposer(model)
    a, b = decomposer.encode(pictures).split(1)
    shown = decomposer.decode(
        torch.cat([recombine([add(a, b)], [range(8)]), add(b, a)]),
        generator=[torch.Generator().manual_seed(0) for _ in range(2)],
        num_inference_steps=10,
    )
    assert torch.allclose(shown[0], shown[1], atol=1e-2)  # a sum has no order
    base = model.denoiser.network.base
    expected = base + (pictures - base).sum(0)  # type: ignore[operator]
    alone = (expected - pictures[0]).square().mean()
    assert float((shown[0] - expected).square().mean()) < float(alone) / 4


def test_the_page_on_decomposing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("drawn").mkdir()
    ShapesSource().write(Path("drawn"), count=2, seed=7, options="", progress=lambda _: None)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 1
    names: dict[str, object] = {}
    exec(compile(blocks[0], str(PAGE), "exec"), names)  # noqa: S102 - the page is ours
    for name in ("both", "mixed"):
        assert tuple(names[name].shape) == (1, 3, 32, 32)  # type: ignore[attr-defined]
