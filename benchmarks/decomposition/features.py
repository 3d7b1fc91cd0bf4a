"""A small network that counts shapes and colours; images of coloured shapes are compared in its features."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from energycomp.images import from_bytes, to_bytes
from energycomp_datasets.shapes.shapes import SIZE, WORLDS, layout, render
from energycomp_datasets.shipped import load_network
from energycomp_lab.training import Step

KINDS = ("a", "b")  # worlds
COUNTS = (1, 5)  # of objects
CELLS = 8  # of 4x4 pixels, about those that an object covers
CHUNK = 250  # images that are rendered at once
SHAPES = tuple(shape for name in KINDS for shape in WORLDS[name].shapes)
LABELS = (*SHAPES, *(f"{name}{index}" for name in KINDS for index in range(len(WORLDS[name].palette))))


class ShapeFeatures(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] to features (B, F), by which `perceptual` compares images.

    The features are sums over all places, and what is counted is linear in them: two objects count as one and one.

    Args:
        channels: at 1/2, 1/4 and 1/4 of the size; the last are F.
    """

    def __init__(self, channels: tuple[int, int, int] = (32, 64, 64)) -> None:
        super().__init__()
        first, second, third = channels
        self.num_features = third
        self.stages = nn.ModuleList(
            [
                nn.Sequential(_layer(12, first), _layer(first, first), _layer(first, first)),
                nn.Sequential(_layer(first, second, stride=2), _layer(second, second)),
                nn.Sequential(_layer(second, second), _layer(second, third)),
            ]
        )
        self.out = nn.Linear(third, len(LABELS))
        nn.init.zeros_(self.out.weight)  # a sum over all places would start far from the counts

    def layers(self, images: Tensor) -> list[Tensor]:
        """Activations (B, C, h, w), at least 0, the finest first."""
        found = [F.pixel_unshuffle(images, 2)]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[1:]

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, F), at least 0."""
        return self.layers(images)[-1].sum((2, 3)) / CELLS

    def counts(self, images: Tensor) -> Tensor:
        """How many objects of each of `LABELS` there are, (B, 14), before rounding."""
        counts: Tensor = self.out(self.forward(images))
        return counts


def draw_labelled(size: int, *, seed: int) -> TensorDataset:
    """Images (3, 32, 32) uint8 of one to five objects, of either world by turns, and their counts (14,) of `LABELS`."""
    alike: dict[tuple[str, int], list[int]] = defaultdict(list)
    objects = []
    for index in range(size):
        rng = np.random.default_rng([seed, index])
        world = KINDS[index % len(KINDS)]
        count = int(rng.integers(COUNTS[0], COUNTS[1] + 1))
        objects.append(torch.from_numpy(layout(rng, count, world=world)).float())
        alike[world, count].append(index)
    images = torch.empty(size, 3, SIZE, SIZE, dtype=torch.uint8)
    counts = torch.empty(size, len(LABELS))
    for (world, _), indices in alike.items():
        for part in torch.tensor(indices).split(CHUNK):
            drawn, _ = render(torch.stack([objects[i] for i in part]), world=world)
            images[part] = to_bytes(drawn)
            counts[part] = torch.stack([counts_of(objects[i], world) for i in part])
    return TensorDataset(images, counts)


def counts_of(objects: Tensor, world: str) -> Tensor:
    """How many objects of each of `LABELS` are among some (K, 7), as in `ShapesScene.factors`, in the nearest colours.

    >>> counts_of(torch.tensor([[1, 0.5, 0.5, 0.1, 0.9, -0.6, -0.6]]), "a").tolist()
    [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    shapes = objects[:, 0].long() + LABELS.index(WORLDS[world].shapes[0])
    colours = torch.cdist(objects[:, 4:7], torch.tensor(WORLDS[world].palette)).argmin(1) + LABELS.index(f"{world}0")
    return torch.zeros(len(LABELS)).index_add_(0, torch.cat([shapes, colours]), torch.ones(2 * len(objects)))


def counts_loss(network: nn.Module, batch: tuple[Tensor, Tensor], step: Step) -> Tensor:
    """Mean squared error of the counts, a loss for `energycomp.fit`; batches are flipped and turned."""
    pictures, counts = batch
    flip, turn = torch.randint(4, (2,), generator=step.generator).tolist()
    images = from_bytes(torch.rot90(pictures.flip(3) if flip % 2 else pictures, turn, (2, 3)))
    images = images.contiguous(memory_format=torch.channels_last)
    return F.mse_loss(cast("ShapeFeatures", network).counts(images), counts)


def shape_features(folder: str | Path | None = None) -> ShapeFeatures:
    """The trained network, with the weights beside this file or of a folder, as `load_network` reads them."""
    return load_network(ShapeFeatures(), "features", folder or Path(__file__).parent / "weights" / "features")


def _layer(inside: int, out: int, *, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inside, out, 3, stride=stride, padding=1)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
    return nn.Sequential(convolution, nn.ReLU())
