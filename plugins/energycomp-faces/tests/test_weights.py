"""The weights in the package: labels are shown when composed, and found when read."""

import pytest
import torch

import energycomp
from energycomp.images import to_unit
from energycomp.inference import infer
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp_datasets.faces.avatars import ATTRIBUTES
from energycomp_datasets.faces.source import FacesSource
from energycomp_lab.evaluation import true_values


@pytest.fixture(scope="module")
def model() -> Model:
    return energycomp.load("faces")


def test_all_attributes_are_there(model: Model) -> None:
    assert tuple(model.conditioner.attributes) == ATTRIBUTES


@pytest.mark.parametrize("data", ["synthetic", "synthetic:shifted"])
def test_plain_attributes_are_read(model: Model, data: str) -> None:
    plain = [ATTRIBUTES.index(name) for name in ("black_hair", "eyeglasses", "pale_skin", "dark_background")]
    candidates = torch.tensor([value for k in plain for value in (2 * k, 2 * k + 1)])
    right, examples = 0, FacesSource().examples(data, count=4, seed=0)
    for index in range(len(examples)):
        solution = infer(to_unit(examples[index].image), model, candidates=candidates)
        right += int(torch.isin(solution.conditions, true_values(examples[index], model.conditioner)).sum())
        assert bool(((solution.probability > 0) & (solution.probability <= 1)).all())
    assert right >= 14  # of 16; 8 by chance


def test_a_composed_background_is_dark(model: Model) -> None:
    dark, light = (
        energycomp.Composer([model(dark_background=value)]).sample(
            2, generator=seeded(0), num_inference_steps=12, output_type="pt", progress=False
        )
        for value in (True, False)
    )
    corner = (..., slice(0, 8), slice(0, 8))
    assert float(dark[corner].mean()) < float(light[corner].mean()) - 0.15
