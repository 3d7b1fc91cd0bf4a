"""Sample scenes of K described objects, and read them back: places, and size, colour, material and shape.

python benchmarks/sampling/described_scenes.py [-n 64] [--counts 3,5,8] [--ways ddpm@100] [-o described.png]

The descriptions are those of held-out rendered scenes. A way is as in `composed_samples.py`; results in `--records` are
taken up again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import ways
from benchmarks.sampling.composed_samples import read_by
from energycomp import load
from energycomp.components import mixed_of
from energycomp.errors import InputError
from energycomp_datasets.clevr.layout import render_objects
from energycomp_lab.evaluation import AttributeAccuracy, PerceptionRate, attribute_metrics


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each count and way."""
    given = {"model": "clevr", "records": "runs/described_scenes"}
    options = ways.sampling_options(__doc__, scenes="scenes", **given).parse_args(arguments)
    model = load(options.model)
    if (mixed := mixed_of(model.conditioner)) is None:
        raise InputError(f"got the model {options.model}; expected one of whole objects, such as clevr")
    split = mixed.support.split

    shown: list[Path] = []
    for count in map(int, options.counts.split(",")):
        _, described = render_objects(options.n, objects=(count, count), seed=ways.HELD_OUT + options.seed)
        scenes = [model.compose(values) for values in described]
        for way in options.ways or [ways.Way.of(model)]:
            folder = ways.folder_of(options.records, options.model, model, count, way, options.seed)
            rows = ways.all_recorded(
                folder, way, model, scenes, options.seed, read_by(model), f"{count} objects, {way}"
            )
            found = [torch.tensor(row["read"]).reshape(-1, described[0].shape[1]) for row in rows]
            rates = [PerceptionRate() for _ in found]
            for rate, one, true in zip(rates, found, described, strict=True):
                rate.update([split(one)[0]], [split(true)[0]])
            metrics = attribute_metrics(mixed)
            line: dict[str, Any] = {"objects": count, "way": str(way), "samples": options.n, "seed": options.seed}
            line["found"], line["found_interval"] = ways.mean_interval(torch.stack([rate.compute() for rate in rates]))
            right = torch.tensor([len(one) == count for one in found])
            line["count_right"], line["count_right_interval"] = ways.mean_interval(right)
            for name, metric in metrics.items():
                if isinstance(metric, AttributeAccuracy):
                    metric.update(found, described)
                    line[str(name)] = round(float(metric.compute()), 4)
            print(json.dumps(line), flush=True)
            shown += ways.first(folder, options.n)
    ways.write_rows(options.o, shown, columns=min(ways.SHOWN, options.n), side=128)


if __name__ == "__main__":
    main()
