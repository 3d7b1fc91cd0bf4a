"""A small network that classifies images of the Arrow Room as right, wrong or invalid, to score sampled scenes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from energycomp.errors import InputError
from energycomp_datasets.rooms.arrow_room import SHAPES, SIZE, points_at_odd
from energycomp_datasets.shipped import load_network

OBJECTS = 3
CHUNK = 250  # images per batch
VERDICTS = ("right", "wrong", "invalid")
RIGHT, WRONG, INVALID = range(len(VERDICTS))


def judge(shapes: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Indices (B,) of `VERDICTS`, by the shapes (B, 3), the target of the arrow (B,), and whether an image is valid.

    A valid image is right where exactly one object's shape is unlike both others, and the arrow points at that object;
    it is wrong otherwise.

    >>> seen = torch.tensor([[0, 2, 2], [0, 2, 2], [1, 1, 1], [0, 1, 2], [0, 2, 2]])
    >>> judge(seen, torch.tensor([0, 1, 0, 0, 0]), torch.tensor([1, 1, 1, 1, 0]).bool()).tolist()
    [0, 1, 1, 1, 2]
    """
    return torch.where(valid, torch.where(points_at_odd(shapes, target), RIGHT, WRONG), INVALID)


class Classifier(nn.Module):
    """Images (B, 3, 32, 32) in [-1, 1] to logits: of each object's shape, of the arrow's target, of being valid.

    >>> classifier = Classifier().eval()
    >>> shapes, target, valid = classifier(torch.zeros(2, 3, 32, 32))
    >>> shapes.shape, target.shape, valid.shape
    (torch.Size([2, 3, 3]), torch.Size([2, 3]), torch.Size([2]))
    """

    def __init__(self, channels: tuple[int, int, int, int] = (32, 64, 64, 64), *, width: int = 128) -> None:
        super().__init__()
        inside = (3, *channels[:-1])
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(zip(inside, channels, strict=True)):
            layers += [nn.Conv2d(before, after, 3, stride=1 + (index > 0), padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * (SIZE // 8) ** 2, width), nn.ReLU())
        self.shapes = nn.Linear(width, OBJECTS * len(SHAPES))
        self.target = nn.Linear(width, OBJECTS)
        self.valid = nn.Linear(width, 1)

    @torch.no_grad()
    def verdicts(self, images: Tensor) -> Tensor:
        """The verdicts (B,) on images (B, 3, 32, 32) in [-1, 1], as `judge`; raises `InputError` for another size."""
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
            shape = tuple(images.shape)
            raise InputError(f"got images of shape {shape}; expected (B, 3, {SIZE}, {SIZE}), as of the Arrow Room")
        seen = [self(part) for part in images.split(CHUNK)]
        shapes, target, valid = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return judge(shapes.argmax(2), target.argmax(1), valid > 0)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.body(images)
        return (
            self.shapes(features).unflatten(1, (OBJECTS, len(SHAPES))),
            self.target(features),
            self.valid(features)[:, 0],
        )


def structure_accuracy(images: Tensor, *, classifier: Classifier | None = None) -> float:
    """The share of images (B, 3, 32, 32) in [-1, 1] whose arrow points at the one object of a unique shape."""
    return float(((classifier or load_classifier()).verdicts(images) == RIGHT).float().mean())


def load_classifier(folder: str | Path | None = None) -> Classifier:
    """The trained network, with the weights of this package or of a folder, as `load_network` reads them."""
    return load_network(Classifier(), "classifier", folder)
