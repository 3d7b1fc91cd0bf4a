"""Train the reader of CLEVR scenes that energycomp-datasets ships, on renders alone, and try it on others.

python benchmarks/sampling/scene_reader.py --data renders [more ...] [--held-out others] [--steps 4000] [--seed 0]
    [-o runs/reader] [--save FOLDER]

Folders are in CLEVR's layout, such as `energycomp data clevr --renderer blender` writes; one that is named twice counts
twice. Prints one JSON line: on the held-out images the shares of objects found, of counts that are right, and of found
objects whose words are right, also by their number. Without `--data` the shipped reader is tried. A run that was
stopped continues. `--save` writes the weights in the form in which the package ships them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.common.training import trained
from energycomp.images import ImageProcessor, from_bytes, to_bytes
from energycomp_clevr.objects import Objects
from energycomp_clevr.recipe import values_of
from energycomp_datasets.clevr.layout import read
from energycomp_datasets.clevr.reader import CELL, SIZE, WORDS, SceneReader, load_reader
from energycomp_datasets.shipped import save_network
from energycomp_lab.evaluation import AttributeAccuracy, CountAccuracy, PerceptionRate, attribute_metrics
from energycomp_lab.training import Step, collate

STEPS, BATCH, RATE = 4_000, 16, 2e-3


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the line."""
    some = {"data": ([""], "folders of renders to learn from"), "held_out": (None, "folder of renders to try")}
    save = (None, "a folder for the weights, as energycomp_datasets/weights/reader")
    options = parser(__doc__, **some, steps=STEPS, seed=0, out="runs/reader", save=save).parse_args(arguments)
    if options.data == [""]:
        reader = load_reader()
    else:
        reader = trained(
            lambda: SceneReader().to(memory_format=torch.channels_last), loss,
            [scene for folder in options.data for scene in scenes(Path(folder))], options.out,
            collate_fn=collate, steps=options.steps, batch_size=BATCH, learning_rate=RATE, mixed_precision="bf16",
            seed=options.seed,
        )  # fmt: skip
    if options.save:
        save_network(reader, options.save)
        reader = load_reader(options.save)
    if options.held_out is not None:
        others = scenes(options.held_out)
        found = reader.read(from_bytes(torch.stack([one["image"] for one in others])))
        true = [one["values"] for one in others]
        line = {"held_out": len(others), "steps": options.steps, "seed": options.seed, **agreement(found, true)}
        for count in sorted({len(one) for one in true}):
            some = [k for k, one in enumerate(true) if len(one) == count]
            scores = agreement([found[k] for k in some], [true[k] for k in some])
            line[f"all_attributes_of_{count}"] = scores["all_attributes"]
        print(json.dumps(line), flush=True)


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
        F.cross_entropy(part, code, reduction="sum", ignore_index=-1)  # open
        for part, code in zip(own[:, 2:].split(WORDS, 1), values[:, 2:].long().T - 1, strict=True)
    )
    return (-focal.sum() + offset.sum() + words) / max(len(values), 1)


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


if __name__ == "__main__":
    main()
