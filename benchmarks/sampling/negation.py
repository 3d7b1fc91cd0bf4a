"""Ways to sample `a & ~b` in two dimensions, with exact densities: a negative weight, and two that replace it.

python benchmarks/sampling/negation.py [-n 1000] [--steps 100] [--seeds 3] [--weights 0.25 1] [--draws 32] [-o PNG]

a and b are uniform in boxes, u is N(0, I). Samples should be uniform in a without b. Prints, for each layout of the
boxes, the share of the samples left inside b, the share outside a, and the sliced 2-Wasserstein distance to exact
samples of a without b, beside that between two exact samples (floor), as means over seeds; and the component
evaluations per sample.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import attrs
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from products import sliced_w2
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composable, Composition, NoisedSpace, cosine_schedule, signal_noise
from energycomp.sampling import SamplingReport
from energycomp.testing import Gaussian
from energycomp_samplers.perpendicular import Perpendicular
from energycomp_samplers.rejection import Rejection

SHAPE = (2, 1, 1)
EDGE = 0.05  # samples nearer to an edge than this are on its right side, because the last step ends with some noise
WEIGHTED: dict[str, Any] = {"negative weight": None, "perpendicular": Perpendicular()}
SHOWN = ("negative weight 0.25", "negative weight 1", "perpendicular 1", "rejection")
INK, ACCENT, FAINT = "#1a1a1a", "#d1495b", "#6b6b6b"


@attrs.frozen(eq=False, repr=False)
class Box(Composable):
    """Data that are uniform in a box: x_t is the sum of a uniform and of a normal variable in each axis.

    With the edges l and h, times sqrt(alpha_bar), the density of x_t is (Phi((h - x) / sigma) - Phi((l - x) / sigma)) /
    (h - l) in each axis.
    """

    centre: tuple[float, float]
    half: tuple[float, float]
    unconditional: Any = None
    name: str = "box"
    alphas_cumprod: Tensor = attrs.field(factory=cosine_schedule)

    def __repr__(self) -> str:
        return self.name

    @property
    def noised_space(self) -> NoisedSpace:
        """As that of a Gaussian."""
        return NoisedSpace(self.alphas_cumprod, SHAPE, "gaussian", None)

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-sigma times the score."""
        near, far, log_mass, side, _ = self._edges(sample, timestep)
        slopes = [torch.exp(-z.square() / 2 - 0.5 * math.log(2 * math.pi) - log_mass) for z in (near, far)]
        return (side * (slopes[0] - slopes[1])).to(sample.dtype)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log density (B,), normalised."""
        *_, log_mass, _, width = self._edges(sample, timestep)
        return (width.log() - log_mass).flatten(1).sum(1).to(sample.dtype)

    def contains(self, x: Tensor, margin: float = 0.0) -> Tensor:
        """Whether points (n, 2) lie in the box, each edge moved out by the margin, (n,)."""
        return ((x - torch.tensor(self.centre)).abs() <= torch.tensor(self.half) + margin).all(1)

    def draw(self, axes: Any, **style: Any) -> None:
        """The edges as a rectangle."""
        corner = [c - h for c, h in zip(self.centre, self.half, strict=True)]
        axes.add_patch(Rectangle(corner, 2 * self.half[0], 2 * self.half[1], fill=False, **style))

    def _edges(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Distances to the edges in units of sigma (near > far), the log of the mass between, the side, the width."""
        signal, sigma = signal_noise(self.alphas_cumprod, timestep, torch.float64)
        centre, half = (
            signal * torch.tensor(value, dtype=torch.float64).view(SHAPE) for value in (self.centre, self.half)
        )
        away = sample.double() - centre
        near, far = (half - away.abs()) / sigma, (-half - away.abs()) / sigma
        log_mass = torch.special.log_ndtr(near)
        log_mass = log_mass + torch.log1p(-torch.exp(torch.special.log_ndtr(far) - log_mass))
        return near, far, log_mass, away.sign(), 2 * half


def layouts() -> dict[str, tuple[Box, Box]]:
    """a and b, by the name of the layout."""
    u = Gaussian(0.0, 1.0, name="u", sample_shape=SHAPE, unconditional="self")
    a = Box((0.0, 0.0), (1.0, 1.0), u, "a")
    return {
        "inside": (a, Box((0.0, 0.0), (0.5, 0.5), u, "b")),
        "corner": (a, Box((0.5, 0.5), (0.5, 0.5), u, "b")),
        "band": (a, Box((0.0, 0.0), (0.5, 2.0), u, "b")),
    }


def exact(a: Box, b: Box, n: int, generator: torch.Generator) -> Tensor:
    """n samples (n, 2), uniform in a without b."""
    parts, found = [torch.empty(0, 2)], 0
    while found < n:
        x = torch.tensor(a.centre) + torch.tensor(a.half) * (2 * torch.rand(4 * n, 2, generator=generator) - 1)
        parts.append(x[~b.contains(x)])
        found += len(parts[-1])
    return torch.cat(parts)[:n]


def ways(a: Box, b: Box, weights: Sequence[float], draws: int) -> dict[str, tuple[Composition, Any]]:
    """A composition and a sampler, by the name of the row."""
    rejected = {
        "rejection": Rejection(draws=draws),
        'rejection, over="unconditional"': Rejection(draws=draws, over="unconditional"),
    }
    found = {f"{name} {w:g}": (a & ~(w * b), sampler) for name, sampler in WEIGHTED.items() for w in weights}
    return found | {name: (a & ~b, sampler) for name, sampler in rejected.items()}


def drawn(composition: Composition, sampler: Any, n: int, steps: int, seed: int) -> tuple[Tensor, SamplingReport]:
    """n samples (n, 2) and the report."""
    reports: list[SamplingReport] = []
    x = Composer(composition).sample(
        n,
        sampler=sampler,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        report=reports.append,
        output_type="latent",
        progress=False,
    )
    return x.flatten(1), reports[0]


def table(weights: Sequence[float], draws: int, n: int, steps: int, seeds: int) -> str:
    """A Markdown table with a row for each way."""
    head, rows = [], dict[str, list[str]]()
    for layout, (a, b) in layouts().items():
        generators = [torch.Generator().manual_seed(seed) for seed in range(seeds)]
        truths = [exact(a, b, n, generator) for generator in generators]
        floors = [sliced_w2(x, exact(a, b, n, one)) for x, one in zip(truths, generators, strict=True)]
        head.append(f"{layout} (floor {fmean(floors):.3f})")
        for name, (composition, sampler) in ways(a, b, weights, draws).items():
            left, lost, distance, spent = [], [], [], []
            for seed, truth in enumerate(truths):
                x, report = drawn(composition, sampler, n, steps, seed)
                left.append(float(b.contains(x, -EDGE).float().mean()))
                lost.append(float((~a.contains(x, EDGE)).float().mean()))
                distance.append(sliced_w2(x, truth))
                spent.append(report.evaluations / n)
            rows.setdefault(name, [f"{fmean(spent):.0f}"])
            rows[name].append(f"{fmean(left):.3f}, {fmean(lost):.3f}, {fmean(distance):.3f}")
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join([f"| way | NFE per sample | {' | '.join(head)} |", "| --- " * (len(head) + 2) + "|", *lines])


def picture(path: Path, n: int, steps: int) -> None:
    """Exact samples and those of some ways, a row for each layout; a and b are drawn as boxes."""
    found = layouts()
    figure = Figure(figsize=(2.2 * (len(SHOWN) + 1), 2.3 * len(found)), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    for row, (layout, (a, b)) in zip(figure.subplots(len(found), len(SHOWN) + 1), found.items(), strict=True):
        all_ways = ways(a, b, (0.25, 1.0), draws=32)
        for axes, name in zip(row, ("exact", *SHOWN), strict=True):
            if name == "exact":
                x = exact(a, b, n, torch.Generator().manual_seed(0))
            else:
                x, _ = drawn(*all_ways[name], n, steps, 0)
            axes.scatter(*x.T.numpy(), s=2, color=ACCENT if "negative" in name else INK, linewidths=0)
            a.draw(axes, edgecolor=FAINT, linewidth=0.8)
            b.draw(axes, edgecolor=ACCENT, linewidth=0.8, linestyle="--")
            axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal")
            axes.set_title(f"{layout}: {name}", fontsize=8)
            axes.tick_params(labelsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Prints the table, and draws the samples if a file is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=1000, help="number of samples")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", nargs="+", type=float, default=[0.25, 0.5, 1.0, 2.0], help="of `~b`")
    parser.add_argument("--draws", type=int, default=32, help="of noise, for the lifts of rejection")
    parser.add_argument("-o", "--out", type=Path, help="PNG file for a picture of the samples")
    options = parser.parse_args()
    print(table(options.weights, options.draws, options.n, options.steps, options.seeds))
    if options.out is not None:
        picture(options.out, options.n, options.steps)


if __name__ == "__main__":
    main()
