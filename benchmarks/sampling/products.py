"""Samplers on products a & b = a b / u in two dimensions, with exact scores and exact samples to compare with.

python benchmarks/sampling/products.py [--seeds 3] [-n 1000] [--steps 50] [--json] [-o PNG]

Prints the sliced 2-Wasserstein distance to exact samples, the distance between two exact samples (floor), and the
component evaluations per sample.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import attrs
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composition, Mixture
from energycomp.sampling import SamplingReport
from energycomp.testing import Gaussian
from energycomp_samplers.hmc import HMC, annealed_hmc
from energycomp_samplers.langevin import annealed_langevin
from energycomp_samplers.mala import MALA, annealed_mala
from energycomp_samplers.smc import SMC

SHAPE = (2, 1, 1)
SIDE, CELLS = 14.0, 1400  # of the square on which exact samples are drawn, from its centre, and cells along a side
DIRECTIONS = 180
PAIRS = 20  # of exact samples, over which the floor is averaged
SAMPLERS: dict[str, Any] = {
    "naive": None,
    "fkc": SMC(weights="fkc"),
    "rne": SMC(weights="rne"),
    "energy": SMC(weights="energy"),
    "langevin": annealed_langevin(),
    "mala": annealed_mala(),
    "hmc": annealed_hmc(),
    "rne + mala": SMC(moves=MALA(moves=2)),
    "rne + mala, 2 nodes": SMC(moves=MALA(moves=2, nodes=2)),
    "rne + mala, energy test": SMC(moves=MALA(moves=2, test="energy")),
    "rne + hmc": SMC(moves=HMC()),
    "rne + hmc, energy test": SMC(moves=HMC(test="energy")),
}
INK, ACCENT = "#1a1a1a", "#d1495b"


def modes(centres: Sequence[tuple[float, float]], sd: float) -> list[Gaussian]:
    """Gaussians of one width in the plane."""
    return [Gaussian(torch.tensor(centre).view(SHAPE), sd**2, sample_shape=SHAPE) for centre in centres]


def diagonal(x: float, y: float) -> Gaussian:
    """A Gaussian around the origin with a variance for each axis."""
    return Gaussian(0.0, torch.tensor([x, y]).view(SHAPE), sample_shape=SHAPE)


def targets() -> dict[str, Composition]:
    """a + b - u, by the name of the target: 1 of these products has modes that only the wrong samples leave out."""
    inside = modes([(x, y) for y in (-2.5, 2.5) for x in (-3.0, 0.0, 3.0)], 0.6)
    outside = modes([(-6.0, 1.5), (9.0, 0.0), (0.0, -9.0), (-1.5, 6.0)], 1.0)
    return {
        "gmm_ID": Mixture(inside[:4]) + Mixture([inside[i] for i in (1, 2, 4, 5)]) - Mixture(inside),
        "gmm_OOD": Mixture(outside[:2]) + Mixture(outside[2:]) - Mixture(outside),
        "gaussians": diagonal(10.0, 1.0) + diagonal(1.0, 10.0) - diagonal(1.1, 1.1),
    }


@attrs.frozen(eq=False)
class Exact:
    """The density exp(-E) at timestep 0 in the cells of a grid: samples of a cell are uniform in it."""

    density: Tensor  # (CELLS^2,)

    @classmethod
    def of(cls, target: Composition) -> Exact:
        """The product of the densities of the leaves."""
        axis = (torch.arange(CELLS) + 0.5) / CELLS * 2 * SIDE - SIDE
        points = torch.cartesian_prod(axis, axis).view(-1, *SHAPE)
        energy = torch.cat([target.energy(part, torch.zeros(len(part))) for part in points.split(100_000)]).double()
        return cls((energy.min() - energy).exp())

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n samples (n, 2)."""
        edges = self.density.cumsum(0)
        cells = torch.searchsorted(edges, torch.rand(n, generator=generator, dtype=torch.float64) * edges[-1])
        corner = torch.stack([cells // CELLS, cells % CELLS], dim=1)
        return (corner + torch.rand(n, 2, generator=generator)) / CELLS * 2 * SIDE - SIDE


def sliced_w2(a: Tensor, b: Tensor) -> float:
    """The sliced 2-Wasserstein distance of two samples (n, 2) of one size, over evenly spaced directions.

    >>> x = torch.randn(100, 2)
    >>> round(sliced_w2(x, x + torch.tensor([1.0, 0.0])), 3)  # the root mean square of the shift along a direction
    0.707
    """
    angles = torch.arange(DIRECTIONS) * (torch.pi / DIRECTIONS)
    directions = torch.stack([angles.cos(), angles.sin()])
    return float(((a @ directions).sort(0).values - (b @ directions).sort(0).values).square().mean().sqrt())


def drawn(target: Composition, sampler: Any, n: int, steps: int, seed: int) -> tuple[Tensor, SamplingReport]:
    """n samples (n, 2) and the report."""
    reports: list[SamplingReport] = []
    x = Composer(target).sample(
        n,
        sampler=sampler,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        report=reports.append,
        output_type="latent",
        progress=False,
    )
    return x.flatten(1), reports[0]


def compare(
    target: Composition, samplers: Mapping[str, Any], *, n: int, steps: int, seeds: int
) -> dict[str, dict[str, float]]:
    """The row of each sampler: mean and standard deviation over seeds."""
    exact = Exact.of(target)
    generator = torch.Generator().manual_seed(0)
    truths = [exact.sample(n, generator) for _ in range(max(seeds, PAIRS))]
    floors = [sliced_w2(truth, exact.sample(n, generator)) for truth in truths]
    floor = sum(floors) / len(floors)
    rows = {}
    for name, sampler in samplers.items():
        runs = [drawn(target, sampler, n, steps, seed) for seed in range(seeds)]
        distances = [sliced_w2(x, truth) for (x, _), truth in zip(runs, truths, strict=False)]
        rows[name] = {
            "sliced_w2": round(mean(distances), 3),
            "sd": round(stdev(distances), 3) if seeds > 1 else 0.0,
            "floor": round(floor, 3),
            "evaluations": runs[0][1].evaluations / n,
            "least_ess": round(min(min(report.ess, default=1.0) for _, report in runs), 2),
            "resampled": max(len(report.resampled) for _, report in runs),
        }
    return rows


def table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A Markdown table, a row for each sampler."""
    floors = {name: next(iter(rows.values()))["floor"] for name, rows in found.items()}
    head = [f"{name} (floor {floors[name]:.3f})" for name in found]
    lines = [f"| sampler | NFE per sample | {' | '.join(head)} |", "| --- | ---" + " | ---" * len(head) + " |"]
    for sampler, row in next(iter(found.values())).items():
        cells = [f"{rows[sampler]['sliced_w2']:.3f}" for rows in found.values()]
        lines.append(f"| {sampler} | {row['evaluations']:.0f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(path: Path, names: Sequence[str], *, n: int, steps: int) -> None:
    """Exact samples and those of some samplers, a row for each target."""
    shown = ["exact", *names]
    figure = Figure(figsize=(2.2 * len(shown), 6.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(3, len(shown), sharex="row", sharey="row")
    for row, (title, target) in zip(grid, targets().items(), strict=True):
        for axes, name in zip(row, shown, strict=True):
            if name == "exact":
                x = Exact.of(target).sample(n, torch.Generator().manual_seed(0))
            else:
                x, _ = drawn(target, SAMPLERS[name], n, steps, 0)
            axes.scatter(*x.T.numpy(), s=2, color=ACCENT if name == "naive" else INK, linewidths=0)
            axes.set_aspect("equal")
            axes.set_title(f"{title}: {name}", fontsize=9)
            axes.tick_params(labelsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Prints the table, or JSON, and draws the samples if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-n", type=int, default=1000, help="number of samples")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--samplers", nargs="+", choices=list(SAMPLERS), default=list(SAMPLERS))
    parser.add_argument("--json", action="store_true", help="print {target: {sampler: {sliced_w2, sd, ...}}}")
    parser.add_argument("-o", "--out", type=Path, help="PNG file for a picture of the samples")
    options = parser.parse_args()
    chosen = {name: SAMPLERS[name] for name in options.samplers}
    found = {
        name: compare(target, chosen, n=options.n, steps=options.steps, seeds=options.seeds)
        for name, target in targets().items()
    }
    print(json.dumps(found, indent=2) if options.json else table(found))
    if options.out is not None:
        picture(options.out, ["naive", "fkc", "rne"], n=options.n, steps=options.steps)


if __name__ == "__main__":
    main()
