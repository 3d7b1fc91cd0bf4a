"""Train the classifier of Arrow Room images on rendered scenes, and measure its accuracy on held-out scenes.

python benchmarks/decomposition/train_judge.py [--steps 4000] [--seed 0] [-n 5000] [-o runs/judge] [--save FOLDER]

Held-out scenes use the seed of `energycomp evaluate` and have the same number of images per class. `--save` writes the
weights in the form in which the package ships them.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from energycomp.files import atomic_file
from energycomp_datasets.rooms.classifier import (
    Classifier,
    classifier_loss,
    confusion,
    load_classifier,
    save_classifier,
)
from energycomp_datasets.rooms.corruptions import CORRUPTIONS, INVALID, VERDICTS, corrupted
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.training import FitConfig, fit

BATCH, RATE = 128, 2e-3
SPOILED = 300  # held-out pictures of each way to fail


def train(out: Path, *, steps: int, seed: int) -> Classifier:
    """The averaged weights of a run, which goes on where it was stopped."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Classifier().to(memory_format=torch.channels_last)
    data: Any = torch.zeros(BATCH)  # the loss draws what is learned from
    config = FitConfig(
        steps=steps, batch_size=BATCH, learning_rate=RATE, ema_decay=0.99, seed=seed, mixed_precision="bf16"
    )
    result = fit(network, classifier_loss, data, config, out=out / f"seed-{seed}")
    network.load_state_dict(result.ema_state)
    return network.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-n", type=int, default=5000, help="held-out pictures")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/judge"))
    parser.add_argument("--save", type=Path, help="a folder for the weights, as energycomp_datasets/weights/classifier")
    args = parser.parse_args()
    started = time.perf_counter()
    judge = train(args.out, steps=args.steps, seed=args.seed)
    seconds = time.perf_counter() - started
    if args.save:
        save_classifier(judge, args.save)
        judge = load_classifier(args.save)
    table = confusion(judge, args.n, seed=args.seed)
    seed = HELD_OUT + args.seed
    caught = {
        kind: float((judge.verdicts(corrupted(kind, SPOILED, seed=seed)) == INVALID).float().mean())
        for kind in CORRUPTIONS
    }
    report = {"steps": args.steps, "batch": BATCH, "seed": args.seed, "held_out": args.n, "seconds": round(seconds)}
    report |= {"accuracy": float(table.trace() / table.sum())}
    report |= {"by_class": dict(zip(VERDICTS, (table.diagonal() / table.sum(1)).tolist(), strict=True))}
    report |= {"confusion": table.tolist(), "invalid_found": caught}
    with atomic_file(args.out / "report.json") as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
