"""Sample composed, negated and weighted prompts in several ways, and read the samples with the same model or another.

python benchmarks/sampling/composed_prompts.py [-n 32] [--scale 1.5] [--ways ddim@50 ddpm@100x4] [-o composed.png]

two, three: any concepts, `A & B`, `A & B & C`; uneven: `1.2 A & 0.8 B`; compound: one prompt, `"A and B"`, for the
pairs of `two`. The score is the share of concepts that are found, with their number known. weighted: one prompt,
`scale A & u`; found if A is read, with one or two concepts. negated: the caption of a pair of the training set, with
one of its concepts negated, `"A and B" & ~B`; found if A is read and B is not, with one or two concepts. Each sample is
read with 64 draws, or by the detector of `--judge`, which is told no number: "exact" is then the share of samples that
show what was asked for and nothing else.

A way is SCHEDULER@STEPS or SAMPLER@STEPS; x4 draws four samples of each set and keeps the best by lift. Results in
`--records` are taken up again.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from benchmarks.common.options import parser
from benchmarks.common.ways import PICTURE, SHOWN, Way, all_recorded, first, identity, mean_interval, spent, write_rows
from benchmarks.sampling.prompt_reader import concepts_in, load_judge
from energycomp import Model, infer, load
from energycomp.components import compound_prompt
from energycomp_datasets.solids.solids import CONCEPTS, seen_pairs
from energycomp_solvers.enumerate import Enumerate

CASES = ("two", "three", "compound", "weighted", "uneven", "negated")
HEAVY, LIGHT = 1.2, 0.8
DRAWS = 64  # that read a sample


@attrs.frozen(eq=False)
class Case:
    """Names of concepts, their composition, and how many are looked for in a sample of it."""

    names: tuple[str, ...]
    composition: Any
    count: int | tuple[int, int]
    is_negated: bool = False  # the last one


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each case and way."""
    made = parser(
        __doc__, model="text",
        reader=("", "registered name or folder of the model that reads the samples; the same one"),
        judge=("", "folder of prompt_reader.py, whose detector reads them in place of a model"),
        n=(32, "samples of each case"), cases=(list(CASES), "all by default", CASES),
        scale=(0.0, "weight of every prompt; the model's own"), seed=0, records="runs/composed_prompts", o=PICTURE,
    )  # fmt: skip
    made.add_argument("--ways", nargs="+", type=Way.parsed, help="of drawing; the model's own scheduler and steps")
    options = made.parse_args(arguments)
    model = load(options.model)
    reader = load(options.reader) if options.reader else model
    models = identity(options.model, model)
    if options.reader:
        models += f"-read-by-{identity(options.reader, reader)}"
    judge = load_judge(Path(options.judge)) if options.judge else None
    if judge is not None:
        models += "-detected"
    scale = options.scale or model.defaults.guidance_scale
    shown, lines = list[Path](), list[str]()
    for name in options.cases:
        cases = [make(model, name, names, scale) for names in sets(name, options.n, options.seed)]
        compositions = [case.composition for case in cases]

        def read(k: int, image: Tensor, cases: Sequence[Case] = cases) -> float | list[str]:
            return concepts_in(judge, image * 2 - 1) if judge else share(cases[k], read_by(reader, cases[k], image))

        for way in options.ways or [Way.of(model)]:
            folder = options.records / f"{models}-{name}-{scale:g}-{way}-{options.seed}"
            rows = all_recorded(folder, way, model, compositions, options.seed, read, f"{name}, {way}")
            shares = [row["read"] for row in rows]
            if judge is not None:
                shares = [share(case, {*row["read"]}) for case, row in zip(cases, rows, strict=True)]
            found, interval = mean_interval(torch.tensor(shares))
            line = {"case": name, "way": str(way), "found": found, "interval": interval, "samples": options.n}
            if judge is not None:
                whole = [float(row["read"] == sorted(case.names)) for case, row in zip(cases, rows, strict=True)]
                line["exact"], line["exact_interval"] = mean_interval(torch.tensor(whole))
            print(
                json.dumps({**line, "scale": scale, "seed": options.seed, "rows_per_sample": spent(rows)}), flush=True
            )
            lines.append(f"{name}, {way}" if len(options.ways or ()) > 1 else name)
            shown += first(folder, options.n)
    write_rows(options.o, shown, columns=min(SHOWN, options.n), side=112, names=lines)


def sets(name: str, n: int, seed: int) -> list[tuple[str, ...]]:
    """n sets of concepts of a case, drawn from the seed."""
    pool = seen_pairs() if name == "negated" else list(combinations(CONCEPTS, 3 if name == "three" else 2))
    order = np.random.default_rng(seed).permutation(np.resize(np.arange(len(pool)), max(n, len(pool))))
    return [tuple(pool[int(k)]) for k in order[:n]]


def make(model: Model, name: str, names: tuple[str, ...], scale: float) -> Case:
    """The composition of a set of concepts."""
    parts = [scale * model.leaf(model.conditioner.parse(concept=concept)) for concept in names]
    if name in ("compound", "negated"):
        caption = compound_prompt(model.conditioner.template, names)  # type: ignore[attr-defined]
        whole = scale * model.leaf(model.conditioner.parse(caption))
        if name == "compound":
            return Case(names, whole & model.unconditional, 2)
        return Case(names, whole & ~parts[1], (1, 2), is_negated=True)
    if name == "weighted":
        return Case(names[:1], parts[0] & model.unconditional, (1, 2))
    if name == "uneven":
        return Case(names, (HEAVY * parts[0]) & (LIGHT * parts[1]), 2)
    return Case(names, reduce(operator.and_, parts), len(parts))


def read_by(model: Model, case: Case, image: Tensor) -> set[str]:
    """The concepts that a model reads in an image."""
    solution = infer(image, model, solver=Enumerate(draws=DRAWS, fresh_draws=1), count=case.count)
    return {model.conditioner.describe(value)["concept"] for value in solution.conditions}


def share(case: Case, read: set[str]) -> float:
    """The share of concepts that are read in an image; of a negated one, 1 or 0."""
    if case.is_negated:
        return float(case.names[0] in read and case.names[1] not in read)
    return len(read & set(case.names)) / len(case.names)


if __name__ == "__main__":
    main()
