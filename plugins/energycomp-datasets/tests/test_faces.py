"""Drawn faces show their labels, folders are read as they were written, and presets build."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from energycomp.errors import InputError
from energycomp_datasets.faces.avatars import ATTRIBUTES, BEARDS, GROUPS, HAIR, avatar, persona
from energycomp_datasets.faces.celeba import PICTURES, TABLE, column, read
from energycomp_datasets.faces.metrics import CalibrationError, LabelAccuracy
from energycomp_datasets.faces.source import FacesSource, draw
from energycomp_datasets.synthetic import WRITTEN


@pytest.mark.parametrize("attribute", range(len(ATTRIBUTES)))
def test_every_label_is_seen(attribute: int) -> None:
    labels = np.zeros(len(ATTRIBUTES), dtype=int)
    without = avatar(labels, np.random.default_rng(3)).astype(int)
    labels[attribute] = 1
    with_it = avatar(labels, np.random.default_rng(3)).astype(int)
    assert np.abs(with_it - without).max() > 40


@pytest.mark.parametrize("draw_one", [avatar, persona])
def test_a_face_is_repeatable(draw_one: object) -> None:
    labels = np.arange(len(ATTRIBUTES)) % 2
    one, other = (draw_one(labels, np.random.default_rng(1), size=32) for _ in range(2))
    assert one.dtype == np.uint8
    assert np.array_equal(one, other)


def test_the_other_style_has_fewer_attributes() -> None:
    (example,) = FacesSource().examples("synthetic:style", count=1, seed=0)
    assert [one["attribute"] for one in example.conditions or ()] == [
        name for name in ATTRIBUTES if name not in ("wavy_hair", "frowning", "closed_eyes", "suit")
    ]


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    source, seen = FacesSource(), []
    source.write(tmp_path, count=3, seed=5, options="b", progress=seen.append)
    assert seen == [1, 2, 3]
    for index, example in enumerate(source.examples(str(tmp_path), count=9, seed=0)):
        image, labels = draw(index, WRITTEN + 5, "b", size=128)
        assert np.array_equal(np.asarray(Image.open(example.image)), image)
        stated = {one["attribute"]: one["value"] for one in example.conditions or ()}
        assert stated.pop("no_beard") != stated["beard"]
        assert stated == {name: ("no", "yes")[label] for name, label in zip(ATTRIBUTES, labels, strict=True)}


def test_celebas_own_table(tmp_path: Path) -> None:
    folder = tmp_path / "celeba"
    (folder / PICTURES).mkdir(parents=True)
    (folder / TABLE).write_text("2\nAttractive Black_Hair No_Beard Smiling\n1.jpg -1  1 -1  1\n2.jpg  1 -1  1 -1\n")
    one, two = read(tmp_path)
    known = [2 * ATTRIBUTES.index(name) for name in ("black_hair", "smiling", "beard")]
    assert one.values.tolist() == [known[0] + 1, known[1] + 1, known[2] + 1]
    assert two.values.tolist() == known
    assert two.path == folder / PICTURES / "2.jpg"
    (example,) = FacesSource().examples(str(tmp_path), count=1, seed=0)
    assert {one["attribute"]: one["value"] for one in example.conditions or ()} == {
        "beard": "yes", "attractive": "no", "black_hair": "yes", "no_beard": "no", "smiling": "yes"
    }  # fmt: skip


@pytest.mark.parametrize(
    "table",
    ["1\nAttractive\n1.jpg 1\n", "1\nSmiling\n1.jpg 2\n", "1\nSmiling\n../1.jpg 1\n", "1\nSmiling\n1.jpg\n", ""],
)
def test_tables_that_are_none(tmp_path: Path, table: str) -> None:
    (tmp_path / TABLE).write_text(table)
    with pytest.raises(InputError, match="expected"):
        read(tmp_path)


def test_metrics_look_at_what_is_known_and_columns_have_names_of_their_own() -> None:
    found, true = [torch.tensor([0, 3, 4])], [torch.tensor([0, 2])]
    exact, accuracy, calibration = LabelAccuracy(whole=True), LabelAccuracy(), CalibrationError()
    for metric in (exact, accuracy):
        metric.update([torch.tensor([0, 3])], [torch.zeros(0, dtype=torch.long)])  # nothing is known of it: left out
    exact.update(found, true)
    accuracy.update(found, true)
    calibration.update(found, true, [torch.tensor([1.0, 0.5, 0.9])])
    assert float(exact.compute()) == 0
    assert float(accuracy.compute()) == 0.5
    assert float(calibration.compute()) == pytest.approx(0.25)  # sure and right, half sure and wrong
    without = CalibrationError()
    without.update(found, true, [None])
    assert torch.isnan(without.compute())
    assert len({column(name)[0] for name in ATTRIBUTES}) == len(ATTRIBUTES)
    a, b = GROUPS
    assert not {s for styles in HAIR[a].values() for s in styles} & {s for styles in HAIR[b].values() for s in styles}
    assert not set(BEARDS[a]) & set(BEARDS[b])
