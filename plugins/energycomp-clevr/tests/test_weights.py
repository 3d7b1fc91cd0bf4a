"""The shipped weights do what the model card says, on a few pictures."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import energycomp
from energycomp.images import to_unit
from energycomp.inference import OutOfDistributionWarning
from energycomp.plugins import find
from energycomp.seeds import seeded
from energycomp_datasets.clevr.layout import FRAME
from energycomp_datasets.clevr.outlines import judge
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_lab.evaluation import Example, PerceptionRate, Precision, true_values
from energycomp_solvers.pursuit import Pursuit

REAL = Path(__file__).parents[4] / "shared" / "data" / "clevr_real_dev"


@pytest.fixture(scope="module", params=["clevr-places", "clevr-places-flow"])
def model(request: pytest.FixtureRequest) -> energycomp.Model:
    return energycomp.load(request.param)


@pytest.fixture(scope="module")
def clevr() -> energycomp.Model:
    return energycomp.load("clevr-places")


@pytest.fixture(scope="module")
def whole() -> energycomp.Model:
    """Of objects with words and turns."""
    return energycomp.load("clevr")


FIRST = Pursuit(budget=0)  # whose first answer is its last: enough to judge what is drawn


def quick(model: energycomp.Model) -> energycomp.Model:
    """With a quarter of its draws."""
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, draws=16))


def read(model: energycomp.Model, examples: list[Example], solver: Any = None) -> tuple[float, float]:
    rate, precision = PerceptionRate(), Precision()
    for example in examples:
        image = to_unit(example.image) if isinstance(example.image, torch.Tensor) else example.image
        solution = energycomp.infer(image, quick(model), solver=solver)
        for metric in (rate, precision):
            metric.update([solution.conditions], [true_values(example, model.conditioner)])
    return float(rate.compute()), float(precision.compute())


FOLDERS = {"clevr": "objects", "clevr-small": "small", "clevr-places": "places", "clevr-places-flow": "places_flow"}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_weights_are_small_and_registered_and_images_have_the_shape_of_clevr_s_frame(name: str) -> None:
    weights = Path(str(files("energycomp_clevr"))) / "weights" / FOLDERS[name]
    most = 28_000_000 if name == "clevr" else 12_000_000
    assert sum(file.stat().st_size for file in weights.rglob("*") if file.is_file()) <= most
    for model in (energycomp.load(name), find("models", name)(pretrained=False)):
        assert model.name == name
        rows, columns = model.processor.size
        assert model.defaults.aspect * columns / rows == FRAME[0] / FRAME[1] == 1.5


def test_reads_a_held_out_scene(model: energycomp.Model) -> None:
    spec = "synthetic:3" if model.denoiser.prediction_type == "flow" else "synthetic:3-8"
    rate, precision = read(model, list(ClevrSource().examples(spec, count=1, seed=11)))
    assert min(rate, precision) >= 0.9


@pytest.mark.skipif(not REAL.is_dir(), reason="the official development pictures are not beside this checkout")
def test_reads_real_pictures(clevr: energycomp.Model) -> None:
    rate, precision = read(clevr, list(ClevrSource().examples(f"{REAL}:3-8", count=2, seed=0)))
    assert min(rate, precision) >= 0.85


def test_reads_and_draws_in_the_shape_of_the_picture(whole: energycomp.Model) -> None:
    (scene,) = ClevrSource().examples("synthetic:2:192x128", count=1, seed=5)
    assert read(whole, [scene]) == (1, 1)
    drawn = energycomp.Composer([whole(0.3, 0.6, color="red", size="large"), whole(0.7, 0.6, color="blue")])
    (image,) = drawn.sample(num_inference_steps=8, generator=0, output_type="np")
    assert image.shape == (128, 192, 3)
    red, blue = image[70:80, 54:61].mean((0, 1)), image[72:80, 131:138].mean((0, 1))
    assert red[0] > red[2] + 0.2
    assert blue[2] > blue[0] + 0.1


@pytest.mark.parametrize("turn", [10, 40, 70])
def test_a_cube_stands_as_it_is_told(whole: energycomp.Model, turn: int) -> None:
    """To a judge that is no network and knows no model."""
    cube = whole(0.45, 0.5, size="large", color="red", material="rubber", shape="cube", turn=turn)
    (image,) = energycomp.Composer(cube).sample(generator=0, num_inference_steps=12, output_type="pt", progress=False)
    (seen,) = judge(image, whole.conditioner.parse(0.45, 0.5, size="large", shape="cube"))
    assert seen.shape == "cube"
    assert abs((seen.turn - turn + 45) % 90 - 45) <= 10


def test_nothing_is_found_in_an_empty_scene_and_noise_is_foreign(clevr: energycomp.Model) -> None:
    empty = ClevrSource().examples("synthetic:0", count=1, seed=0)[0]
    assert energycomp.infer(to_unit(empty.image), quick(clevr)).count == 0
    noise = torch.rand(3, 64, 64, generator=seeded(0))
    with pytest.warns(OutOfDistributionWarning):
        assert energycomp.infer(noise, quick(clevr), count=(0, 2)).out_of_distribution


def test_composed_objects_are_where_they_were_asked_for(clevr: energycomp.Model, model: energycomp.Model) -> None:
    places = torch.tensor([[0.25, 0.45], [0.7, 0.4], [0.5, 0.7]])
    is_flow = model.denoiser.prediction_type == "flow"
    how: dict[str, Any] = {"scheduler": "DPMSolverMultistepScheduler", "generator": 0} if is_flow else {"generator": 1}
    (image,) = energycomp.Composer(model.compose(places)).sample(num_inference_steps=10, progress=False, **how)
    assert read(clevr, [Example(image, conditions=places.tolist())], FIRST) == (1, 1)


def test_both_models_compose_one_scene(clevr: energycomp.Model) -> None:
    places, flow = torch.tensor([[0.25, 0.45], [0.7, 0.4]]), energycomp.load("clevr-places-flow")
    other = energycomp.match_snr(flow.compose(places[1:]), clevr.denoiser.noised_space)
    scene = energycomp.Composer(clevr.leaf(places[:1]) + (other - other.unconditional))
    (image,) = scene.sample(num_inference_steps=10, generator=0, progress=False)
    assert read(clevr, [Example(image, conditions=places.tolist())], FIRST) == (1, 1)
