"""Sample scenes with objects at K given places in several ways, and read the places back.

python benchmarks/sampling/composed_samples.py [-n 64] [--counts 3,5,8] [--ways ddim@50 ddpm@100x4] [-o composed.png]

A way is SCHEDULER@STEPS or SAMPLER@STEPS; x4 draws four samples of each layout and keeps the best by lift. Every layout
has a seed of its own, so that all ways start from the same noise. Results in `--records` are taken up again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.ways import (
    HELD_OUT,
    SHOWN,
    Way,
    folder_of,
    mean_interval,
    recorded,
    sampling_options,
    write_rows,
)
from energycomp import Model, infer, load
from energycomp_datasets.clevr.layout import render_arrays
from energycomp_lab.evaluation import PerceptionRate


def summary(found: Sequence[Mapping[str, Any]], asked: Tensor) -> dict[str, float]:
    """Shares of places found and of right counts with their intervals, and network evaluations of a sample."""
    rates = [PerceptionRate() for _ in found]
    for rate, row, true in zip(rates, found, asked, strict=True):
        rate.update([torch.tensor(row["read"]).reshape(-1, 2)], [true])
    places = mean_interval(torch.stack([rate.compute() for rate in rates]))
    right = mean_interval(torch.tensor([len(row["read"]) == asked.shape[1] for row in found]))
    return {
        "found": places[0],
        "found_interval": places[1],
        "count_right": right[0],
        "count_right_interval": right[1],
        "rows_per_sample": round(sum(row["rows"] for row in found) / len(found), 1),
    }


def compose(model: Model, places: Tensor) -> Any:
    """Objects at the places (K, 2)."""
    composition = model.leaf(places[0][None])
    for place in places[1:]:
        composition = composition & model.leaf(place[None])
    return composition


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each count and way."""
    parser = sampling_options(__doc__, records="runs/composed_samples", scenes="layouts")
    parser.add_argument("--model", default="clevr-places", help="registered name or folder")
    options = parser.parse_args(arguments)
    model = load(options.model)

    def read(image: Tensor) -> Any:
        return infer(image, model).conditions.tolist()

    shown: list[Path] = []
    for count in map(int, options.counts.split(",")):
        _, places = render_arrays(options.n, objects=(count, count), seed=HELD_OUT + options.seed)
        for way in options.ways or [Way.of(model)]:
            folder = folder_of(options.records, options.model, model, count, way, options.seed)
            found = [
                recorded(folder / str(k), way, model, compose(model, place), options.seed + k, read)
                for k, place in enumerate(tqdm(places, desc=f"{count} objects, {way}"))
            ]
            line = {"objects": count, "way": str(way), "samples": options.n, "seed": options.seed}
            print(json.dumps({**line, **summary(found, torch.stack(places))}), flush=True)
            shown += [folder / f"{k}.png" for k in range(min(SHOWN, options.n))]
    if options.o:
        write_rows(options.o, [Image.open(path) for path in shown], columns=min(SHOWN, options.n))


if __name__ == "__main__":
    main()
