"""Drawn faces show their labels, folders are read as they were written, and presets build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp.training import denoising_loss
from energycomp_faces.avatars import ATTRIBUTES, BEARDS, GROUPS, HAIR, avatar, persona
from energycomp_faces.celeba import PICTURES, TABLE, column, read
from energycomp_faces.data import HELD_OUT, FacesSource, draw
from energycomp_faces.metrics import AttributeAccuracy, CalibrationError, ExactMatch
from energycomp_faces.model import default, faces, paper
from energycomp_faces.recipe import faces as train_recipe
from energycomp_faces.recipe import subsets


@pytest.mark.parametrize("attribute", range(len(ATTRIBUTES)))
def test_every_label_is_seen(attribute: int) -> None:
    labels = np.zeros(len(ATTRIBUTES), dtype=int)
    without = avatar(labels, np.random.default_rng(3)).astype(int)
    labels[attribute] = 1
    with_it = avatar(labels, np.random.default_rng(3)).astype(int)
    assert np.abs(with_it - without).max() > 40


def test_the_groups_share_no_style() -> None:
    a, b = GROUPS
    assert not {s for styles in HAIR[a].values() for s in styles} & {s for styles in HAIR[b].values() for s in styles}
    assert not set(BEARDS[a]) & set(BEARDS[b])


@pytest.mark.parametrize("draw_one", [avatar, persona])
def test_a_face_is_repeatable(draw_one: object) -> None:
    labels = np.arange(len(ATTRIBUTES)) % 2
    one, other = (draw_one(labels, np.random.default_rng(1), size=32) for _ in range(2))  # type: ignore[operator]
    assert one.dtype == np.uint8
    assert np.array_equal(one, other)


def test_examples_depend_on_seed_and_index_alone() -> None:
    source = FacesSource()
    few, many = (source.examples("synthetic", count=n, seed=1) for n in (2, 5))
    assert len(many) == 5
    assert torch.equal(few[1].image, many[1].image)
    assert torch.equal(few[1].values, many[1].values)
    assert not torch.equal(many[0].image, source.examples("synthetic", count=1, seed=2)[0].image)
    training, _ = draw(0, 0, "a")
    assert not np.array_equal(training, draw(0, HELD_OUT, "a")[0])


def test_the_other_style_has_fewer_attributes() -> None:
    (example,) = FacesSource().examples("synthetic:style", count=1, seed=0)
    assert [ATTRIBUTES[int(value) // 2] for value in example.values] == [
        name for name in ATTRIBUTES if name not in ("wavy_hair", "frowning", "closed_eyes", "suit")
    ]


@pytest.mark.parametrize("spec", ["synthetic:3-5", "nowhere"])
def test_data_that_is_not_there(spec: str) -> None:
    with pytest.raises(InputError, match="CelebA's layout"):
        FacesSource().examples(spec, count=1, seed=0)


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    source, seen = FacesSource(), []
    source.write(tmp_path, count=3, seed=5, options="b", progress=seen.append)
    assert seen == [1, 2, 3]
    for index, example in enumerate(source.examples(str(tmp_path), count=9, seed=0)):
        image, labels = draw(index, 5, "b", size=128)
        assert np.array_equal(np.asarray(Image.open(example.image)), image)
        assert example.values.tolist() == [2 * k + int(label) for k, label in enumerate(labels)]


def test_celebas_own_table(tmp_path: Path) -> None:
    folder = tmp_path / "celeba"
    (folder / PICTURES).mkdir(parents=True)
    (folder / TABLE).write_text("2\nAttractive Black_Hair No_Beard Smiling\n1.jpg -1  1 -1  1\n2.jpg  1 -1  1 -1\n")
    one, two = read(tmp_path)
    known = [2 * ATTRIBUTES.index(name) for name in ("black_hair", "smiling", "beard")]
    assert one.values.tolist() == [known[0] + 1, known[1] + 1, known[2] + 1]
    assert two.values.tolist() == known
    assert two.path == folder / PICTURES / "2.jpg"


@pytest.mark.parametrize(
    "table",
    ["1\nAttractive\n1.jpg 1\n", "1\nSmiling\n1.jpg 2\n", "1\nSmiling\n../1.jpg 1\n", "1\nSmiling\n1.jpg\n", ""],
)
def test_tables_that_are_none(tmp_path: Path, table: str) -> None:
    (tmp_path / TABLE).write_text(table)
    with pytest.raises(InputError, match="expected"):
        read(tmp_path)


def test_names_of_columns_differ() -> None:
    assert len({column(name)[0] for name in ATTRIBUTES}) == len(ATTRIBUTES)


def test_subsets_are_even_in_size_and_belong_to_their_sample() -> None:
    values = torch.randint(0, 2, (4000, 3)) + 2 * torch.arange(3) + 10 * torch.arange(4000)[:, None]
    flat, owner = subsets(values, torch.Generator().manual_seed(0))
    assert torch.equal(flat // 10, owner)
    sizes = torch.bincount(torch.bincount(owner, minlength=4000), minlength=4) / 4000
    assert sizes.tolist() == pytest.approx([0.25] * 4, abs=0.03)


def test_metrics_look_at_what_is_known() -> None:
    found, true = [torch.tensor([0, 3, 4])], [torch.tensor([0, 2])]
    exact, accuracy, calibration = ExactMatch(), AttributeAccuracy(), CalibrationError()
    exact.update(found, true)
    accuracy.update(found, true)
    calibration.update(found, true, [torch.tensor([1.0, 0.5, 0.9])])
    assert float(exact.compute()) == 0
    assert float(accuracy.compute()) == 0.5
    assert float(calibration.compute()) == pytest.approx(0.25)  # sure and right, half sure and wrong


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
        faces(**options)  # type: ignore[arg-type]


def test_other_attributes() -> None:
    model = default(attributes=("black_hair", "smiling"))
    assert model.denoiser.token_shape == (1, 4)
    assert repr(model(smiling=True) & ~model(black_hair=True)) == "u + faces(smiling=True) - faces(black_hair=True)"


def test_values_are_those_of_the_model_that_is_evaluated(tmp_path: Path) -> None:
    source = FacesSource().adapted(default(attributes=("suit", "young", "smiling")).conditioner)
    source.write(tmp_path, count=2, seed=5, options="", progress=lambda _: None)
    for example, index in zip(source.examples(str(tmp_path), count=2, seed=0), range(2), strict=True):
        _, labels = draw(index, 5, "a")
        has = dict(zip(ATTRIBUTES, labels.tolist(), strict=True))
        assert example.values.tolist() == [0 + has["suit"], 4 + has["smiling"]]
    (drawn,) = source.examples("synthetic:style", count=1, seed=0)
    assert [int(value) // 2 for value in drawn.values] == [2]  # of the three, the other style has one


def test_a_source_for_another_kind_of_model() -> None:
    with pytest.raises(InputError, match="yes/no attributes"):
        FacesSource().adapted(object())
    with pytest.raises(InputError, match="drawn faces have"):
        FacesSource(("young",)).examples("synthetic", count=1, seed=0)


def test_a_folder_is_trained_on(tmp_path: Path) -> None:
    FacesSource().write(tmp_path / "data", count=8, seed=0, options="", progress=lambda _: None)
    recipe = train_recipe(
        data=tmp_path / "data", init=None, preset="default", cache=tmp_path, attributes="smiling,beard"
    )
    result = recipe.fit(out=tmp_path / "run", steps=1, batch_size=4, progress=False)
    assert result.step == 1
    assert list(recipe.model.conditioner.attributes) == ["smiling", "beard"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("with_folder", [True, False])
def test_attributes_that_are_not_in_the_data(tmp_path: Path, with_folder: bool) -> None:
    FacesSource().write(tmp_path, count=2, seed=0, options="", progress=lambda _: None)
    folder = tmp_path if with_folder else None
    with pytest.raises(InputError, match="smiling"):
        train_recipe(data=folder, init=None, preset="default", cache=tmp_path, attributes="smiling,young")


def test_without_probabilities_there_is_no_calibration_error() -> None:
    calibration = CalibrationError()
    calibration.update([torch.tensor([0])], [torch.tensor([0])], [None])
    assert torch.isnan(calibration.compute())
