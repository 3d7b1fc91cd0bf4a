"""Decompose and reconstruct images: errors, and whether parts are objects (thesis Tables 4.1, 4.3).

python benchmarks/decomposition/reconstruction.py [--models decomp runs/thesis/model ...] [--data synthetic] [-n 500]
    [--seed 0] [--name reconstruction] [-o runs/benchmarks]

Table 4.3 at one budget, the models of which are trained by:

energycomp train decomp --steps 700 --precision bf16 -o runs/x0-several
energycomp train decomp --steps 700 --precision bf16 --option parts=1 --option width=80 -o runs/x0-one
energycomp train decomp --steps 700 --precision bf16 --option prediction=epsilon -o runs/eps-several

The thesis' own network and rule: energycomp train decomp --preset thesis --steps 5000
    --precision bf16 -o runs/thesis
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.measure import table, write
from benchmarks.common.options import parser
from benchmarks.common.perceptual import FrechetDistance, KernelDistance, PerceptualDistance
from benchmarks.decomposition.features import shape_features
from energycomp import load
from energycomp.decomposition import Parts, decomposer_of
from energycomp.plugins import find
from energycomp_lab.evaluation import Example, MaskIoU, MaskRecall

COMMAND = "python benchmarks/decomposition/reconstruction.py"
COLUMNS = ("model", "rule, prediction, parts", "MSE", "LPIPS", "FID", "KID", "recall", "IoU", "seconds")
CHUNK = 50  # pictures a batch


@torch.no_grad()
def row(name: str, examples: Sequence[Example], seed: int) -> list[str]:
    """A line of the table."""
    decomposer = decomposer_of(load(name))
    model, network = decomposer.model, shape_features()  # type: ignore[attr-defined]
    pictures = torch.cat([model.processor(example.image) for example in examples])
    generator = torch.Generator().manual_seed(seed)
    started = time.perf_counter()
    chunks = tqdm(pictures.split(CHUNK), desc=name, leave=False)
    parts = [decomposer.parts(decomposer.encode(chunk), generator=generator) for chunk in chunks]
    seconds = (time.perf_counter() - started) / len(pictures)
    whole = torch.cat([some.whole for some in parts])
    distance, frechet = PerceptualDistance(network), FrechetDistance(network)
    kernel = KernelDistance(network, subset_size=len(pictures) // 2)
    distance.update(whole, pictures)
    for metric in (frechet, kernel):
        metric.update(pictures, real=True)
        metric.update(whole, real=False)
    denoiser = model.denoiser
    kind = f"{denoiser.rule}, {denoiser.prediction_type}, {parts[0].images.shape[1]}"
    figures = [float((whole - pictures).square().mean()), float(distance.compute()), float(frechet.compute())]
    figures += [float(kernel.compute()[0])]
    return [_short(name), kind, *(f"{one:.4f}" for one in figures), *_found(parts, examples), f"{seconds:.2f}"]


def _found(parts: Sequence[Parts], examples: Sequence[Example]) -> list[str]:
    """Objects found and mean IoU; nothing where parts have no masks."""
    masks: list[Tensor] = [mask for some in parts if some.masks is not None for mask in some.masks]
    if not masks:
        return ["", ""]
    recall, iou = MaskRecall(), MaskIoU()
    for metric in (recall, iou):
        metric.update(masks, [example.masks for example in examples])
    return [f"{100 * float(recall.compute()):.1f} %", f"{float(iou.compute()):.2f}"]


def _short(name: str) -> str:
    return Path(name).parent.name if Path(name).name == "model" else name


def main() -> None:
    """Writes a table."""
    options = parser(
        __doc__, models=(["decomp"], "names or folders"), data=("synthetic", "of the dataset decomp"), n=500, seed=0,
        threads=1, name=("reconstruction", "of the file"), out="runs/benchmarks",
    ).parse_args()  # fmt: skip
    torch.set_num_threads(options.threads)
    examples = find("datasets", "decomp")().examples(options.data, count=options.n, seed=options.seed)
    pictures = torch.stack([torch.as_tensor(example.image) for example in examples])
    mean = float((pictures - pictures.mean(0)).square().mean())
    rows = [row(name, examples, options.seed) for name in options.models]
    note = (
        f"`{COMMAND} --models {' '.join(options.models)} --data {options.data} -n {options.n} --seed "
        f"{options.seed}`: {options.n} fresh pictures; the mean picture has the MSE {mean:.4f}. LPIPS, FID and KID "
        "have the features of the counting network in energycomp-datasets, not published ones. Masks of a mean differ "
        f"from the median of its parts. One training seed each, threads: {options.threads}."
    )
    write(options.out / options.name, table(COLUMNS, rows, note))


if __name__ == "__main__":
    main()
