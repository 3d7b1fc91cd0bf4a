"""Sample composed, negated and weighted prompts, and read the samples with the same model.

python benchmarks/sampling/composed_prompts.py [-n 32] [--scale 1.5] [--steps 50] [--seed 0] [-o composed.png]

two, three: any concepts, `A & B`, `A & B & C`; uneven: `1.2 A & 0.8 B`. The score is the share of prompts that are
found, with the number of prompts known. weighted: one prompt, `scale A & u`; found if A is read, with one or two
concepts. negated: the caption of a pair of the training set, with one of its concepts negated, `"A and B" & ~B`; found
if A is read and B is not, with one or two concepts. Each sample is read with 64 draws.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from energycomp import Composer, Model, infer, load
from energycomp.files import atomic_file
from energycomp.viz import grid
from energycomp_datasets.solids.solids import CONCEPTS, seen_pairs
from energycomp_solvers.enumerate import Enumerate
from energycomp_text.classifiers import compound_prompt

CASES = ("two", "three", "weighted", "uneven", "negated")
HEAVY, LIGHT = 1.2, 0.8
DRAWS = 64  # that read a sample
SHOWN = 8


@attrs.frozen(eq=False)
class Case:
    """A composition over n sets of concepts, one a sample."""

    sets: list[tuple[str, ...]]
    composition: Any
    count: int | tuple[int, int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="text", help="registered name or folder")
    parser.add_argument("-n", type=int, default=32, help="samples of each case")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--scale", type=float, default=None, help="weight of every prompt; the model's own")
    parser.add_argument("--steps", type=int, default=50, help="steps of the scheduler")
    parser.add_argument("--scheduler", default=None, help="of diffusers; the model's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", type=Path, default=None, help="a picture of the first 8 samples of each case")
    options = parser.parse_args(arguments)
    model = load(options.model)
    scale = options.scale or model.defaults.guidance_scale
    shown = []
    for name in options.cases:
        case = make(model, name, options.n, scale, options.seed)
        images = Composer(case.composition).sample(
            options.n,
            generator=torch.Generator().manual_seed(options.seed),
            num_inference_steps=options.steps,
            scheduler=options.scheduler or model.defaults.scheduler,
            output_type="pt",
        )
        found = [
            share(model, name, image, names, case.count)
            for image, names in tqdm(zip(images, case.sets, strict=True), total=options.n, desc=f"reading {name}")
        ]
        shown.append(images[:SHOWN])
        result = {"case": name, "found": round(float(np.mean(found)), 4), "samples": options.n, "scale": scale}
        drawn = {"steps": options.steps, "scheduler": options.scheduler or model.defaults.scheduler}
        print(json.dumps({**result, **drawn, "seed": options.seed}), flush=True)
    if options.o:
        with atomic_file(options.o) as temporary:
            grid(torch.cat(shown), columns=SHOWN).save(temporary, format="PNG")


def make(model: Model, name: str, n: int, scale: float, seed: int) -> Case:
    """The sets of concepts of a case, drawn from the seed, and their composition."""
    pool = seen_pairs() if name == "negated" else list(combinations(CONCEPTS, 3 if name == "three" else 2))
    rng = np.random.default_rng(seed)
    sets = [tuple(pool[int(k)]) for k in rng.permutation(np.resize(np.arange(len(pool)), max(n, len(pool))))[:n]]
    leaves = [scale * model.leaf(_prompts(model, [names[k] for names in sets])) for k in range(len(sets[0]))]
    if name == "negated":
        both = model.leaf(torch.cat([model.conditioner.parse(_caption(model, names)) for names in sets]))
        return Case(sets, (scale * both) & ~leaves[1], (1, 2))
    if name == "weighted":
        return Case([names[:1] for names in sets], leaves[0] & model.unconditional, (1, 2))
    if name == "uneven":
        return Case(sets, (HEAVY * leaves[0]) & (LIGHT * leaves[1]), 2)
    composition = leaves[0]
    for leaf in leaves[1:]:
        composition = composition & leaf
    return Case(sets, composition, len(leaves))


def share(model: Model, name: str, image: Tensor, names: Sequence[str], count: int | tuple[int, int]) -> float:
    """The share of concepts that are read in a picture; of a negated one, 1 or 0."""
    solution = infer(image, model, solver=Enumerate(draws=DRAWS, fresh_draws=1), count=count)
    read = {model.conditioner.describe(value)["concept"] for value in solution.conditions}
    if name == "negated":
        return float(names[0] in read and names[1] not in read)
    return len(read & set(names)) / len(names)


def _prompts(model: Model, names: Sequence[str]) -> Tensor:
    return torch.cat([model.conditioner.parse(concept=name) for name in names])


def _caption(model: Model, names: Sequence[str]) -> str:
    template: str = model.conditioner.template  # type: ignore[attr-defined]
    return compound_prompt(template, names)


if __name__ == "__main__":
    main()
