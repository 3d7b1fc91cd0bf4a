"""Calibrate a model on held-out images, so that `infer` tells how unusual an image is (`Solution.typicality`).

python benchmarks/inference/calibrate.py [--model clevr-places] [--data synthetic:0-10] [-n 440] -o FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from energycomp import Model, load
from energycomp.models import save_pretrained
from energycomp.plugins import find
from energycomp_lab.evaluation import Example, calibrate


def main() -> None:
    """Saves the model with its calibration, in half precision as the shipped ones are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clevr-places", help="registered name or folder")
    parser.add_argument("--data", default="synthetic:0-10", help="held-out images of the model's kind")
    parser.add_argument("-n", type=int, default=440)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the calibrated model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model: Model = load(options.model)
    examples: Sequence[Example] = find("datasets", model.name)().examples(
        options.data, count=options.n, seed=options.seed
    )
    save_pretrained(calibrate(model, examples, seed=options.seed), options.out, dtype=torch.float16)
    print(load(options.out).defaults.calibration)


if __name__ == "__main__":
    main()
