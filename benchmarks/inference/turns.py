"""How well the turns of cubes are read, where places and words are known.

python benchmarks/inference/turns.py --data renders [-n 60] [--model clevr] [--seed 1]

`--data` names a folder in CLEVR's layout whose objects say how they are turned, such as `energycomp data clevr
--renderer blender` writes. Only whole cubes are judged: with nothing in front of them, and not cut by the edge of the
image. Prints one JSON line for large ones and one for small ones: how many, the median error in degrees, modulo 90,
with its 95 % interval (bootstrap), and the share of errors of at most 10 degrees; by chance they are 22.5 and 0.22.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import bootstrap
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import load
from energycomp.errors import InputError
from energycomp.inference import make_problem
from energycomp_clevr.codes import ATTRIBUTES, CUBE, QUARTER, SHAPE, TURN
from energycomp_clevr.latents_recipe import turned_values_of
from energycomp_datasets.clevr.layout import read
from energycomp_datasets.clevr.outlines import in_view

SIZE = 2  # column of a value
NEAR = 10.0  # degrees


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines."""
    folder = (None, "folder of renders in CLEVR's layout")
    options = parser(__doc__, model="clevr", data=folder, n=(60, "images"), seed=(1, "of draws")).parse_args(arguments)
    model = load(options.model)
    if model.conditioner.value_shape[0] <= TURN or options.data is None:
        raise InputError(f"got {options.model} and --data {options.data}; expected a model with turns, and a folder")
    errors: dict[str, list[float]] = {name: [] for name in ATTRIBUTES["size"]}
    for record in tqdm(read(options.data)[: options.n], desc="reading"):
        true = turned_values_of(record)
        judged = in_view(true) & (true[:, SHAPE] == CUBE) & (true[:, TURN] > 0)
        if not judged.any():
            continue
        # Open turns, which are read last.
        asked = true.clone()
        asked[:, TURN] = 0.0
        problem = make_problem(model.encode(record.path), model)
        found = model.conditioner.read_last(problem, asked, torch.Generator().manual_seed(options.seed))
        apart = (found[:, TURN] - true[:, TURN] + QUARTER / 2) % QUARTER - QUARTER / 2
        for index in judged.nonzero()[:, 0].tolist():
            errors[ATTRIBUTES["size"][int(true[index, SIZE]) - 1]].append(abs(float(apart[index])))
    for size, those in errors.items():
        print(json.dumps({"size": size, **summary(those), "images": options.n, "seed": options.seed}), flush=True)


def summary(errors: Sequence[float]) -> dict[str, object]:
    """The median of some errors with its interval, and the share of those that are near."""
    if len(errors) < 2:
        return {"cubes": len(errors)}
    ends = bootstrap((np.array(errors),), np.median, method="percentile", rng=0).confidence_interval
    near = float(np.mean(np.array(errors) <= NEAR))
    line = {"cubes": len(errors), "median_error": round(float(np.median(errors)), 2)}
    return {**line, "interval": [round(float(end), 2) for end in ends], "within_10_degrees": round(near, 4)}


if __name__ == "__main__":
    main()
