"""Train a reader of CLEVR scenes that shares nothing with the models: a detector, learned from renders alone.

python benchmarks/sampling/scene_reader.py --data renders [--held-out others] [--steps 4000] [--seed 0] [-o runs/reader]

Both folders are in CLEVR's layout, such as `energycomp data clevr --renderer blender` writes. Prints one JSON line: on
the held-out images the shares of objects found, of counts that are right, and of found objects whose words are right.
Other benchmarks read samples with it: `described_scenes.py --reader runs/reader`. A run that was stopped continues.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.common.training import trained
from energycomp.errors import InputError
from energycomp.files import atomic_directory, read_tensors, write_tensors
from energycomp.images import ImageProcessor, from_bytes, to_bytes
from energycomp.models import load_weights
from energycomp_clevr.objects import Objects
from energycomp_clevr.recipe import values_of
from energycomp_datasets.clevr.layout import read
from energycomp_datasets.clevr.scenes import ATTRIBUTES
from energycomp_lab.evaluation import AttributeAccuracy, CountAccuracy, PerceptionRate, attribute_metrics
from energycomp_lab.training import Step, collate

SIZE, CELL = 128, 4  # pixels: of an image, and of a cell of the maps
WORDS = tuple(map(len, ATTRIBUTES.values()))
SURE = 0.3  # least height of a peak that is an object
WEIGHTS = "model.safetensors"
STEPS, BATCH, RATE = 4_000, 16, 2e-3


class Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = h + self.second(F.silu(self.norms[1](self.first(F.silu(self.norms[0](h))))))
        return out


class SceneReader(nn.Module):
    """Images (B, 3, 128, 128) in [-1, 1] to maps (B, 1 + 2 + 15, 32, 32): an object's centre, its offset, its words.

    Objects are peaks of the first map, as in CenterNet (Zhou et al., 2019).

    >>> SceneReader()(torch.zeros(1, 3, 128, 128)).shape
    torch.Size([1, 18, 32, 32])
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(48, 96, 3, padding=1), Block(96), Block(96))
        self.coarse = nn.Sequential(nn.Conv2d(96, 160, 3, stride=2, padding=1), *(Block(160) for _ in range(3)))
        self.join = nn.Conv2d(160, 96, 1)
        self.out = nn.Sequential(Block(96), Block(96), nn.GroupNorm(8, 96), nn.SiLU(), nn.Conv2d(96, 3 + sum(WORDS), 1))
        nn.init.constant_(cast("nn.Conv2d", self.out[-1]).bias[:1], -4.0)  # type: ignore[index]

    def forward(self, images: Tensor) -> Tensor:
        fine = self.fine(images)
        maps: Tensor = self.out(fine + F.interpolate(self.join(self.coarse(fine)), scale_factor=2.0))
        return maps

    @torch.no_grad()
    def read(self, images: Tensor) -> list[Tensor]:
        """The objects of images (B, 3, 128, 128), (K, 6) each: x, y, and the place of each word, from 1."""
        found = []
        for maps in self(images).float():
            heat = maps[0].sigmoid()
            peak = (heat == F.max_pool2d(heat[None], 3, 1, 1)[0]) & (heat > SURE)
            row, column = peak.nonzero().T
            own = maps[1:, row, column]
            places = (torch.stack([column, row]) + own[:2]).T / (SIZE // CELL)
            codes = [part.argmax(0) + 1 for part in own[2:].split(WORDS)]
            found.append(torch.cat([places.clamp(0, 1), torch.stack(codes, 1).to(places)], 1))
        return found


def loss(network: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
    """Focal loss of the centres, absolute error of the offsets, cross-entropy of the words; half are mirrored."""
    images, values, owner = from_bytes(batch["image"]), batch["values"].clone(), batch["owner"]
    brighter = 0.1 * torch.randn(len(images), 1, 1, 1, generator=step.generator)
    images = ((images + 1) * (1 + brighter) - 1).clamp(-1, 1)
    images = images + 0.02 * torch.randn(images.shape, generator=step.generator)
    if torch.rand((), generator=step.generator) < 0.5:
        images, values[:, 0] = images.flip(3), 1 - values[:, 0]
    maps = network(images.contiguous(memory_format=torch.channels_last)).float()
    side = SIZE // CELL
    exact = values[:, :2] * side
    column, row = exact.long().clamp(0, side - 1).T
    grid = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="xy"), -1) + 0.5
    near = torch.exp(-(grid[None] - exact[:, None, None]).square().sum(-1) / 2)
    target = torch.zeros(len(images), side, side)
    target = target.scatter_reduce(0, owner[:, None, None].expand_as(near), near, "amax")
    target[owner, row, column] = 1.0
    score, positive = maps[:, 0].sigmoid().clamp(1e-4, 1 - 1e-4), target == 1
    focal = torch.where(positive, (1 - score) ** 2 * score.log(), (1 - target) ** 4 * score**2 * (1 - score).log())
    own = maps[owner, 1:, row, column]
    offset = (own[:, :2] - (exact - torch.stack([column, row], 1))).abs().sum(1)
    words = sum(
        F.cross_entropy(part, code, reduction="sum")
        for part, code in zip(own[:, 2:].split(WORDS, 1), values[:, 2:].long().T - 1, strict=True)
    )
    return (-focal.sum() + offset.sum() + words) / max(len(values), 1)


def scene_reader(folder: Path, data: Path | None = None, *, steps: int = STEPS, seed: int = 0) -> SceneReader:
    """The reader of a folder, in eval mode; trained on `data` where it is not there."""
    weights = folder / "weights"
    if not weights.exists():
        if data is None:
            raise InputError(f"got no reader in {folder}; expected one; train it: scene_reader.py --data renders")
        made = trained(
            lambda: SceneReader().to(memory_format=torch.channels_last), loss, scenes(data), folder / "run",
            collate_fn=collate, steps=steps, batch_size=BATCH, learning_rate=RATE, mixed_precision="bf16", seed=seed,
        )  # fmt: skip
        with atomic_directory(weights) as temporary:
            write_tensors(temporary / WEIGHTS, {name: one.contiguous() for name, one in made.state_dict().items()})
    network = SceneReader()
    load_weights(network, read_tensors(weights / WEIGHTS), str(weights))
    return network.requires_grad_(requires_grad=False).eval()


def scenes(folder: Path) -> list[dict[str, Tensor]]:
    """Images (3, 128, 128), uint8, of a folder in CLEVR's layout, and their objects (K, 6)."""
    processor = ImageProcessor(size=(SIZE, SIZE), resize="squash")
    return [
        {"image": to_bytes(processor(record.path)[0]), "values": values_of(record)}
        for record in tqdm(read(folder), desc="reading", leave=False)
    ]


def agreement(found: Sequence[Tensor], true: Sequence[Tensor]) -> dict[str, float]:
    """Shares of true objects found, of right counts, and of found objects with each and all words right."""
    rates = {"found": PerceptionRate(), "count_right": CountAccuracy()}
    for metric in rates.values():
        metric.update([one[:, :2] for one in found], [one[:, :2] for one in true])
    words = {name: one for name, one in attribute_metrics(Objects()).items() if isinstance(one, AttributeAccuracy)}
    for accuracy in words.values():
        accuracy.update(list(found), list(true))
    return {name: round(float(metric.compute()), 4) for name, metric in {**rates, **words}.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the line."""
    folders = {"data": (None, "folder of renders to learn from"), "held_out": (None, "folder of renders to try")}
    options = parser(__doc__, **folders, steps=STEPS, seed=0, out="runs/reader").parse_args(arguments)
    reader = scene_reader(options.out, options.data, steps=options.steps, seed=options.seed)
    if options.held_out is not None:
        some = scenes(options.held_out)
        found = reader.read(from_bytes(torch.stack([one["image"] for one in some])))
        line = {"reader": str(options.out.name), "held_out": len(some), "steps": options.steps, "seed": options.seed}
        print(json.dumps(line | agreement(found, [one["values"] for one in some])), flush=True)


if __name__ == "__main__":
    main()
