"""Sample scenes with objects at K given places in several ways, and read the places back.

python benchmarks/sampling/composed_samples.py [-n 64] [--counts 3,5,8] [--ways ddim@50 ddpm@100x4] [-o composed.png]

A way is SCHEDULER@STEPS or SAMPLER@STEPS; x4 draws four samples of each layout and keeps the best by lift. Every layout
has a seed of its own, so that all ways start from the same noise. Results in `--records` are taken up again.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import ways
from energycomp import Model, infer, load
from energycomp_datasets.clevr.layout import render_objects
from energycomp_lab.evaluation import PerceptionRate


def summary(found: Sequence[Mapping[str, Any]], asked: Tensor) -> dict[str, float]:
    """Shares of places found and of right counts with their intervals, and network evaluations of a sample."""
    rates = [PerceptionRate() for _ in found]
    for rate, row, true in zip(rates, found, asked, strict=True):
        rate.update([torch.tensor(row["read"]).reshape(-1, 2)], [true])
    places = ways.mean_interval(torch.stack([rate.compute() for rate in rates]))
    right = ways.mean_interval(torch.tensor([len(row["read"]) == asked.shape[1] for row in found]))
    return {
        "found": places[0],
        "found_interval": places[1],
        "count_right": right[0],
        "count_right_interval": right[1],
        "rows_per_sample": ways.spent(found),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each count and way."""
    given = {"model": "clevr-places", "records": "runs/composed_samples"}
    options = ways.sampling_options(__doc__, scenes="layouts", **given).parse_args(arguments)
    model, shown = load(options.model), list[Path]()
    for count in map(int, options.counts.split(",")):
        _, described = render_objects(options.n, objects=(count, count), seed=ways.HELD_OUT + options.seed)
        places = [one[:, :2] for one in described]
        scenes = [reduce(operator.and_, [model.leaf(place[None]) for place in one]) for one in places]
        for way in options.ways or [ways.Way.of(model)]:
            folder = ways.folder_of(options.records, options.model, model, count, way, options.seed)
            found = ways.all_recorded(
                folder, way, model, scenes, options.seed, read_by(model), f"{count} objects, {way}"
            )
            line = {"objects": count, "way": str(way), "samples": options.n, "seed": options.seed}
            print(json.dumps({**line, **summary(found, torch.stack(places))}), flush=True)
            shown += ways.first(folder, options.n)
    ways.write_rows(options.o, shown, columns=min(ways.SHOWN, options.n))


def read_by(model: Model) -> Callable[[int, Tensor], Any]:
    """Reads a sample."""
    return lambda _, image: infer(image, model).conditions.tolist()


if __name__ == "__main__":
    main()
