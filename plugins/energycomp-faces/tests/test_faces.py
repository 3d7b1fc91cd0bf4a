"""Drawn faces show their labels, folders are read as they were written, and presets build."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import energycomp
from energycomp.components import combine, groups_of, log_snr, predict, signal_noise
from energycomp.denoisers import ConditionUNet, count_rows
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


def test_the_preset_of_the_thesis_takes_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """With few channels; the tests of clevr count the same network at full size."""
    thin = {"block_out_channels": [8, 8, 16, 16]}
    monkeypatch.setattr("energycomp.denoisers.unets.ConditionUNet", lambda **config: ConditionUNet(**config | thin))
    model = paper()
    assert tuple(model.denoiser.sample_shape) == (4, 16, 16)
    condition = model.conditioner(torch.tensor([1, 3]))
    loss = denoising_loss(model.denoiser, torch.randn(1, 4, 16, 16), condition, torch.tensor([0, 0]))
    loss.backward()
    assert torch.isfinite(loss.detach())
    assert all(torch.isfinite(p.grad).all() for p in model.denoiser.network.parameters() if p.grad is not None)


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
    given: dict[str, Any] = {"data": tmp_path / "data", "init": None, "preset": "default", "cache": tmp_path}
    recipe = train_recipe(**given, attributes="smiling,beard")
    result = recipe.run(tmp_path / "run", steps=1, batch_size=4, progress=False)
    assert result.step == 1
    assert list(recipe.model.conditioner.attributes) == ["smiling", "beard"]
    for data in (tmp_path / "data", None):
        with pytest.raises(InputError, match="smiling"):
            train_recipe(**given | {"data": data}, attributes="smiling,young")


HAIR = Labels({"smiling": BINARY, "hair": ("black", "fair", "red")})


def test_it_conforms_and_groups_are_the_values_of_each_attribute() -> None:
    check_conditioner(HAIR)
    assert groups_of(HAIR)
    assert [group.tolist() for group in HAIR.groups] == [[0, 1], [2, 3, 4]]
    assert torch.cat(HAIR.groups).tolist() == HAIR.enumerate_support().tolist()


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"smiling": True}, 1), ({"smiling": "no"}, 0), ({"hair": "red"}, 4), ({"attribute": "hair", "value": "fair"}, 3)],
)
def test_what_is_written(given: dict[str, Any], expected: int) -> None:
    assert HAIR.parse(**given).tolist() == [expected]


REFUSED: list[tuple[Callable[[], object], str]] = [
    (HAIR.parse, "expected one attribute"),
    (lambda: HAIR.parse(smiling=True, hair="red"), "compose several"),
    (lambda: HAIR.parse(beard=True), "expected one of smiling, hair"),
    (lambda: HAIR.parse(hair=True), "expected one of black, fair, red"),
    (lambda: HAIR.parse(hair=["red"]), "expected one of black, fair, red"),
    (lambda: Labels({}), "two or more values"),
    (lambda: Labels({"smiling": ("yes",)}), "two or more values"),
    (lambda: Labels({"hair": ("red", "red")}), "two or more values"),
    (lambda: faces(preset="large"), "expected"),
    (lambda: faces(preset="paper"), "expected"),
    (lambda: faces(attributes=("smiling",)), "expected"),
    (lambda: faces(vae="here"), "expected"),
    (lambda: contrasted(tiny_model(rule="mean"), 1, [0], [0]), "contrast=0"),
]


def contrasted(model: Model, count: int, values: list[int], owner: list[int]) -> torch.Tensor:
    samples = torch.zeros(count, *model.denoiser.sample_shape)
    given = torch.tensor(values), torch.tensor(owner)
    return contrast_loss(model.denoiser, model.conditioner, samples, *given, weight=1.0)


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_what_is_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@torch.no_grad()
def test_it_is_the_likelihood_of_each_label_given_the_others() -> None:
    torch.manual_seed(0)
    model = default(attributes=("smiling", "beard"))
    for parameter in model.denoiser.network.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape))
    samples, values = torch.randn(1, 3, 64, 64), torch.tensor([1, 2])
    owner = torch.zeros(2, dtype=torch.long)

    def loss(weight: float) -> float:
        how: dict[str, Any] = {"weight": weight, "beta": 1e-3, "generator": seeded(0)}
        return float(contrast_loss(model.denoiser, model.conditioner, samples, values, owner, **how))

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
    with count_rows() as spent:
        contrasted(default(attributes=("smiling", "beard")), 2, [1, 2, 0], [0, 0, 1])
    assert (spent.rows, spent.trunks) == (8, 2)


@pytest.fixture(scope="module")
def model() -> Model:
    return energycomp.load("faces")


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
    assert tuple(model.conditioner.attributes) == ATTRIBUTES
    how: dict[str, Any] = {"num_inference_steps": 12, "output_type": "pt", "progress": False}
    scenes = [energycomp.Composer([model(dark_background=value)]) for value in (True, False)]
    dark, light = (scene.sample(2, generator=0, **how)[..., :8, :8].mean() for scene in scenes)
    assert float(dark) < float(light) - 0.15
