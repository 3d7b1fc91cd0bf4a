"""The weights in the package: objects are found, parts are added, and the page on recombining does what it says."""

import runpy
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import energycomp
from energycomp.decomposition import add, recombine
from energycomp.errors import InputError
from energycomp.models import Model
from energycomp.plugins import find
from energycomp.seeds import seeded, torch_seed
from energycomp_datasets.shapes.disentanglement import matched_correlations
from energycomp_datasets.shapes.lit import FACTORS, LitSource, factors, render
from energycomp_datasets.shapes.source import shapes_source
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_decomp import DiffusionDecomposer
from energycomp_decomp.encoders import FactorsEncoder
from energycomp_decomp.model import lit, untrained_lit
from energycomp_lab.checks import check_model
from energycomp_lab.evaluation import evaluate

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model() -> Model:
    return energycomp.load("decomp")


@pytest.mark.parametrize("name", ["decomp", "lit"])
def test_models_conform(name: str) -> None:
    check_model(energycomp.load(name))


@pytest.mark.parametrize("name", ["decomp", "decomp-b"])
def test_objects_are_found(name: str) -> None:
    model, source = energycomp.load(name), find("datasets", name)()
    quick = attrs.evolve(model, defaults=attrs.evolve(model.defaults, num_inference_steps=3))
    examples = source.examples("synthetic", count=4, seed=1)
    report = evaluate(quick, examples, source.metrics(), progress=False)
    assert report.values["recall"] > 0.75
    assert report.values["mse"] < report.values["mse_baseline"] / 5


def test_views_show_objects_that_the_encoder_gives_one_latent(model: Model) -> None:
    images = shapes_source().examples("synthetic:4", count=57, seed=0)
    examples = [images[index] for index in (45, 56)]
    found = {}
    for views in (1, 8):
        defaults = attrs.evolve(model.defaults, num_inference_steps=5, views=views)
        report = evaluate(attrs.evolve(model, defaults=defaults), examples, shapes_source().metrics(), progress=False)
        found[views] = report.values["recall"]
    assert found[1] <= 0.75
    assert found[8] == 1.0


def test_factors_are_told_apart() -> None:
    true = factors(500, HELD_OUT)
    latents = DiffusionDecomposer(energycomp.load("lit")).encode(render(true))
    assert float(matched_correlations(latents, true).mean()) > 0.6


def test_all_parts_of_two_pictures_are_shown_together(model: Model) -> None:
    one, two = shapes_source().examples("synthetic:2", count=2, seed=3)
    pictures, decomposer = torch.stack([one.image, two.image]), DiffusionDecomposer(model)
    a, b = decomposer.encode(pictures).split(1)
    shown = decomposer.decode(
        torch.cat([recombine([add(a, b)], [range(10)]), add(b, a)]),
        generator=[seeded(0) for _ in range(2)],
        num_inference_steps=10,
    )
    assert torch.allclose(shown[0], shown[1], atol=1e-2)  # a sum has no order
    base = model.denoiser.network.base
    expected = base + (pictures - base).sum(0)
    alone = (expected - pictures[0]).square().mean()
    assert float((shown[0] - expected).square().mean()) < float(alone) / 4


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / "parts_of_pictures.py"))
    assert capsys.readouterr().out == "parts that show something: [2, 2]\n"
    assert {path.name for path in tmp_path.iterdir()} == {"strip.png", "both.png"}


def test_evaluation_gives_mig_and_mcc() -> None:
    with torch_seed(0):
        model = untrained_lit(parts=2, width=1, size=16)
    source = LitSource()
    examples = source.examples("synthetic", count=6, seed=0)
    quick = attrs.evolve(model, defaults=attrs.evolve(model.defaults, num_inference_steps=2))
    report = evaluate(quick, examples, source.metrics(), progress=False)
    assert {"mig", "mcc", "mse", "mse_baseline"} <= report.values.keys()
    assert 0 <= report.values["mig"] <= 1
    assert len(FACTORS) == len(examples[0].factors)


def test_options() -> None:
    wrong: dict[str, Any]
    for wrong in ({"preset": "paper"}, {"parts": 3}, {"pretrained": False, "colour": 1}):
        with pytest.raises(InputError, match="expected"):
            lit(**wrong)


def test_the_variance_of_an_unused_latent_is_bounded() -> None:
    encoder = FactorsEncoder(sample_size=16, parts=2, token_width=3, name_width=1, channels=[8, 8, 8])
    with torch.no_grad():
        encoder.out.bias.view(2, -1)[:, 2:].fill_(60.0)  # log variances: exp(57) would end a run
    log_variance = encoder.posterior(torch.zeros(4, 3, 16, 16))[1]
    assert torch.equal(log_variance, torch.full_like(log_variance, 5.0))
    (log_variance.exp() - log_variance).sum().backward()
    assert float(encoder.out.bias.grad.view(2, -1)[:, 2:].min()) > 0  # descent lowers them
