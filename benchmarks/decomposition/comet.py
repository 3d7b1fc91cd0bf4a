"""Compare COMET with Decomp Diffusion: quality of decomposition and reconstruction, and their cost.

python benchmarks/decomposition/comet.py runs/comet/model decomp [-n 200] [--seed 0] [--threads 1] [-o runs/benchmarks]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torchmetrics import MetricCollection

from benchmarks.common import measure
from energycomp import Model, decompose, load
from energycomp.decomposition import decomposer_of
from energycomp.evaluation import Example, MaskIoU, MaskRecall
from energycomp.files import atomic_file
from energycomp.images import to_unit
from energycomp.plugins import find
from energycomp.seeds import derived_seed
from energycomp_decomp.comet import untrained
from energycomp_decomp.comet.energy import STEPS, comet_loss

BATCH, REPEATS = 32, 9


def scores(model: Model, examples: Sequence[Example], seed: int) -> list[str]:
    """Objects found, mean IoU, mean squared errors of the whole and of the mean picture, rows and seconds a picture."""
    decomposer, metrics = decomposer_of(model), MetricCollection({"recall": MaskRecall(), "iou": MaskIoU()})
    pictures = torch.cat([model.processor(example.image) for example in examples])
    error, rows, seconds = 0.0, 0, 0.0
    for index, example in enumerate(examples):
        generator = torch.Generator().manual_seed(derived_seed(seed, "example", index))
        started = time.perf_counter()
        found = decompose(to_unit(pictures[index : index + 1]), decomposer, generator=generator)
        seconds += time.perf_counter() - started
        rows += found.spent.rows
        error += float((found.parts.whole[0] - pictures[index]).square().mean())
        masks: Any = found.parts.masks
        metrics.update([masks[0]], [example.masks])
    n, values = len(examples), metrics.compute()
    mean = float((pictures - pictures.mean(0)).square().mean())
    found_objects, iou = f"{100 * float(values['recall']):.1f} %", f"{float(values['iou']):.2f}"
    return [found_objects, iou, f"{error / n:.4f}", f"{mean:.3f}", f"{rows / n:.0f}", f"{seconds / n:.3f}"]


def training_step() -> float:
    """Seconds of the loss and its gradient, the median, on noise: what is shown does not change the time."""
    model, spent = untrained(), []
    encoder: Any = model.encoder
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(BATCH, *model.denoiser.sample_shape, generator=generator)
    for _ in range(REPEATS):
        started = time.perf_counter()
        comet_loss(model.denoiser, encoder(samples), samples, generator=generator).backward()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def main() -> None:
    """Writes comet.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="registered names or folders")
    parser.add_argument("-n", "--number", type=int, default=200)
    parser.add_argument("--data", default="synthetic", help="of the dataset decomp")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    examples = find("datasets", "decomp")().examples(options.data, count=options.number, seed=options.seed)
    rows = [[name, *scores(load(name), examples, options.seed)] for name in options.models]
    head = ("model", "objects found", "mean IoU", "squared error", "of the mean picture", "rows", "seconds")
    note = (
        f"`python benchmarks/decomposition/comet.py {' '.join(options.models)} --data {options.data} "
        f"-n {options.number} --seed {options.seed}`, threads: {options.threads}; network evaluations and "
        f"seconds per image, parts and the whole. A step of training COMET at batch {BATCH}, 4 latents and {STEPS} "
        f"steps of descent: {training_step():.2f} s, the median of {REPEATS}."
    )
    text = measure.table(head, rows, note)
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_file(options.out / "comet.md") as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
