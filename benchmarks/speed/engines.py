"""CPU seconds of the parts of a network, of readings and of whole processes by engine, side by side.

python benchmarks/speed/engines.py --images FOLDER [--model clevr] [--engines torch onnx openvino] [-n 3] [--turns 15]

All engines take turns, with one thread. A process is `energycomp infer` of the first image; the first process exports
the parts of the network into an empty cache.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.common.measure import table, write
from benchmarks.common.options import parser
from energycomp import Model, infer, load
from energycomp.components import Condition
from energycomp.denoisers import rows, trunk
from energycomp.images import open_image

ROWS = 64
SAMPLES = 4
TEXTS = ("large red metal cube", "small blue rubber sphere", "small cyan metal cylinder", "large green rubber cube")


def main() -> None:
    """Writes engines.md."""
    engines = (["torch", "onnx", "openvino"], "the first is the one that others are compared with")
    options = parser(
        __doc__, images=None, model="clevr", engines=engines, n=3, turns=15, seed=0, out="runs/benchmarks"
    ).parse_args()
    torch.set_num_threads(1)
    files = sorted(options.images.rglob("*.png"))[: options.n]
    images = [open_image(file) for file in files]
    models = {name: load(options.model, engine=name) for name in options.engines}

    answers: dict[str, list[Any]] = {}

    def read(model: Model) -> None:
        name = next(name for name, one in models.items() if one is model)
        solutions = [infer(image, model, generator=options.seed, progress=False) for image in images]
        answers[name] = [(one.rows, one.record()["objects"]) for one in solutions]

    run_head, run_trunk = parts(models[options.engines[0]])
    lines = [
        line(f"trunk, {SAMPLES} samples", models, run_trunk, options.turns),
        line(f"head, {ROWS} rows", models, run_head, options.turns),
        line(f"{options.n} readings", models, read, 1, warm=False),
    ]
    with TemporaryDirectory() as cache:
        for when in ("process that exports", "process"):
            spent = {name: process_seconds(options.model, files[0], name, cache) for name in models}
            lines.append([when, *cells(spent)])
    lines.append(["NFE of the readings", *(str(sum(nfe for nfe, _ in found)) for found in answers.values())])
    lines.append(["words as with the first", *(same_words(found, *answers.values()) for found in answers.values())])
    note = f"`{Path(sys.argv[0]).name} --model {options.model} -n {options.n}`: CPU s (and times as fast), one thread."
    write(options.out / "engines", table(["", *options.engines], lines, note))


def parts(model: Model) -> tuple[Callable[[Model], Any], Callable[[Model], Any]]:
    """What runs the head, and the trunk, of a model."""
    sample = torch.randn(SAMPLES, *model.denoiser.sample_shape, generator=torch.Generator().manual_seed(0))
    timestep = torch.full((SAMPLES,), 500.0)
    condition = Condition.cat([model(TEXTS[number % len(TEXTS)]).condition for number in range(ROWS)])
    owner = torch.arange(ROWS) % SAMPLES
    shared = trunk(model.denoiser, sample, timestep)
    return (
        torch.no_grad()(lambda one: rows(one.denoiser, shared, condition, owner)),
        torch.no_grad()(lambda one: trunk(one.denoiser, sample, timestep)),
    )


def line(
    name: str, models: Mapping[str, Model], run: Callable[[Model], Any], turns: int, *, warm: bool = True
) -> list[str]:
    """The median seconds of each engine, which take turns; after a first call, which may export, where `warm`."""
    for model in models.values():
        if warm:
            run(model)
    spent: dict[str, list[float]] = {engine: [] for engine in models}
    for _ in range(turns):
        for engine, model in models.items():
            started = time.process_time()
            run(model)
            spent[engine].append(time.process_time() - started)
    found = [name, *cells({engine: statistics.median(seconds) for engine, seconds in spent.items()})]
    print(*found, sep="  ", file=sys.stderr, flush=True)
    return found


def cells(spent: Mapping[str, float]) -> list[str]:
    """Seconds, and how many times as fast as the first."""
    first = next(iter(spent.values()))
    return [f"{seconds:.3g} ({first / seconds:.2f})" for seconds in spent.values()]


def process_seconds(model: str, image: Path, engine: str, cache: str) -> float:
    """CPU seconds of `energycomp infer`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "energycomp", "infer", model, str(image), "--option", f"engine={engine}"]
    environment = {**os.environ, "ENERGYCOMP_CACHE": cache, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def same_words(found: list[Any], first: list[Any], *_: Any) -> str:
    """In how many images the words of all objects are those of the first engine."""

    def words(answer: Any) -> list[Any]:
        return sorted(tuple(value for value in one.values() if isinstance(value, str)) for one in answer[1])

    return f"{sum(words(one) == words(other) for one, other in zip(found, first, strict=True))} of {len(found)}"


if __name__ == "__main__":
    main()
