"""Draw samples of compositions in closed form: densities on a line, products and negations in the plane.

python docs/scripts/plane_pictures.py [-o docs/images] [--only product-density negation samplers-products]

All densities and their exact samples are known, so that the figures show what each sampler leaves out.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from benchmarks.sampling.peers import Exact, drawn, targets
from energycomp import Composer
from energycomp.components import Composable, NoisedSpace, cosine_schedule, signal_noise
from energycomp.testing import Gaussian
from energycomp_samplers.perpendicular import Perpendicular
from energycomp_samplers.rejection import Rejection
from energycomp_samplers.smc import SMC

SHAPE = (2, 1, 1)
LINE = torch.linspace(-3, 3, 6001)
INK, ACCENT, FAINT = "#1a1a1a", "#d1495b", "#6b6b6b"
POINTS = 1000  # samples of a panel in the plane


def main() -> None:
    """Draws all of them, in about a minute on two cores."""
    drawings: dict[str, Callable[[], Figure]] = {
        "product-density": on_a_line, "negation": negations, "samplers-products": products,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="+", choices=list(drawings), default=list(drawings))
    options = parser.parse_args()
    for name in options.only:
        drawings[name]().savefig(options.out / f"{name}.png", dpi=110)


def on_a_line() -> Figure:
    """Four products of densities, beside histograms of their samples."""
    wide = Gaussian(0.0, 1.0, name="u", unconditional="self")
    same = Gaussian(0.0, 0.25, name="u", unconditional="self")

    def gaussian(mean: float, variance: float, u: Gaussian = wide) -> Gaussian:
        return Gaussian(mean, variance, unconditional=u)

    two = gaussian(-1.0, 0.09) | gaussian(1.0, 0.09)
    composers = {
        "a & b, as wide as u": Composer(gaussian(0.5, 0.25, same) & gaussian(0.2, 0.25, same)),
        "a & b, narrower than u": Composer(gaussian(1.0, 0.25) & gaussian(-0.2, 0.25)),
        "two modes & one": Composer(two & gaussian(0.5, 0.25)),
        'rule="sum"': Composer([gaussian(0.7, 0.25), gaussian(-0.5, 0.25)], rule="sum"),
    }
    figure = new_figure(8.0, 4.4)
    for axes, (title, composer) in zip(figure.subplots(2, 2).flat, composers.items(), strict=True):
        # The exact product: exp(-E) at timestep 0, normalised.
        x = LINE[:, None, None, None]
        energy = composer.energy(x, torch.zeros(len(x))).double()
        density = (energy.min() - energy).exp()
        density = density / torch.trapezoid(density, LINE.double())
        generator = torch.Generator().manual_seed(0)
        options = {"num_inference_steps": 250, "output_type": "latent", "progress": False}
        samples = composer.sample(20_000, generator=generator, **options).flatten()
        axes.hist(samples.numpy(), bins=120, range=(-2, 2.5), density=True, color=ACCENT, alpha=0.5, label="samples")
        axes.plot(LINE, density, color=INK, linewidth=1.4, label="product")
        axes.set_title(title, fontsize=11, color=INK)
        axes.set(xlim=(-2, 2.5), ylim=(0, 1.9 * float(density.max())), yticks=[])
        axes.tick_params(labelsize=9, colors=FAINT)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.axes[0].legend(fontsize=10, frameon=False, loc="upper left")
    return figure


@attrs.frozen(eq=False, repr=False)
class Box(Composable):
    """Data that are uniform in a box: x_t is the sum of a uniform and of a normal variable in each axis.

    With the edges l and h, times sqrt(alpha_bar), the density of x_t is (Phi((h - x) / sigma) - Phi((l - x) / sigma)) /
    (h - l) in each axis.
    """

    centre: tuple[float, float]
    half: tuple[float, float]
    unconditional: Any = None
    alphas_cumprod: Tensor = attrs.field(factory=cosine_schedule)

    def __repr__(self) -> str:
        return "box"

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

    def contains(self, x: Tensor) -> Tensor:
        """Whether points (n, 2) lie in the box, (n,)."""
        return ((x - torch.tensor(self.centre)).abs() <= torch.tensor(self.half)).all(1)

    def draw(self, axes: Any, **style: Any) -> None:
        """The edges as a rectangle."""
        corner = [c - h for c, h in zip(self.centre, self.half, strict=True)]
        axes.add_patch(Rectangle(corner, 2 * self.half[0], 2 * self.half[1], fill=False, linewidth=1.0, **style))

    def _edges(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Distances to the edges in units of sigma (near > far), the log of the mass between, the side, the width."""
        signal, sigma = signal_noise(self.alphas_cumprod, timestep, torch.float64)
        centre, half = (
            signal * torch.tensor(value, dtype=torch.float64).view(SHAPE) for value in (self.centre, self.half)
        )
        away = sample.double() - centre
        near = (half - away.abs()) / sigma
        far = (-half - away.abs()) / sigma
        log_mass = torch.special.log_ndtr(near)
        log_mass = log_mass + torch.log1p(-torch.exp(torch.special.log_ndtr(far) - log_mass))
        return near, far, log_mass, away.sign(), 2 * half


def negations() -> Figure:
    """Three ways to sample a without b, for three places of b; the first column has exact samples."""
    u = Gaussian(0.0, 1.0, name="u", sample_shape=SHAPE, unconditional="self")
    a = Box((0.0, 0.0), (1.0, 1.0), u)
    layouts = {
        "b inside a": Box((0.0, 0.0), (0.5, 0.5), u),
        "b at a corner": Box((0.5, 0.5), (0.5, 0.5), u),
        "b across a": Box((0.0, 0.0), (0.5, 2.0), u),
    }
    heads = ["exact", "weight 0.25", "weight 1", "perpendicular", "rejection"]
    figure = new_figure(8.0, 5.3)
    grid = figure.subplots(3, len(heads), sharex=True, sharey=True)
    for row, b in zip(grid, layouts.values(), strict=True):
        anywhere = 2 * torch.rand(4 * POINTS, 2, generator=torch.Generator().manual_seed(0)) - 1
        ways = [(a & ~(0.25 * b), None), (a & ~b, None), (a & ~b, Perpendicular()), (a & ~b, Rejection(draws=32))]
        found = [drawn(way, sampler, POINTS, 100, 0, "latent")[0].flatten(1) for way, sampler in ways]
        samples = [anywhere[~b.contains(anywhere)][:POINTS], *found]
        for axes, head, x in zip(row, heads, samples, strict=True):
            axes.scatter(*x.T.numpy(), s=2, color=ACCENT if head.startswith("weight") else INK, linewidths=0)
            a.draw(axes, edgecolor=FAINT)
            b.draw(axes, edgecolor=ACCENT, linestyle="--")
            axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal", xticks=[-2, 0, 2], yticks=[-2, 0, 2])
    label(grid, heads, list(layouts))
    return figure


def products() -> Figure:
    """Exact samples of three products, and those of three samplers."""
    samplers = {"default": None, "SMC, fkc": SMC(weights="fkc"), "SMC, rne": SMC(weights="rne")}
    heads = ["exact", *samplers]
    figure = new_figure(8.0, 6.4)
    grid = figure.subplots(3, len(heads), sharex="row", sharey="row")
    for row, target in zip(grid, targets().values(), strict=True):
        found = [drawn(target, one, POINTS, 50, 0, "latent")[0].flatten(1) for one in samplers.values()]
        samples = [Exact.of(target).sample(POINTS, torch.Generator().manual_seed(0)), *found]
        for axes, head, x in zip(row, heads, samples, strict=True):
            axes.scatter(*x.T.numpy(), s=2, color=ACCENT if head == "default" else INK, linewidths=0)
            axes.set_aspect("equal")
    label(grid, heads, list(targets()))
    return figure


def new_figure(width: float, height: float) -> Figure:
    """A figure on white that needs no display, in inches; at 110 dpi, its words can be read at the width of a page."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def label(grid: Any, heads: list[str], rows: list[str]) -> None:
    """Heads over the columns of panels, and names beside the rows."""
    for axes, head in zip(grid[0], heads, strict=True):
        axes.set_title(head, fontsize=11, color=INK)
    for axes, name in zip(grid[:, 0], rows, strict=True):
        axes.set_ylabel(name, fontsize=11, color=INK)
    for axes in grid.flat:
        axes.tick_params(labelsize=9, colors=FAINT)


if __name__ == "__main__":
    main()
