"""The network that counts shapes and colours: its labels, its weights, and what its distances order."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from energycomp.seeds import seeded
from energycomp_datasets.shapes.features import LABELS, ShapeFeatures, counts_loss, counts_of, labelled, shape_features
from energycomp_datasets.shapes.perceptual import FrechetDistance, KernelDistance, perceptual_distance
from energycomp_datasets.shapes.shapes import WORLDS, layout, render
from energycomp_datasets.shapes.source import draw
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.training import FitConfig, fit


@pytest.fixture(scope="module")
def network() -> ShapeFeatures:
    return shape_features()


@pytest.fixture(scope="module")
def held_out() -> tuple[Tensor, Tensor]:
    pictures, counts = labelled(200, seed=HELD_OUT).tensors
    return pictures.float() / 127.5 - 1, counts


def test_pictures_are_those_of_the_source() -> None:
    pictures, counts = labelled(12, seed=7).tensors
    for index, world in enumerate("ab" * 6):
        made = draw(index, 7, world=world, counts=(1, 5))
        assert torch.equal(((made.image + 1) * 127.5).round().byte(), pictures[index])
        assert torch.equal(counts_of(made.factors, world), counts[index])
        assert int(counts[index, :6].sum()) == int(counts[index, 6:].sum()) == len(made.factors)


def test_labels_say_what_was_drawn() -> None:
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


def test_training(tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ShapeFeatures((8, 8, 8))
    before = {name: tensor.clone() for name, tensor in network.named_parameters()}
    config = FitConfig(steps=2, batch_size=8, learning_rate=1e-3)
    fit(network, counts_loss, labelled(16, seed=0), config, out=tmp_path / "run", progress=False)
    assert all(not torch.equal(before[name], now) for name, now in network.named_parameters())
