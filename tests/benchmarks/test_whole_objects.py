"""The benchmarks of whole objects: their figures on known answers, and records that are taken up again."""

import json
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from sklearn.metrics import average_precision_score

from benchmarks.common.ways import Way, drawn, folder_of, recorded
from benchmarks.inference import average_precision as precision, turns
from benchmarks.inference.average_precision import Located, figures, judged, located, true_points
from benchmarks.sampling import outlines, scene_features
from benchmarks.sampling.described_quality import GradientRatio, compared, floors, gradient, halves, rendered_again
from benchmarks.sampling.scene_features import LABELS, SceneFeatures, counts_of
from energycomp import Model
from energycomp.denoisers import TwoStageUNet
from energycomp.errors import InputError
from energycomp.images import from_bytes
from energycomp.models import load, save_pretrained
from energycomp_clevr.model import places, small as objects_at_64
from energycomp_cli import read_lines
from energycomp_datasets.clevr.layout import render_objects, write
from energycomp_datasets.clevr.source import ClevrSource
from energycomp_lab.evaluation import true_values


def small(model: Model) -> Model:
    """An untrained model of the same values, with few weights, draws and steps."""
    torch.manual_seed(0)
    width = model.conditioner.token_shape[1]
    network = TwoStageUNet(
        sample_size=64, token_width=width, patch=4, channels=(8, 8, 16), head_channels=8, head_blocks=1
    )
    few = attrs.evolve(model.defaults, draws=2, counts=(1, 1), num_inference_steps=2, beta=1.0)
    return attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=network), defaults=few)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a model of whole objects and of one of places."""
    folder = tmp_path_factory.mktemp("models")
    for name, model in {"objects": objects_at_64(), "places": places()}.items():
        save_pretrained(small(model), folder / name)
    return {name: str(folder / name) for name in ("objects", "places")}


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def scene(*points: float, word: int = 1, confidence: tuple[float, ...] = ()) -> Located:
    """Objects in a row, at these places on the x axis."""
    places = torch.tensor([[x, 0.0, 0.0] for x in points]).reshape(-1, 3)
    return Located(torch.full((len(points), 4), word), places, torch.tensor(confidence or [1.0] * len(points)))


def test_an_object_is_right_once_and_by_the_nearest_with_its_words() -> None:
    true = [scene(0.0, 1.0), scene(0.0)]
    found = [scene(0.1, 0.2, 0.9, confidence=(0.5, 0.9, 0.7)), scene(0.0, word=2, confidence=(0.95,))]
    right, owner, distances = judged(found, true, 0.5)
    assert owner.tolist() == [1, 0, 0, 0]
    assert right.tolist() == [False, True, True, False]  # the last is nearest to an object that is found already
    assert distances.tolist() == pytest.approx([torch.inf, 0.2, 0.1, 0.1])
    assert judged(found, true, 0.15)[0].tolist() == [False, False, True, True]


def test_turns_are_no_words() -> None:
    """Reading leaves them open, and files of images may not know them."""
    model = load("clevr", pretrained=False)
    values = torch.cat([model.conditioner.parse(0.3, 0.4, shape="cube", turn=turn) for turn in (None, 30)])
    assert located(model, values, torch.ones(2)).words.tolist() == [[0, 0, 0, 1]] * 2


def test_without_ties_it_is_the_interpolated_average_precision_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(40, generator=generator) < torch.linspace(0.95, 0.3, 40)
    owner, everything = torch.arange(40), torch.ones(1, 40, dtype=torch.float64)
    area = float(precision.average_precision(right, owner, torch.ones(40) * right, everything)[0])
    scores = torch.linspace(1, 0, 40)
    plain = average_precision_score(right, scores)
    assert plain <= area <= plain + 0.05  # interpolation never lowers it
    best = [max(right[: k + 1].float().mean() for k in range(first, 40)) for first in range(40)]
    assert area == pytest.approx(float(sum(p for p, hit in zip(best, right, strict=True) if hit) / right.sum()))
    missed = float(precision.average_precision(right, owner, torch.ones(40) * right * 2, everything)[0])
    assert missed == pytest.approx(area / 2)  # half of the true objects were not read


def test_a_resample_is_the_average_precision_of_its_images() -> None:
    right, owner = torch.tensor([True, False, True, True, False]), torch.tensor([0, 1, 2, 1, 0])
    sizes = torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64)
    whole = precision.average_precision(right, owner, sizes, torch.tensor([[1.0, 0.0, 1.0]], dtype=torch.float64))
    kept = owner != 1
    part = precision.average_precision(right[kept], owner[kept], sizes * torch.tensor([1, 0, 1]), torch.ones(1, 3))
    assert float(whole[0]) == pytest.approx(float(part[0]))


def test_a_perfect_reading_is_right_at_every_distance_and_no_reading_at_none() -> None:
    true = [scene(0.0, 1.0), scene(0.5)]
    perfect, nothing = (figures(found, true, seed=0) for found in (true, [scene(), scene()]))
    assert [perfect[f"ap_{name}"] for name in ("inf", "1", "0.5", "0.25", "0.125")] == [1.0] * 5
    assert perfect["ap_0.125_interval"] == [1.0, 1.0]
    assert [nothing[f"ap_{name}"] for name in ("inf", "0.125")] == [0.0, 0.0]


def test_true_points_are_those_of_the_images(tmp_path: Path) -> None:
    model = objects_at_64()
    write(tmp_path, 2, objects=(2, 3), size=(48, 32))
    for data in ("synthetic:2-3", str(tmp_path)):
        for index, example in enumerate(ClevrSource().examples(data, count=2, seed=4)):
            values, points = true_values(example, model.conditioner), true_points(data, index, example, 4)
            apart = (located(model, values, torch.ones(len(values))).points - points).norm(dim=1)
            assert float(apart.max()) < 1.0  # the camera of the image is within 0.5 of the mean camera on each axis
            assert points[:, 2].tolist() == pytest.approx([0.35 if code == 1 else 0.7 for code in values[:, 2]])


def test_average_precision(models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", "synthetic:2", "-n", "2", "--model", models["objects"], "--records", str(tmp_path)]
    precision.main(arguments)
    (line,) = lines(capsys)
    (file,) = tmp_path.iterdir()
    assert [record["index"] for record in read_lines(file)] == [0, 1]
    precision.main(arguments)
    assert lines(capsys) == [line]
    assert len(read_lines(file)) == 2
    precision.main([*arguments, "--true-places"])
    (ceiling,) = lines(capsys)
    assert ceiling["ap_inf"] == 1.0
    assert 0.0 <= line["ap_0.125"] <= ceiling["ap_0.125"] < 1.0
    with pytest.raises(InputError, match="whole objects"):
        precision.main(["--model", models["places"]])


def test_counts_of_words() -> None:
    _, (values,) = render_objects(1, objects=(5, 5), seed=3, size=16)
    counts = dict(zip(LABELS, counts_of(values).tolist(), strict=True))
    assert counts["object"] == counts["small"] + counts["large"] == counts["rubber"] + counts["metal"] == 5.0
    assert counts["sphere"] == float((values[:, 5] == 2).sum())
    assert len(LABELS) == 16


def test_features_are_trained_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--steps", "2", "--drawn", "32", "-n", "2", "-o", str(tmp_path)]
    scene_features.main(arguments)
    scene_features.main(arguments)
    first, second = lines(capsys)
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    network, name = scene_features.scene_features(tmp_path, steps=2, drawn=32)
    assert name == first["features"]
    images = from_bytes(scene_features.labelled(32, seed=0).tensors[0])
    assert network(images).square().mean(0).tolist() == pytest.approx([1.0] * 64, rel=1e-3)


def test_the_gradient_of_a_soft_image_is_less() -> None:
    edges = torch.zeros(2, 3, 16, 16)
    edges[:, :, :, 8:] = 1.0
    assert gradient(edges).tolist() == pytest.approx([3**0.5 / 15] * 2)
    generator = torch.Generator().manual_seed(0)
    sharp = torch.rand(2, 3, 16, 16, generator=generator)
    ratio = GradientRatio()
    ratio.update(torch.nn.functional.avg_pool2d(sharp, 3, 1, 1), sharp)
    assert float(ratio.compute()) < 0.5


def test_new_renders_show_the_same_description() -> None:
    images, (values,) = render_objects(1, objects=(3, 3), seed=8)
    again = rendered_again(values, seed=1)
    assert again.equal(rendered_again(values, seed=1))
    apart = [(image.float() - images[0]).abs().mean() for image in (again, render_objects(1, (3, 3), seed=9)[0][0])]
    assert 0.5 < float(apart[0]) < float(apart[1])


def test_the_same_images_are_at_no_distance() -> None:
    kinds = floors(4, 2, seed=0)
    renders = kinds["renders", ""]
    torch.manual_seed(0)
    network = SceneFeatures().eval()
    same, noisy = (compared(network, images, renders, 0) for images in (renders, torch.rand(renders.shape) * 2 - 1))
    assert same["fid"] == pytest.approx(0.0, abs=1e-2)
    assert same["gradient"] == 1.0
    assert noisy["fid"] > same["fid"] + 1.0
    assert noisy["gradient"] > 2.0


def test_a_drawn_sample_is_the_recorded_one(models: dict[str, str], tmp_path: Path) -> None:
    model, way = load(models["objects"]), Way.parsed("ddpm@2")
    composition = model.compose(torch.cat([model.conditioner.parse(0.3, 0.4), model.conditioner.parse(0.7, 0.6)]))
    one = drawn(tmp_path / "a" / "0", way, model, composition, 5)
    recorded(tmp_path / "b" / "0", way, model, composition, 5, lambda image: list(image.shape))
    assert one.read_bytes() == (tmp_path / "b" / "0.png").read_bytes()
    for reader, answer in (("one", 1), ("another", 2)):  # of the same image
        row = recorded(tmp_path / f"{reader}-{way}-0" / "0", way, model, composition, 5, lambda _, read=answer: read)
        assert row["read"] == answer
    other = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=small(places()).denoiser.network))
    assert folder_of(tmp_path, "x", model, 2, way, 0) != folder_of(tmp_path, "x", other, 2, way, 0)


def test_shapes_are_judged_beside_renders(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An untrained model draws no shapes; renders of the same descriptions have theirs; the sheet has a key."""
    write(tmp_path / "renders", 6, objects=(3, 3), seed=1, size=(96, 64))
    options = ["-n", "2", "--data", str(tmp_path / "renders"), "--records", str(tmp_path)]
    outlines.main([*options, "--model", models["objects"], "-o", str(tmp_path / "sheet.png")])
    found = lines(capsys)
    assert [line["images"] for line in found] == ["objects"] * (len(found) // 2) + ["renders"] * (len(found) // 2)
    assert all(line["nearest"] == 1 for line in found if line["images"] == "renders" and line["size"] == "large")
    assert all(line["as_rendered"] <= line["nearest"] for line in found)
    assert all(line["objects"] <= 2 and line["nearest_interval"][0] <= line["nearest"] for line in found)
    assert [("turn_error" in line) for line in found] == [
        line["images"] == "renders" and line["shape"] == "cube" for line in found
    ]
    key = json.loads((tmp_path / "sheet.json").read_text())
    assert {cell["from"] for cell in key.values()} <= {"drawn", "rendered"}
    assert len(key) == sum(line["objects"] for line in found if line["shape"] == "cube") // 2
    outlines.main([*options, "--model", models["objects"], "--only-renders"])
    assert lines(capsys) == [line for line in found if line["images"] == "renders"]


def test_errors_of_turns_have_a_median_and_a_share_of_near_ones() -> None:
    line = turns.summary([1.0, 3.0, 30.0])
    assert (line["cubes"], line["median_error"], line["within_10_degrees"]) == (3, 3.0, 0.6667)
    assert turns.summary([1.0]) == {"cubes": 1}


def test_renders_of_a_folder_are_compared_with_as_many_others(tmp_path: Path) -> None:
    write(tmp_path / "renders", 3, objects=(1, 1), seed=0, size=(96, 64))
    both = halves(tmp_path / "renders", 1, 1)
    assert [len(images) for images in both.values()] == [1, 1]
    with pytest.raises(InputError, match=r"got 3 scenes of 1 objects .* take -n 1"):
        halves(tmp_path / "renders", 1, 2)
