"""Sample two prompts with each guidance at the same steps, and read the samples with the same model.

python benchmarks/sampling/guidance.py [-n 32] [--scales 3 7.5] [--guidances cfg apg] [--way ddim@25] [-o guidance.png]

The compositions are `A & B`, of pairs of concepts of the model `text`, one per sample of a batch. `found` is the share
of the prompts that are found, with the number two known and 16 draws; `found_gain` is its difference from that of cfg,
on the same pairs and noise. `clipped` is the share of pixels with a channel at an end of its range: colours that a
guidance saturates. Results in `--records` are taken up again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.common.ways import PICTURE, Way, first, identity, mean_interval, spent, write_rows
from benchmarks.sampling.regions import composed, pairs
from energycomp import Composer, Model, infer, load, per_sample
from energycomp.denoisers import count_rows
from energycomp.files import atomic_file
from energycomp.images import to_output
from energycomp.plugins import names
from energycomp.sampling import make_guidance
from energycomp_solvers.enumerate import Enumerate

BATCH, DRAWS = 8, 16
PAIRS = 5  # that are drawn in a row
BASE = "cfg"
END = 1 / 255


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each guidance and scale."""
    made = parser(
        __doc__, model="text", n=(32, "pairs of concepts"), scales=[3.0, 7.5], guidances=list(names("guidances")),
        seed=0, records="runs/guidance", o=PICTURE,
    )  # fmt: skip
    made.add_argument("--way", type=Way.parsed, default=Way.parsed("ddim@25"), help="scheduler and steps")
    options = made.parse_args(arguments)
    model = load(options.model)
    folder, shown = options.records / f"{identity(options.model, model)}-{options.way}-{options.seed}", []
    chosen = pairs(options.n, options.seed)

    def rows_of(name: str, scale: float) -> list[dict[str, Any]]:
        place = folder / f"{name}-{scale:g}"
        return [
            row
            for start in tqdm(range(0, options.n, BATCH), desc=place.name)
            for row in _batch(place, model, chosen, range(options.n)[start : start + BATCH], (name, scale), options)
        ]

    for scale in options.scales:
        for name in options.guidances:
            rows = rows_of(name, scale)
            line: dict[str, Any] = {"guidance": name, "scale": scale, "way": str(options.way), "samples": options.n}
            for key in ("found", "clipped"):
                line[key], line[f"{key}_interval"] = mean_interval(torch.tensor([row[key] for row in rows]))
            if BASE in options.guidances and name != BASE:
                gains = [row["found"] - other["found"] for row, other in zip(rows, rows_of(BASE, scale), strict=True)]
                line["found_gain"], line["found_gain_interval"] = mean_interval(torch.tensor(gains))
            print(json.dumps({**line, "rows_per_sample": spent(rows), "seed": options.seed}), flush=True)
            shown += first(folder / f"{name}-{scale:g}", options.n, PAIRS)
    heads = [", ".join(pair) for pair in chosen[:PAIRS]]
    several = len(options.scales) > 1
    rows_named = [f"{name} {scale:g}" if several else name for scale in options.scales for name in options.guidances]
    write_rows(options.o, shown, columns=len(heads), side=160, heads=heads, names=rows_named)


def _batch(
    place: Path,
    model: Model,
    chosen: Sequence[tuple[str, str]],
    numbers: range,
    guidance: tuple[str, float],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """The results of a batch of samples, each of its own composition; they are taken from files if those exist."""
    files = [place / f"{k}.json" for k in numbers]
    if not all(file.exists() for file in files):
        place.mkdir(parents=True, exist_ok=True)
        with count_rows() as counted:
            compositions = per_sample([composed(model, "number", 1.0, chosen[k]) for k in numbers])
            images = Composer(compositions).sample(
                generator=[torch.Generator().manual_seed(options.seed + k) for k in numbers], output_type="pt",
                guidance=make_guidance(*guidance), scheduler=options.way.name, num_inference_steps=options.way.steps,
                progress=False,
            )  # fmt: skip
        for k, file, image in zip(numbers, files, images, strict=True):
            to_output(image[None], "pil", (0.0, 1.0))[0].save(file.with_suffix(".png"))
            row = {"found": _found(model, image, chosen[k]), "clipped": _clipped(image)}
            with atomic_file(file) as temporary:
                temporary.write_text(json.dumps({**row, "rows": counted.rows / len(numbers)}))
    return [json.loads(file.read_text()) for file in files]


def _found(model: Model, image: Tensor, pair: tuple[str, str]) -> float:
    """The share of the prompts that are found."""
    solution = infer(image, model, solver=Enumerate(draws=DRAWS, fresh_draws=1), count=2, progress=False, generator=0)
    read = {model.conditioner.describe(value)["concept"] for value in solution.conditions}
    return len(read & set(pair)) / 2


def _clipped(image: Tensor) -> float:
    """The share of pixels of an image (C, H, W) in [0, 1] with a channel at an end."""
    return float(((image <= END) | (image >= 1 - END)).any(0).double().mean())


if __name__ == "__main__":
    main()
