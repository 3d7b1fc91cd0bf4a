"""Three ways to sample scenes of three objects without a fourth, `a & b & c & ~d`, and read the places back.

python benchmarks/sampling/negated_objects.py [-n 24] [--steps 50] [--seed 0] [--near 0.1] [-o FOLDER]

free: d is a place of a rendered scene of four objects; near: d is at a distance of `near` from a. Each sample is read
with the four places as candidates, on 16 draws. `absent` is the share of samples in which d is not read, `found` the
share of a, b and c that is; `change` the mean absolute difference to the sample of a & b & c from the same noise, in
[0, 255]. Continues an interrupted run in the folder.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energycomp import Composer, Model, infer, load
from energycomp.cli import append_line, read_lines
from energycomp.files import atomic_file
from energycomp.images import to_unit
from energycomp.sampling import SamplingReport
from energycomp.viz import grid
from energycomp_datasets.clevr.layout import render_arrays
from energycomp_samplers.perpendicular import Perpendicular
from energycomp_samplers.rejection import Rejection
from energycomp_solvers.pursuit import Pursuit

HELD_OUT = 2_200_000_000  # added to the seed: places of scenes that neither training nor another benchmark has
SAMPLERS: dict[str, Any] = {"negative weight": None, "perpendicular": Perpendicular(), "rejection": Rejection()}
POSITIVE = "without d"
DRAWS = 16  # that decide which of four places are shown


def place_beside(place: Tensor, distance: float, generator: torch.Generator) -> Tensor:
    """A place (2,) at a distance of another one, towards the middle of the image, up to 45 degrees aside."""
    towards = torch.atan2(*(0.5 - place).flip(0)) + (torch.rand((), generator=generator) - 0.5) * torch.pi / 2
    return place + distance * torch.stack([towards.cos(), towards.sin()])


def cases(n: int, near: float, seed: int) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """For each scene the places (3, 2) of a, b and c, and that of d (2,) by the name of the case."""
    _, places = render_arrays(n, objects=(4, 4), seed=HELD_OUT + seed)
    generator = torch.Generator().manual_seed(seed)
    return [(one[:3], {"free": one[3], "near": place_beside(one[0], near, generator)}) for one in places]


def judged(image: Tensor, model: Model, asked: Tensor, other: Tensor) -> dict[str, float]:
    """Whether the other place is not read, and the share of the asked places that is."""
    places = torch.cat([asked, other[None]])
    read = infer(to_unit(image), model, candidates=places, solver=Pursuit(fresh_draws=DRAWS)).conditions
    shown = (read[None] == places[:, None]).all(2).any(1)
    return {"absent": float(not shown[3]), "found": float(shown[:3].float().mean())}


def run(model: Model, asked: Tensor, others: dict[str, Tensor], seed: int, steps: int) -> tuple[Any, Tensor]:
    """For each case the row of each way, and all samples; all are drawn from the same noise."""
    positive = model(*asked[0].tolist()) & model(*asked[1].tolist()) & model(*asked[2].tolist())
    samples: list[Tensor] = []

    def row(composition: Any, sampler: Any, other: Tensor) -> dict[str, float]:
        reports: list[SamplingReport] = []
        (image,) = Composer(composition).sample(
            sampler=sampler,
            num_inference_steps=steps,
            generator=seed,
            report=reports.append,
            output_type="latent",
            progress=False,
        )
        image = image.clamp(-1, 1)
        samples.append(image)
        change = float((image - samples[0]).abs().mean()) * 127.5
        spent = {"change": change, "evaluations": reports[0].evaluations, "drawn": reports[0].drawn or 1}
        return judged(image, model, asked, other) | spent

    rows: dict[str, dict[str, Any]] = {}
    for name, other in others.items():
        rows[name] = {POSITIVE: row(positive, None, other)}
        for way, sampler in SAMPLERS.items():
            rows[name][way] = row(positive & ~model(*other.tolist()), sampler, other)
    return rows, torch.stack(samples)


def summary(scenes: list[Any]) -> str:
    """A Markdown table with a row for each case and way."""
    lines = ["| case | way | absent | found | change | NFE per sample |", "| --- | --- | --- | --- | --- | --- |"]
    for name in scenes[0]:
        for way in (POSITIVE, *SAMPLERS):
            absent, found, change, spent = (
                statistics.fmean(scene[name][way][key] for scene in scenes)
                for key in ("absent", "found", "change", "evaluations")
            )
            lines.append(f"| {name} | {way} | {absent:.3f} | {found:.3f} | {change:.2f} | {spent:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clevr-places", help="registered name or folder")
    parser.add_argument("-n", type=int, default=24, help="scenes of each case")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--near", type=float, default=0.1, help="distance of d and a in the case near")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/negated-objects"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model, file = load(options.model), options.out / "scenes.jsonl"
    settings = [options.model, options.steps, options.seed, options.near]
    known = {line["scene"]: line["rows"] for line in read_lines(file) if line["settings"] == settings}
    for scene, (asked, others) in enumerate(cases(options.n, options.near, options.seed)):
        if scene not in known:
            known[scene], samples = run(model, asked, others, options.seed + scene, options.steps)
            append_line(file, {"settings": settings, "scene": scene, "rows": known[scene]})
            with atomic_file(options.out / f"{scene:02}.png") as temporary:
                grid(samples, columns=len(samples)).save(temporary, format="PNG")
    print(summary([known[scene] for scene in range(options.n)]))


if __name__ == "__main__":
    main()
