"""Calibrate a model on held-out images, so that `infer` tells how unusual an image is (`Solution.typicality`).

python benchmarks/inference/calibrate.py [--model clevr-places] [--data synthetic:0-10] [-n 440] -o FOLDER
python benchmarks/inference/calibrate.py --background [--model clevr-places] [--data synthetic:0-10] [-n 440]

The second one measures and prints `Calibration.background` alone, without a search.
"""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.common.options import parser
from energycomp import Model, load
from energycomp.models import save_pretrained
from energycomp_lab.evaluation import calibrate, dataset_of, measure_background, source_of


def main() -> None:
    """Saves the model with its calibration, in half precision as the shipped ones are."""
    parsed = parser(__doc__, model="clevr-places", data=("synthetic:0-10", "held-out images"), n=440, seed=1)
    parsed.add_argument("-o", "--out", type=Path, help="folder of the calibrated model")
    parsed.add_argument("--background", action="store_true", help="measure the background alone")
    options = parsed.parse_args()
    torch.set_num_threads(1)
    model: Model = load(options.model)
    examples = source_of(dataset_of(model), model).examples(options.data, count=options.n, seed=options.seed)
    if options.background or options.out is None:
        print(measure_background(model, examples))
        return
    save_pretrained(calibrate(model, examples, seed=options.seed), options.out, dtype=torch.float16)
    print(load(options.out).defaults.calibration)


if __name__ == "__main__":
    main()
