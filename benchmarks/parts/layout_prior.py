"""Counts of scenes with a prior of layouts, beside none.

python benchmarks/parts/layout_prior.py [--model clevr] [--data synthetic:6-8] [-n 60] [--seed 0]
    [--records runs/layout_prior.jsonl]

The prior is that of `energycomp_scenes.layout_prior`, which is learned from places and sizes of other scenes. Both ways
read the same images with the same draws; attributes are left open, which the count does not depend on.

Prints one JSON line: of each way the share of right counts, counts above and below the true ones, and NFE, and how much
the share differs from that without a prior; intervals are 95 % bootstrap intervals over images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import infer, load
from energycomp.images import to_unit
from energycomp_cli import append_line, read_lines
from energycomp_lab.evaluation import source_of
from energycomp_scenes import layout_prior

RESAMPLES = 2000


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line."""
    options = parser(
        __doc__, model="clevr", data="synthetic:6-8", n=60, seed=0,
        records=(Path("runs/layout_prior.jsonl"), "answers, one line an image, which a further run takes up"),
    ).parse_args(arguments)  # fmt: skip
    ways = {"none": None, "pairs": layout_prior()}
    model = load(options.model)
    known = read_lines(options.records) if options.records.is_file() else []
    examples = source_of("clevr", model).examples(options.data, count=options.n, seed=options.seed)
    for k in tqdm(range(len(known), options.n)):
        image, count, record = to_unit(examples[k].image), len(examples[k].conditions), {}
        how: dict[str, Any] = {"generator": options.seed + k, "progress": False}
        for name, prior in ways.items():
            solution = infer(image, model, prior=prior, attributes=False, **how)
            record[name] = [solution.count - count, solution.rows]
        append_line(options.records, record)
        known.append(record)
    found = {name: [record[name] for record in known[: options.n]] for name in ways}
    result: dict[str, Any] = {name: of_way(torch.tensor(found[name]), torch.tensor(found["none"])) for name in ways}
    result |= {"images": options.n, "data": options.data, "seed": options.seed}
    print(json.dumps(result))


def of_way(found: Tensor, without: Tensor) -> dict[str, Any]:
    """What is printed of a way: deviations of counts, and NFE, (N, 2), and those without a prior."""
    right, before = (one[:, 0] == 0 for one in (found, without))
    resampled = torch.randint(len(found), (RESAMPLES, len(found)), generator=torch.Generator().manual_seed(0))

    def interval(values: Tensor) -> list[float]:
        means = values.double()[resampled].mean(1)
        return [
            round(float(x), 3) for x in (values.double().mean(), *means.quantile(torch.tensor([0.025, 0.975]).double()))
        ]

    return {
        "count_accuracy": interval(right),
        "minus_none": interval(right.double() - before.double()),
        "too_many": int((found[:, 0] > 0).sum()),
        "too_few": int((found[:, 0] < 0).sum()),
        "nfe": round(float(found[:, 1].double().mean())),
    }


if __name__ == "__main__":
    main()
