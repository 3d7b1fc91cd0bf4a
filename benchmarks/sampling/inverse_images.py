"""Inverse problems on images: `observe` beside DPS and DiffPIR of deepinv, same network, prior, steps and operators.

python benchmarks/sampling/inverse_images.py [--images 0 1 2 3] [-n 19] [--steps 50] [--seed 0] [-o runs/inverse_images]

Needs deepinv, which is no dependency of this project: pip install deepinv.

The truths are held-out renders of 1 to 5 objects, 64 x 64 pixels in [0, 1]. The prior of all methods is the scene that
`clevr-places` composes of the places of these objects, whose colours, shapes and sizes it is not told. What is observed
has noise of deviation 0.05: half of the pixels, averages of 4 x 4 pixels, a Gaussian blur of deviation 1.5. Prints for
each operator, as means over images:

    PSNR        of the mean of the samples, and of a sample, for a peak of 1
    coverage    the share of numbers whose truth is in the interval of 90 % of the samples; in brackets what is right,
                which is less for fewer than 19 samples
    passes      of the trunk of the network for each sample; DPS differentiates each
    CPU s       for all samples of an image, on one thread

with half a 95 % interval over images. The norm as guidance of DPS, its default, leaves the range of images here from
a weight of 10 on; so DPS has its other guidance, with the weight that deepinv names for it, 1 (`benchmarks/NOTES.md`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import energycomp
from benchmarks.baselines.restoration import DPS, DiffPIR, Problem, check_installed, interval, right
from benchmarks.common.measure import now
from benchmarks.common.options import parser
from energycomp import Composer, Model
from energycomp.components import Composition
from energycomp.denoisers import count_rows
from energycomp.plugins import find
from energycomp.sampling import Target
from energycomp_cli import append_line, read_lines
from energycomp_samplers import blur, observe, pool
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.smc import SMC

STD = 0.05
SHAPE = (3, 64, 64)
WIDTH = 1.5  # of the blur, in pixels
METHODS: dict[str, Any] = {
    "DPS": DPS(guidance="annealed"),
    "DiffPIR": DiffPIR(),
    "DiffPIR, zeta 1": DiffPIR(zeta=1.0),
    "default": None,
    'Gauss(last="draw")': Gauss(last="draw"),
    "gauss": Gauss(),
    "SMC": SMC(),
}
SHOWN = ("psnr", "of_one", "coverage", "passes", "seconds")


def operators(random: torch.Generator) -> dict[str, Any]:
    """What `observe` takes, by name."""
    line = torch.exp(-(torch.arange(-4.0, 5.0) ** 2) / (2.0 * WIDTH**2))
    kernel = torch.outer(line, line) / line.sum() ** 2
    seen = (torch.rand(1, *SHAPE[1:], generator=random) < 0.5).float()
    return {"inpainting": seen.expand(SHAPE), "x4": pool(4), "blur": blur(kernel)}


def measured(model: Model, example: Any, operator: Any, method: Any, options: Any, seed: int) -> dict[str, float]:
    """What a method makes of one observed image."""
    truth = example.image / 2.0 + 0.5
    scene = Composition.of(Composer([model(one["x"], one["y"]) for one in example.conditions]).composition)
    # Observe
    clean = truth * operator if isinstance(operator, Tensor) else operator.forward(truth[None])[0]
    seen = observe(operator, clean + STD * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)), STD)
    # Draw
    started = now()
    with count_rows() as spent:
        if callable(method):
            x = method(Problem(Target(scene), seen), options.n, options.steps, seed + 1)
        else:
            x = Composer(scene & seen).sample(
                options.n, sampler=method, num_inference_steps=options.steps, output_type="pt", generator=seed,
                progress=False, report=lambda _: None,
            )  # fmt: skip
    seconds = now() - started
    # Compare with the truth
    low, high = interval(x)
    inside = float(((truth >= low) & (truth <= high)).double().mean())
    psnr, of_one = (-10.0 * float((one - truth).square().mean().log10()) for one in (x.mean(0), x))
    return {
        "psnr": psnr, "of_one": of_one, "coverage": inside, "passes": spent.trunks / options.n, "seconds": seconds
    }  # fmt: skip


def table(records: Sequence[Mapping[str, Any]], n: int) -> str:
    """A table in markdown."""
    lines = [
        f"| operator | method | images | PSNR of the mean | of a sample | coverage ({right(n):.1f}) | passes | CPU s |"
    ]
    lines.append("| --- " * 8 + "|")
    for operator, method in dict.fromkeys((one["operator"], one["method"]) for one in records):
        found = [one for one in records if (one["operator"], one["method"]) == (operator, method)]
        columns = torch.tensor([[one[name] for name in SHOWN] for one in found]).double()
        half = 1.96 * columns.std(0, correction=min(len(found) - 1, 1)) / len(found) ** 0.5
        mean = columns.mean(0).tolist()
        cells = [f"{mean[k]:.{digits}f} ± {half[k]:.{digits}f}" for k, digits in enumerate((1, 1, 3))]
        row = [operator, method, str(len(found)), *cells, f"{mean[3]:.0f}", f"{mean[4]:.0f}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws what is missing, and prints the table."""
    options = parser(
        __doc__, images=([*range(8)], "which renders, from 0"), n=(19, "samples of each"), steps=50, seed=0,
        methods=([*METHODS][:5], "which", [*METHODS]), out=Path("runs/inverse_images"),
    ).parse_args(arguments)  # fmt: skip
    check_installed()
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "records.jsonl"
    settings = {"steps": options.steps, "n": options.n, "seed": options.seed}
    model = energycomp.load("clevr-places")
    count = max(options.images) + 1
    examples = [*find("datasets", "clevr")().examples("synthetic:1-5", count=count, seed=options.seed)]
    for image in options.images:
        for name, operator in operators(torch.Generator().manual_seed(options.seed)).items():
            for method in options.methods:
                case = {**settings, "image": image, "operator": name, "method": method}
                if any(case.items() <= one.items() for one in read_lines(path)):
                    continue
                found = measured(model, examples[image], operator, METHODS[method], options, options.seed + image)
                append_line(path, case | found)
    print(table([one for one in read_lines(path) if settings.items() <= one.items()], options.n))


if __name__ == "__main__":
    main()
