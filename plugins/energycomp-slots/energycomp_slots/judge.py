"""A small network that reads pictures of the Arrow Room, so that made-up ones can be counted as right or wrong."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from energycomp.errors import InputError
from energycomp.files import atomic_directory, read_tensors, verify, write_tensors
from energycomp.models import load_weights
from energycomp_decomp.data import HELD_OUT
from energycomp_slots.arrow_room import SHAPES, SIZE
from energycomp_slots.judge_scenes import INVALID, RIGHT, VERDICTS, WRONG, labelled

__all__ = [
    "Judge",
    "Reading",
    "confusion",
    "judge_accuracy",
    "judge_loss",
    "load_judge",
    "save_judge",
    "structure_accuracy",
]

WEIGHTS = "model.safetensors"
OBJECTS = 3
CHUNK = 250  # pictures that are read at once


@attrs.frozen(eq=False)
class Reading:
    """What is seen in pictures: shapes (B, 3) from left to right, where the arrow points (B,), whether valid (B,)."""

    shapes: Tensor
    target: Tensor
    valid: Tensor

    @property
    def verdicts(self) -> Tensor:
        """Indices (B,) of `VERDICTS`.

        A picture that is not valid is invalid, whatever else is read in it. A valid one is right where exactly one
        object's shape is unlike both others, and the arrow points at that object; it is wrong otherwise, so also where
        all shapes are alike or all differ.

        >>> seen = torch.tensor([[0, 2, 2], [0, 2, 2], [1, 1, 1], [0, 1, 2], [0, 2, 2]])
        >>> Reading(seen, torch.tensor([0, 1, 0, 0, 0]), torch.tensor([1, 1, 1, 1, 0]).bool()).verdicts.tolist()
        [0, 1, 1, 1, 2]
        """
        odd = (self.shapes[:, :, None] == self.shapes[:, None]).sum(2) == 1
        right = odd.gather(1, self.target[:, None])[:, 0] & (odd.sum(1) == 1)
        return torch.where(self.valid, torch.where(right, RIGHT, WRONG), INVALID)


class Judge(nn.Module):
    """Pictures (B, 3, 32, 32) in [-1, 1] to logits: of each object's shape, of the arrow's target, of being valid.

    Args:
        channels: at the full size, 1/2, 1/4 and 1/8.

    >>> judge = Judge().eval()
    >>> shapes, target, valid = judge(torch.zeros(2, 3, 32, 32))
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

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, 3, 3), (B, 3) and (B,)."""
        features = self.body(images)
        return (
            self.shapes(features).unflatten(1, (OBJECTS, len(SHAPES))),
            self.target(features),
            self.valid(features)[:, 0],
        )

    @torch.no_grad()
    def read(self, images: Tensor) -> Reading:
        """What is most likely seen in pictures (B, 3, 32, 32) in [-1, 1].

        Raises:
            InputError: pictures of another size.
        """
        if images.ndim != 4 or images.shape[1:] != (3, SIZE, SIZE):
            shape = tuple(images.shape)
            raise InputError(f"got pictures of shape {shape}; expected (B, 3, {SIZE}, {SIZE}), as of the Arrow Room")
        seen = [self(part) for part in images.split(CHUNK)]
        shapes, target, valid = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return Reading(shapes.argmax(2), target.argmax(1), valid > 0)

    def verdicts(self, images: Tensor) -> Tensor:
        """Indices (B,) of `VERDICTS`, as `Reading.verdicts` says: 0 right, 1 wrong, 2 invalid."""
        return self.read(images).verdicts


def judge_loss(network: nn.Module, batch: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy of all heads, a loss for `energycomp.training.fit.fit`, on pictures that are drawn on the spot.

    Of a batch (B, ...) only the size is used. In invalid pictures nothing is learned but that they are.
    """
    seed = int(torch.randint(HELD_OUT, (), generator=generator))
    with torch.autocast(batch.device.type, enabled=False):  # pictures are drawn as precisely as ever
        pictures, labels, _ = labelled(len(batch), seed=seed).tensors
    samples = (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
    shapes, target, valid = (logits.float() for logits in network(samples))
    there = labels[:, -1].bool()
    kinds, aims = labels[there, :OBJECTS], labels[there, OBJECTS]
    read = F.cross_entropy(shapes[there].flatten(0, 1), kinds.flatten()) + F.cross_entropy(target[there], aims)
    return read + F.binary_cross_entropy_with_logits(valid, there.float())


@torch.no_grad()
def confusion(judge: Judge, count: int, *, seed: int) -> Tensor:
    """How many of `count` held-out scenes of each verdict (rows) are taken for which (columns), (3, 3)."""
    pictures, _, true = labelled(count, seed=HELD_OUT + seed).tensors
    found = torch.cat([judge.verdicts(part.float() / 127.5 - 1) for part in pictures.split(CHUNK)])
    return torch.bincount(true * len(VERDICTS) + found, minlength=len(VERDICTS) ** 2).unflatten(0, (len(VERDICTS), -1))


def judge_accuracy(count: int, *, seed: int, judge: Judge | None = None) -> float:
    """The share of held-out scenes, of each verdict as many, that the judge is right about."""
    table = confusion(judge or load_judge(), count, seed=seed)
    return float(table.trace() / table.sum())


def structure_accuracy(images: Tensor, *, judge: Judge | None = None) -> float:
    """The share of pictures (B, 3, 32, 32) in [-1, 1] whose arrow points at the one object of a unique shape."""
    return float(((judge or load_judge()).verdicts(images) == RIGHT).float().mean())


def save_judge(judge: Judge, folder: str | Path) -> None:
    """Writes the weights as float16; the folder appears whole or not at all."""
    Path(folder).parent.mkdir(parents=True, exist_ok=True)
    with atomic_directory(folder) as temporary:
        write_tensors(temporary / WEIGHTS, {name: tensor.half() for name, tensor in judge.state_dict().items()})


def load_judge(folder: str | Path | None = None) -> Judge:
    """The trained network, frozen and in eval mode, with the weights of this package or of a folder.

    Raises:
        CheckpointError: a file is missing or altered, or a tensor does not fit.
    """
    if folder is None:
        with as_file(files("energycomp_slots") / "weights" / "judge") as inside:
            return load_judge(inside)
    path = Path(folder)
    verify(path)
    judge = Judge()
    load_weights(judge, read_tensors(path / WEIGHTS), str(path))
    return judge.requires_grad_(requires_grad=False).eval()
