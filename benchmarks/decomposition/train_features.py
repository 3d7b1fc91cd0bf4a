"""Train the network whose features compare images of coloured shapes, and measure how well it counts.

python benchmarks/decomposition/train_features.py [--steps 4500] [--seed 0] [-n 2000] [-o runs/features] [--save FOLDER]

Training images have one to five objects of either world. Held-out images use the seed of `energycomp evaluate`.
`--save` writes the weights in the form in which the package ships them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from energycomp.files import atomic_file
from energycomp_datasets.shapes.features import (
    LABELS,
    SHAPES,
    ShapeFeatures,
    counts_loss,
    labelled,
    save_features,
    shape_features,
)
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.training import FitConfig, fit

DRAWN = 30_000
BATCH, RATE = 64, 2e-3


def train(out: Path, *, steps: int, seed: int) -> ShapeFeatures:
    """The averaged weights of a run, which goes on where it was stopped."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ShapeFeatures().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    config = FitConfig(steps=steps, batch_size=BATCH, learning_rate=RATE, ema_decay=0.99, seed=seed, save_every=1500)
    result = fit(network, counts_loss, labelled(DRAWN, seed=seed), config, out=out / f"seed-{seed}")
    network.load_state_dict(result.ema_state)
    return network.eval()


@torch.no_grad()
def accuracy(network: ShapeFeatures, *, count: int, seed: int) -> dict[str, float]:
    """Shares of held-out pictures whose rounded counts are all right: of shapes, of colours, of both, of objects."""
    right = []
    for pictures, true in DataLoader(labelled(count, seed=HELD_OUT + seed), batch_size=BATCH):
        found = network.counts(pictures.float() / 127.5 - 1)
        hits = found.round() == true
        shapes, colours = hits[:, : len(SHAPES)].all(1), hits[:, len(SHAPES) :].all(1)
        total = found[:, : len(SHAPES)].sum(1).round() == true[:, : len(SHAPES)].sum(1)
        right.append(torch.stack([shapes, colours, shapes & colours, total, hits.float().mean(1)], 1).float())
    return dict(zip(("shapes", "colours", "all", "objects", "label"), torch.cat(right).mean(0).tolist(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", type=int, default=2000, help="held-out pictures")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/features"))
    parser.add_argument(
        "--save", type=Path, help="a folder for the weights, such as energycomp_datasets/weights/features"
    )
    args = parser.parse_args()
    started = time.perf_counter()
    network = train(args.out, steps=args.steps, seed=args.seed)
    seconds = time.perf_counter() - started
    if args.save:
        save_features(network, args.save)
        network = shape_features(args.save)
    report = {"steps": args.steps, "batch": BATCH, "drawn": DRAWN, "seed": args.seed, "labels": len(LABELS)}
    report["held_out"] = args.n
    report |= {"seconds": round(seconds), **accuracy(network, count=args.n, seed=args.seed)}
    with atomic_file(args.out / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
