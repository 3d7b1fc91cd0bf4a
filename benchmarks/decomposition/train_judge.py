"""Train the classifier of Arrow Room images on rendered scenes, and measure its accuracy on held-out scenes.

python benchmarks/decomposition/train_judge.py [--steps 4000] [--seed 0] [-n 5000] [-o runs/judge] [--save FOLDER]

Held-out scenes use the seed of `energycomp evaluate` and have the same number of images per class. `--save` writes the
weights in the form in which the package ships them.
"""

from __future__ import annotations

import time

import torch

from benchmarks.common.options import parser
from benchmarks.common.training import report, trained
from benchmarks.decomposition.corruptions import CORRUPTIONS, classifier_loss, confusion, corrupt_rooms
from energycomp_datasets.rooms.classifier import INVALID, VERDICTS, Classifier, load_classifier
from energycomp_datasets.shipped import save_network
from energycomp_datasets.synthetic import HELD_OUT

BATCH, RATE = 128, 2e-3
SPOILED = 300  # held-out images of each way to fail


def main() -> None:
    """Writes report.json."""
    save = (None, "a folder for the weights, as energycomp_datasets/weights/classifier")
    parsed = parser(__doc__, steps=4000, seed=0, n=(5000, "held-out images"), out="runs/judge", save=save)
    options = parsed.parse_args()
    started, data = time.perf_counter(), torch.zeros(BATCH)  # the loss draws what is learned from
    judge = trained(
        lambda: Classifier().to(memory_format=torch.channels_last), classifier_loss, data,
        options.out / f"seed-{options.seed}", steps=options.steps, batch_size=BATCH, learning_rate=RATE,
        ema_decay=0.99, seed=options.seed, mixed_precision="bf16",
    )  # fmt: skip
    seconds = time.perf_counter() - started
    if options.save:
        save_network(judge, options.save)
        judge = load_classifier(options.save)
    table, seed = confusion(judge, options.n, seed=options.seed), HELD_OUT + options.seed
    caught = {
        kind: float((judge.verdicts(corrupt_rooms(kind, SPOILED, seed=seed)) == INVALID).float().mean())
        for kind in CORRUPTIONS
    }
    found = {"steps": options.steps, "batch": BATCH, "seed": options.seed, "held_out": options.n}
    found |= {"seconds": round(seconds), "accuracy": float(table.trace() / table.sum())}
    found |= {"by_class": dict(zip(VERDICTS, (table.diagonal() / table.sum(1)).tolist(), strict=True))}
    report(options.out / "report.json", {**found, "confusion": table.tolist(), "invalid_found": caught})


if __name__ == "__main__":
    main()
