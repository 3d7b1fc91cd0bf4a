"""Networks that look at pictures: one counts shapes and colours, and one judges Arrow Room."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from benchmarks.common.perceptual import FrechetDistance, KernelDistance, perceptual_distance
from benchmarks.decomposition.corruptions import (
    CORRUPTIONS,
    CROSSED,
    LEANING,
    _blur,
    _lean,
    classifier_accuracy,
    classifier_loss,
    confusion,
    corrupt_rooms,
    draw_labelled as labelled_rooms,
)
from benchmarks.decomposition.features import (
    LABELS,
    ShapeFeatures,
    counts_loss,
    counts_of,
    draw_labelled,
    shape_features,
)
from energycomp.seeds import seeded, torch_seed
from energycomp_datasets.rooms.arrow_room import ArrowRooms, arrow_rooms, layout as room_layout, render as render_rooms
from energycomp_datasets.rooms.classifier import (
    INVALID,
    RIGHT,
    WRONG,
    Classifier,
    judge,
    load_classifier,
    structure_accuracy,
)
from energycomp_datasets.shapes.shapes import WORLDS, layout, render
from energycomp_datasets.shapes.source import draw
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.training import FitConfig, fit


@pytest.fixture(scope="module")
def network() -> ShapeFeatures:
    return shape_features()


@pytest.fixture(scope="module")
def held_out() -> tuple[Tensor, Tensor]:
    pictures, counts = draw_labelled(200, seed=HELD_OUT).tensors
    return pictures.float() / 127.5 - 1, counts


def test_counts_are_those_that_were_drawn() -> None:
    pictures, counts = draw_labelled(12, seed=7).tensors
    for index, world in enumerate("ab" * 6):
        made = draw(index, 7, world=world, counts=(1, 5))
        assert torch.equal(((made.image + 1) * 127.5).round().byte(), pictures[index])
        assert torch.equal(counts_of(made.factors, world), counts[index])
        assert int(counts[index, :6].sum()) == int(counts[index, 6:].sum()) == len(made.factors)
    objects = torch.zeros(3, 7)
    objects[:, 0] = torch.tensor([2.0, 0.0, 2.0])  # star, cross, star
    objects[:, 4:7] = torch.tensor(WORLDS["b"].palette)[[3, 1, 1]] + 0.08
    named = dict(zip(LABELS, counts_of(objects, "b").tolist(), strict=True))
    assert {name: count for name, count in named.items() if count} == {"star": 2, "cross": 1, "b3": 1, "b1": 2}


def test_held_out_counts(network: ShapeFeatures, held_out: tuple[Tensor, Tensor]) -> None:
    images, counts = held_out
    right = network.counts(images).round() == counts
    assert float(right[:, :6].all(1).float().mean()) > 0.9
    assert float(right[:, 6:].all(1).float().mean()) > 0.98


def test_features_of_objects_far_apart_add_up(network: ShapeFeatures) -> None:
    """At three times the size of training, where no place sees both."""
    objects = torch.from_numpy(layout(np.random.default_rng(0), 2)).float()
    objects[:, 1:4] = torch.tensor([[0.2, 0.2, 0.05], [0.8, 0.8, 0.05]])
    empty, one, two, both = (
        network(render(some[None], size=96)[0])[0] for some in (objects[:0], objects[:1], objects[1:], objects)
    )
    assert torch.allclose(both - empty, one + two - 2 * empty, atol=1e-4)
    assert float((one - empty).abs().max()) > 0.1


def test_layers_and_features_fit(network: ShapeFeatures, held_out: tuple[Tensor, Tensor]) -> None:
    layers = network.layers(held_out[0][:2])
    assert [tuple(layer.shape) for layer in layers] == [(2, 32, 16, 16), (2, 64, 8, 8), (2, 64, 8, 8)]
    assert all(float(layer.min()) >= 0 for layer in layers)
    assert network(held_out[0][:2]).shape == (2, network.num_features)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_distances_of_sets_tell_worlds_apart(network: ShapeFeatures, held_out: tuple[Tensor, Tensor]) -> None:
    images, _ = held_out
    a, b = images[::2], images[1::2]  # the worlds, by turns
    for kind, options in ((FrechetDistance, {}), (KernelDistance, {"subsets": 4, "subset_size": 40})):
        values = []
        for others in (a[50:], b[50:]):
            metric = kind(network, **options)
            metric.update(a[:50], real=True)
            metric.update(others, real=False)
            values.append(float(metric.compute()[0] if kind is KernelDistance else metric.compute()))
        assert values[0] < values[1] / 2


def test_distances_of_pairs_grow_with_noise(network: ShapeFeatures, held_out: tuple[Tensor, Tensor]) -> None:
    images = held_out[0][:8]
    noise = torch.randn(images.shape, generator=seeded(0))
    values = [
        float(perceptual_distance(network, images, (images + level * noise).clamp(-1, 1)).mean())
        for level in (0.0, 0.02, 0.1, 0.4)
    ]
    assert values == sorted(set(values))
    assert values[0] == 0


@pytest.mark.parametrize(
    ("make", "loss", "data"),
    [
        (lambda: ShapeFeatures((8, 8, 8)), counts_loss, lambda: draw_labelled(16, seed=0)),
        (lambda: Classifier((8, 8, 8, 8), width=8), classifier_loss, lambda: torch.zeros(8)),
    ],
    ids=["features", "classifier"],
)
def test_training(make: Any, loss: Any, data: Any, tmp_path: Path) -> None:
    with torch_seed(0):
        network = make()
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    config = FitConfig(steps=2, batch_size=8, learning_rate=1e-3)
    fit(network, loss, data(), config, out=tmp_path / "run", progress=False)
    assert all(not torch.equal(before[name], now) for name, now in network.named_parameters())


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return load_classifier()


def test_the_rule_is_that_of_the_world() -> None:
    """Of all 81 readings, 18 are right: three places of the odd one, three shapes of it, two of the others."""
    kinds = torch.tensor(list(product(range(3), repeat=4)))
    rooms = ArrowRooms(torch.empty(0), torch.empty(0), kinds[:, :3], kinds[:, 3])
    valid = torch.ones(len(kinds), dtype=torch.bool)
    verdicts = judge(rooms.shapes, rooms.target, valid)
    assert torch.equal(verdicts, torch.where(rooms.right, RIGHT, WRONG))
    assert int((verdicts == RIGHT).sum()) == 18
    assert set(judge(rooms.shapes, rooms.target, ~valid).tolist()) == {INVALID}


def test_scenes_are_what_their_labels_say() -> None:
    pictures, labels, verdicts = labelled_rooms(303, seed=3).tensors
    assert verdicts.bincount().tolist() == [101, 101, 101]
    assert torch.equal(labels[:, 4] == 0, verdicts == INVALID)
    rooms = ArrowRooms(torch.empty(0), torch.empty(0), labels[:, :3], labels[:, 3])
    assert torch.equal(rooms.right[verdicts != INVALID], verdicts[verdicts != INVALID] == RIGHT)
    wrong = labels[verdicts == WRONG]
    kinds = np.array([len(set(shapes)) for shapes in wrong[:, :3].tolist()])
    assert all((kinds == number).mean() > 0.1 for number in (1, 2, 3))
    assert torch.equal(pictures, labelled_rooms(303, seed=3).tensors[0])
    assert not torch.equal(pictures, labelled_rooms(303, seed=4).tensors[0])


def test_valid_pictures_keep_most_of_every_shape() -> None:
    objects = room_layout(np.random.default_rng(0), np.tile([0, 1, 2], (40, 1)), np.arange(40) % 3)
    off = (_lean(np.random.default_rng(1), objects) - render_rooms(objects).images).abs().amax((1, 2, 3))
    assert float(off.max()) < LEANING * 2
    assert float((off > 0.02).float().mean()) > 0.5
    assert min(CROSSED[0], 1 - CROSSED[1]) > LEANING


def test_blur_is_gaussian() -> None:
    images = torch.rand(2, 3, 32, 32, generator=seeded(0)) * 2 - 1
    for picture, blurred, sigma in zip(images, _blur(images, torch.tensor([0.4, 2.0])), (0.4, 2.0), strict=True):
        # the reach is that of the widest, 5 px
        expected = gaussian_filter(picture.numpy(), (0, sigma, sigma), mode="nearest", radius=(0, 5, 5))
        assert np.allclose(blurred, expected, atol=1e-5)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corrupted_image_is_not_a_room(kind: str) -> None:
    """It differs from the room it was made from by more than what a picture may be softened."""
    rng = np.random.default_rng(0)
    objects = room_layout(rng, rng.integers(3, size=(20, 3)), rng.integers(3, size=20))
    images, rooms = CORRUPTIONS[kind](rng, objects), render_rooms(objects)
    assert images.shape == rooms.images.shape
    assert float((images - rooms.images).abs().amax((1, 2, 3)).min()) > 0.25
    assert torch.equal(corrupt_rooms(kind, 3, seed=1), corrupt_rooms(kind, 3, seed=1))


def test_what_is_missing_is_missing() -> None:
    objects = room_layout(np.random.default_rng(1), np.zeros((30, 3), dtype=int), np.zeros(30, dtype=int))
    masks = render_rooms(objects).masks
    empty = objects.clone()
    empty[..., 7] = 0
    same = (CORRUPTIONS["missing"](np.random.default_rng(2), objects) == render_rooms(empty).images).all(1)
    gone = torch.stack([(same | ~masks[:, k]).all(2).all(1) for k in range(4)], 1)
    assert gone.sum(1).tolist() == [1] * 30


def test_held_out_scenes(classifier: Classifier) -> None:
    table = confusion(classifier, 450, seed=0)
    assert table.sum(1).tolist() == [150, 150, 150]
    assert float((table.diagonal() / table.sum(1)).min()) > 0.95
    assert classifier_accuracy(450, seed=0) == pytest.approx(float(table.trace()) / 450)
    assert classifier_accuracy(90, seed=0, classifier=Classifier()) < 0.7


def test_rooms_as_they_are_drawn(classifier: Classifier) -> None:
    rng = np.random.default_rng(HELD_OUT)
    assert structure_accuracy(arrow_rooms(rng, 200).images) > 0.98
    shapes = np.tile([0, 1, 1], (200, 1))
    elsewhere = render_rooms(room_layout(rng, shapes, rng.integers(1, 3, 200))).images
    assert structure_accuracy(elsewhere, classifier=classifier) < 0.02
    assert float((classifier.verdicts(elsewhere) == WRONG).float().mean()) > 0.98
    noise = torch.rand(20, 3, 32, 32, generator=seeded(0)) * 2 - 1
    assert classifier.verdicts(torch.cat([noise, torch.zeros(1, 3, 32, 32)])).tolist() == [INVALID] * 21
