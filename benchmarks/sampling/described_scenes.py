"""Sample scenes of K described objects, and read them back: places, and size, colour, material and shape.

python benchmarks/sampling/described_scenes.py [-n 64] [--counts 3,5,8] [--guidance 3] [-o described.png]

The descriptions are those of held-out rendered scenes, or of a folder of them (`--data`). A way is as in
`composed_samples.py`. The model itself reads its samples, or a reader that shares nothing with it
(`--reader`, see `scene_reader.py`). Results in `--records` are taken up again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import ways
from benchmarks.sampling.composed_samples import read_by
from energycomp.components import mixed_of
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp_clevr.recipe import values_of
from energycomp_datasets.clevr.layout import read as read_records, render_objects
from energycomp_datasets.clevr.reader import SIZE, load_reader
from energycomp_lab.evaluation import AttributeAccuracy, PerceptionRate, attribute_metrics

INCLUDED = "included"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each count and way."""
    given: dict[str, Any] = {"model": "clevr", "records": "runs/described_scenes", "guidance": ways.GUIDANCE}
    given |= {
        "data": (None, "folder in CLEVR's layout"),
        "reader": ("", "`included`, or the folder of a reader of `scene_reader.py`; the model itself when left out"),
    }
    options = ways.sampling_options(__doc__, scenes="scenes", **given).parse_args(arguments)
    model = ways.guided(options.model, options.guidance)
    if (mixed := mixed_of(model.conditioner)) is None:
        raise InputError(f"got the model {options.model}; expected one of whole objects, such as clevr")
    split = mixed.support.split
    read, who = (read_by(model), "") if not options.reader else (judged_by(options.reader), "-reader")

    shown: list[Path] = []
    for count in map(int, options.counts.split(",")):
        described = descriptions(options.data, count, options.n, options.seed)
        scenes = [model.compose(values) for values in described]
        for way in options.ways or [ways.Way.of(model)]:
            records = options.records / f"{options.data.name if options.data else ''}{who}"
            folder = ways.folder_of(records, options.model, model, count, way, options.seed)
            rows = ways.all_recorded(folder, way, model, scenes, options.seed, read, f"{count} objects, {way}")
            found = [torch.tensor(row["read"]).reshape(-1, described[0].shape[1]) for row in rows]
            rates = [PerceptionRate() for _ in found]
            for rate, one, true in zip(rates, found, described, strict=True):
                rate.update([split(one)[0]], [split(true)[0]])
            metrics = attribute_metrics(mixed)
            line: dict[str, Any] = {"objects": count, "way": str(way), "samples": len(scenes), "seed": options.seed}
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


def descriptions(data: Path | None, count: int, n: int, seed: int) -> list[Tensor]:
    """The objects (K, 6) of n scenes of a number of objects: of a folder, or else of held-out scenes."""
    if data is None:
        return render_objects(n, objects=(count, count), seed=ways.HELD_OUT + seed)[1]
    return [values_of(record) for record in read_records(data) if record.count == count][:n]


def judged_by(folder: str) -> Callable[[int, Tensor], Any]:
    """Reads a sample (C, H, W), in [0, 1], with a reader of `scene_reader.py`, or that of energycomp-datasets."""
    reader, processor = (
        load_reader(None if folder == INCLUDED else folder),
        ImageProcessor(size=(SIZE, SIZE), resize="squash"),
    )
    return lambda _, image: reader.read(processor(image * 2 - 1))[0].tolist()


if __name__ == "__main__":
    main()
