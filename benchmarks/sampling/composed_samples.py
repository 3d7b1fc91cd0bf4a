"""Sample scenes with objects at K given places, and read the places back.

python benchmarks/sampling/composed_samples.py [-n 64] [--counts 3,5,8] [--steps 50] [--seed 0] [-o composed.png]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from energycomp import Composer, infer, load
from energycomp.evaluation import PerceptionRate
from energycomp.files import atomic_file
from energycomp.viz import grid
from energycomp_datasets.clevr.layout import render_arrays

HELD_OUT = 2_000_000_000  # added to the seed: places of scenes that neither training nor `energycomp evaluate` has


def main() -> None:
    """Prints one JSON line for each count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clevr", help="registered name or folder")
    parser.add_argument("-n", type=int, default=64, help="samples for each count")
    parser.add_argument("--counts", default="3,5,8", help="numbers of objects")
    parser.add_argument("--steps", type=int, default=50, help="steps of the scheduler")
    parser.add_argument("--scheduler", default="DDIMScheduler")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", type=Path, default=None, help="a picture of the first 8 samples of each count")
    options = parser.parse_args()
    model = load(options.model)
    shown = []
    for count in map(int, options.counts.split(",")):
        _, places = render_arrays(options.n, objects=(count, count), seed=HELD_OUT + options.seed)
        asked = torch.stack(places)  # (n, K, 2)
        started = time.perf_counter()
        images = Composer([model.leaf(asked[:, k]) for k in range(count)]).sample(
            options.n,
            generator=torch.Generator().manual_seed(options.seed),
            num_inference_steps=options.steps,
            scheduler=options.scheduler,
            output_type="pt",
        )
        seconds = time.perf_counter() - started
        found, right = PerceptionRate(), 0
        for image, true in tqdm(zip(images, asked, strict=True), total=options.n, desc=f"reading {count}"):
            solution = infer(image, model)
            found.update([solution.conditions], [true])
            right += solution.count == count
        shown.append(images[:8])
        result = {
            "objects": count,
            "found": round(float(found.compute()), 4),
            "count_right": round(right / options.n, 4),
            "samples": options.n,
            "steps": options.steps,
            "scheduler": options.scheduler,
            "seed": options.seed,
            "seconds_per_sample": round(seconds / options.n, 3),
        }
        print(json.dumps(result), flush=True)
    if options.o:
        with atomic_file(options.o) as temporary:
            grid(torch.cat(shown), columns=8).save(temporary, format="PNG")


if __name__ == "__main__":
    main()
