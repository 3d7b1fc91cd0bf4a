"""Network evaluations per second of `infer_many` by the number of images that are read side by side.

python benchmarks/speed/many.py [--model clevr-places] [--data synthetic:3-5] [-n 16] [--batch 1 2 4 8 16] [--seed 0]

Reads the same images one by one with `infer`, and in batches with `infer_many`. The answers are compared: the largest
difference of a number of a component, and the network evaluations of each image, which must be equal.
"""

from __future__ import annotations

import time
import warnings

import torch

from benchmarks.common.measure import table, write
from benchmarks.common.options import parser
from energycomp import infer, load
from energycomp.images import to_unit
from energycomp.inference import OutOfDistributionWarning, Solution, infer_many
from energycomp.plugins import find
from energycomp_lab.evaluation import dataset_of

COMMAND = "python benchmarks/speed/many.py"


def main() -> None:
    """Writes many.md."""
    shared = {"model": "clevr-places", "data": "synthetic:3-5", "n": 16, "seed": 0, "threads": 1, "device": "cpu"}
    batch = ([1, 2, 4, 8, 16], "images side by side")
    options = parser(__doc__, **shared, batch=batch, out="runs/benchmarks").parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", OutOfDistributionWarning)
    model = load(options.model, device=options.device)
    examples = find("datasets", dataset_of(model))().examples(options.data, count=options.n, seed=options.seed)
    images = [to_unit(torch.as_tensor(example.image)) for example in examples]
    infer(images[0], model, generator=options.seed)  # the first is slower
    started = _clock()
    alone = [infer(image, model, generator=options.seed, progress=False) for image in images]
    lines = [_line("infer", alone, alone, started)]
    for size in options.batch:
        started = _clock()
        together = list(infer_many(images, model, batch_size=size, seed=options.seed))
        lines.append(_line(f"infer_many, B = {size}", together, alone, started))
    head = ("method", "NFE per s", "NFE per CPU s", "s per image", "NFE per image", "largest difference", "same NFE")
    arguments = f"--model {options.model} --data {options.data} -n {options.n} --seed {options.seed}"
    text = table(head, lines, f"`{COMMAND} {arguments}`: {options.device}, threads: {options.threads}.")
    write(options.out / "many", text)


def _clock() -> tuple[float, float]:
    """Seconds of the clock, and of this process on a CPU, which other processes change less."""
    return time.perf_counter(), time.process_time()


def _line(name: str, found: list[Solution], alone: list[Solution], started: tuple[float, float]) -> list[str]:
    seconds, busy = (after - before for before, after in zip(started, _clock(), strict=True))
    rows = sum(solution.rows for solution in found)
    equal = sum(one.rows == other.rows for one, other in zip(found, alone, strict=True))
    differences = [_difference(one, other) for one, other in zip(found, alone, strict=True)]
    images = len(found)
    numbers = (f"{rows / seconds:,.0f}", f"{rows / busy:,.0f}", f"{seconds / images:.2f}", f"{rows / images:,.0f}")
    return [name, *numbers, f"{max(differences):.1e}", f"{equal} of {images}"]


def _difference(one: Solution, other: Solution) -> float:
    """The largest difference of two answers; infinite where their counts differ."""
    if one.count != other.count:
        return torch.inf
    return float((one.conditions - other.conditions).abs().max()) if one.count else 0.0


if __name__ == "__main__":
    main()
