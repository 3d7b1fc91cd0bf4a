"""Drawn faces show their labels, folders are read as they were written, and presets build."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import energycomp
from energycomp.components import AttributeConditioner, combine, log_snr, predict, signal_noise
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.images import to_unit
from energycomp.inference import infer
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp.testing import tiny_model
from energycomp_datasets.faces.avatars import ATTRIBUTES
from energycomp_datasets.faces.source import FacesSource, draw
from energycomp_datasets.synthetic import WRITTEN
from energycomp_faces.contrast import contrast_loss
from energycomp_faces.labels import BINARY, Labels
from energycomp_faces.model import default, faces, paper
from energycomp_faces.recipe import faces as train_recipe, subsets
from energycomp_lab.checks import check_conditioner
from energycomp_lab.evaluation import true_values
from energycomp_lab.training import denoising_loss


def test_subsets_are_even_in_size_and_belong_to_their_sample() -> None:
    values = torch.randint(0, 2, (4000, 3)) + 2 * torch.arange(3) + 10 * torch.arange(4000)[:, None]
    flat, owner = subsets(values, seeded(0))
    assert torch.equal(flat // 10, owner)
    sizes = torch.bincount(torch.bincount(owner, minlength=4000), minlength=4) / 4000
    assert sizes.tolist() == pytest.approx([0.25] * 4, abs=0.03)


def test_the_preset_of_the_thesis_takes_a_step_at_full_size() -> None:
    model = paper()
    assert tuple(model.denoiser.sample_shape) == (4, 16, 16)
    condition = model.conditioner(torch.tensor([1, 3]))
    loss = denoising_loss(model.denoiser, torch.randn(1, 4, 16, 16), condition, torch.tensor([0, 0]))
    loss.backward()
    assert torch.isfinite(loss.detach())
    assert all(torch.isfinite(p.grad).all() for p in model.denoiser.network.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    "options", [{"preset": "large"}, {"preset": "paper"}, {"attributes": ("smiling",)}, {"vae": "here"}], ids=str
)
def test_models_that_are_not_there(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match="expected"):
        faces(**options)


def test_other_attributes() -> None:
    model = default(attributes=("black_hair", "smiling"))
    assert model.denoiser.token_shape == (1, 4)
    assert repr(model(smiling=True) & ~model(black_hair=True)) == "u + faces(smiling=True) - faces(black_hair=True)"


def test_values_are_those_of_the_model_that_is_evaluated(tmp_path: Path) -> None:
    source, labels_of = FacesSource(), default(attributes=("suit", "young", "Smiling")).conditioner
    source.write(tmp_path, count=2, seed=5, options="", progress=lambda _: None)
    for example, index in zip(source.examples(str(tmp_path), count=2, seed=0), range(2), strict=True):
        _, labels = draw(index, WRITTEN + 5, "a")
        has = dict(zip(ATTRIBUTES, labels.tolist(), strict=True))
        assert true_values(example, labels_of).tolist() == [0 + has["suit"], 4 + has["smiling"]]
    (drawn,) = source.examples("synthetic:style", count=1, seed=0)
    assert [int(value) // 2 for value in true_values(drawn, labels_of)] == [2]  # of the three, the other style has one


def test_a_source_for_another_kind_of_model() -> None:
    (example,) = FacesSource().examples("synthetic", count=1, seed=0)
    with pytest.raises(InputError, match="expected two numbers"):
        true_values(example, tiny_model().conditioner)
    with pytest.raises(InputError, match=r"a model of young; expected some in common"):
        true_values(example, default(attributes=("young",)).conditioner)


def test_a_folder_is_trained_on(tmp_path: Path) -> None:
    FacesSource().write(tmp_path / "data", count=8, seed=0, options="", progress=lambda _: None)
    recipe = train_recipe(
        data=tmp_path / "data", init=None, preset="default", cache=tmp_path, attributes="smiling,beard"
    )
    result = recipe.run(tmp_path / "run", steps=1, batch_size=4, progress=False)
    assert result.step == 1
    assert list(recipe.model.conditioner.attributes) == ["smiling", "beard"]


@pytest.mark.parametrize("with_folder", [True, False])
def test_attributes_that_are_not_in_the_data(tmp_path: Path, with_folder: bool) -> None:
    FacesSource().write(tmp_path, count=2, seed=0, options="", progress=lambda _: None)
    folder = tmp_path if with_folder else None
    with pytest.raises(InputError, match="smiling"):
        train_recipe(data=folder, init=None, preset="default", cache=tmp_path, attributes="smiling,young")


HAIR = Labels({"smiling": BINARY, "hair": ("black", "fair", "red")})


def test_it_conforms() -> None:
    check_conditioner(HAIR)


def test_groups_are_the_values_of_each_attribute() -> None:
    assert isinstance(HAIR, AttributeConditioner)
    assert [group.tolist() for group in HAIR.groups] == [[0, 1], [2, 3, 4]]
    assert torch.cat(HAIR.groups).tolist() == HAIR.enumerate_support().tolist()


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"smiling": True}, 1), ({"smiling": "no"}, 0), ({"hair": "red"}, 4), ({"attribute": "hair", "value": "fair"}, 3)],
)
def test_what_is_written(given: dict[str, Any], expected: int) -> None:
    assert HAIR.parse(**given).tolist() == [expected]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "expected one attribute"),
        ({"smiling": True, "hair": "red"}, "compose several"),
        ({"beard": True}, "expected one of smiling, hair"),
        ({"hair": True}, "expected one of black, fair, red"),
        ({"hair": ["red"]}, "expected one of black, fair, red"),
    ],
)
def test_what_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HAIR.parse(**given)


@pytest.mark.parametrize("attributes", [{}, {"smiling": ("yes",)}, {"hair": ("red", "red")}])
def test_attributes_that_are_none(attributes: Any) -> None:
    with pytest.raises(InputError, match="two or more values"):
        Labels(attributes)


@torch.no_grad()
def test_it_is_the_likelihood_of_each_label_given_the_others() -> None:
    torch.manual_seed(0)
    model = default(attributes=("smiling", "beard"))
    for parameter in model.denoiser.network.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape))
    samples, values = torch.randn(1, 3, 64, 64), torch.tensor([1, 2])
    owner = torch.zeros(2, dtype=torch.long)

    def loss(weight: float) -> float:
        return float(
            contrast_loss(
                model.denoiser, model.conditioner, samples, values, owner, weight=weight, beta=1e-3, generator=seeded(0)
            )
        )

    generator, schedule = seeded(0), model.denoiser.alphas_cumprod
    timestep = 1000 * (torch.randperm(1, generator=generator) + torch.rand(1, generator=generator)).sqrt()
    noise = torch.randn(samples.shape, generator=generator)
    signal, sigma = signal_noise(schedule, timestep, samples.dtype)
    noised, snr = signal * samples + sigma * noise, torch.exp(log_snr(schedule, timestep)).float()

    def error(given: list[int]) -> torch.Tensor:
        composition = combine([model.leaf(torch.tensor([v])) for v in given], "product")
        return (samples - predict(composition, noised, timestep, prediction_type="sample")).square().flatten(1).sum(1)

    true = error([1, 2])
    gaps = torch.stack([error(flipped) - true for flipped in ([0, 2], [1, 3])]) * snr.clamp(max=4.0)
    assert loss(0.0) == pytest.approx(float(true * snr.clamp(0.5, 1.0)) / samples.numel(), rel=1e-4)
    assert loss(1.0) - loss(0.0) == pytest.approx(float(functional.softplus(-1e-3 * gaps).mean()), rel=1e-3)


@torch.no_grad()
def test_rows_are_both_values_of_each_label_and_one_for_a_sample() -> None:
    model = default(attributes=("smiling", "beard"))
    owner = torch.tensor([0, 0, 1])
    with count_rows() as spent:
        contrast_loss(
            model.denoiser, model.conditioner, torch.zeros(2, 3, 64, 64), torch.tensor([1, 2, 0]), owner, weight=1.0
        )
    assert (spent.rows, spent.trunks) == (8, 2)


def test_other_kinds_of_model_are_refused() -> None:
    model = tiny_model(rule="mean")
    with pytest.raises(InputError, match="contrast=0"):
        contrast_loss(
            model.denoiser, model.conditioner, torch.zeros(1, 3, 16, 16), torch.tensor([0]), torch.tensor([0]), weight=1
        )


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
