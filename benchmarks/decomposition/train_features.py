"""Train the network whose features compare images of coloured shapes, and measure how well it counts.

python benchmarks/decomposition/train_features.py [--steps 4500] [--seed 0] [-n 2000] [-o runs/features] [--save FOLDER]

Training images have one to five objects of either world. Held-out images use the seed of `energycomp evaluate`.
`--save` writes the weights in the form in which they are kept here.
"""

from __future__ import annotations

import time

import torch
from torch.utils.data import DataLoader

from benchmarks.common.options import parser
from benchmarks.common.training import report, trained
from benchmarks.decomposition.features import (
    LABELS,
    SHAPES,
    ShapeFeatures,
    counts_loss,
    draw_labelled,
    shape_features,
)  # fmt: skip
from energycomp_datasets.shipped import save_network
from energycomp_datasets.synthetic import HELD_OUT

DRAWN = 30_000
BATCH, RATE = 64, 2e-3


@torch.no_grad()
def accuracy(network: ShapeFeatures, *, count: int, seed: int) -> dict[str, float]:
    """Shares of held-out pictures whose rounded counts are all right: of shapes, of colours, of both, of objects."""
    right = []
    for pictures, true in DataLoader(draw_labelled(count, seed=HELD_OUT + seed), batch_size=BATCH):
        found = network.counts(pictures.float() / 127.5 - 1)
        hits = found.round() == true
        shapes, colours = hits[:, : len(SHAPES)].all(1), hits[:, len(SHAPES) :].all(1)
        total = found[:, : len(SHAPES)].sum(1).round() == true[:, : len(SHAPES)].sum(1)
        right.append(torch.stack([shapes, colours, shapes & colours, total, hits.float().mean(1)], 1).float())
    return dict(zip(("shapes", "colours", "all", "objects", "label"), torch.cat(right).mean(0).tolist(), strict=True))


def main() -> None:
    """Writes report.json."""
    save = (None, "a folder for the weights, such as benchmarks/decomposition/weights/features")
    parsed = parser(__doc__, steps=4500, seed=0, n=(2000, "held-out images"), out="runs/features", save=save)
    options = parsed.parse_args()
    started, data = time.perf_counter(), draw_labelled(DRAWN, seed=options.seed)
    network = trained(
        lambda: ShapeFeatures().to(memory_format=torch.channels_last), counts_loss, data,
        options.out / f"seed-{options.seed}", steps=options.steps, batch_size=BATCH, learning_rate=RATE,
        ema_decay=0.99, seed=options.seed, save_every=1500,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if options.save:
        save_network(network, options.save)
        network = shape_features(options.save)
    found = {"steps": options.steps, "batch": BATCH, "drawn": DRAWN, "seed": options.seed, "labels": len(LABELS)}
    found |= {"held_out": options.n, "seconds": round(seconds)}
    report(options.out / "report.json", {**found, **accuracy(network, count=options.n, seed=options.seed)})


if __name__ == "__main__":
    main()
