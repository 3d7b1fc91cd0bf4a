"""Compare plain sampling with the product of densities, for components in closed form on a line.

python benchmarks/sampling/product_density.py [-n 20000] [-o docs/images/product-density.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from energycomp import Composer
from energycomp.testing import Gaussian

STEPS = 250
LINE = torch.linspace(-3, 3, 6001)
INK, ACCENT, FAINT = "#1a1a1a", "#d1495b", "#6b6b6b"


def compositions() -> dict[str, Composer]:
    """What is sampled, by the title of its panel. The unconditional leaf u is N(0, 1) where it is not named."""
    wide = Gaussian(0.0, 1.0, name="u", unconditional="self")
    same = Gaussian(0.0, 0.25, name="u", unconditional="self")

    def gaussian(mean: float, variance: float, u: Any = wide) -> Gaussian:
        return Gaussian(mean, variance, unconditional=u)

    two = gaussian(-1.0, 0.09) | gaussian(1.0, 0.09)
    return {
        "a & b, all as wide as u": Composer(gaussian(0.5, 0.25, same) & gaussian(0.2, 0.25, same)),
        "a & b, narrower than u": Composer(gaussian(1.0, 0.25) & gaussian(-0.2, 0.25)),
        "two modes & one Gaussian": Composer(two & gaussian(0.5, 0.25)),
        'rule="sum"': Composer([gaussian(0.7, 0.25), gaussian(-0.5, 0.25)], rule="sum"),
    }


def exact_density(composer: Composer) -> Tensor:
    """The product of the densities on `LINE`: exp(-E) at timestep 0, normalised."""
    x = LINE[:, None, None, None]
    energy = composer.energy(x, torch.zeros(len(x))).double()
    density = (energy.min() - energy).exp()
    return density / torch.trapezoid(density, LINE.double())


def moments(density: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of a density on `LINE`."""
    x = LINE.double()
    mean = torch.trapezoid(density * x, x)
    return float(mean), float(torch.trapezoid(density * (x - mean).square(), x).sqrt())


def main() -> None:
    """Prints the moments of both and draws their densities, in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=20_000, help="number of samples of each composition")
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/images/product-density.png"))
    options = parser.parse_args()
    figure = Figure(figsize=(9.0, 2.7), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    print("| composition | mean and std of the product | of the samples |\n| --- | --- | --- |")
    for axes, (title, composer) in zip(figure.subplots(1, 4), compositions().items(), strict=True):
        density = exact_density(composer)
        generator = torch.Generator().manual_seed(0)
        drawn = composer.sample(
            options.n, generator=generator, num_inference_steps=STEPS, output_type="latent", progress=False
        ).flatten()
        mean, std = moments(density)
        print(f"| {title} | {mean:.2f}, {std:.3f} | {float(drawn.mean()):.2f}, {float(drawn.std()):.3f} |")
        draw(axes, title, density, drawn)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=104)


def draw(axes: Any, title: str, density: Tensor, drawn: Tensor) -> None:
    """A histogram of the samples and the exact density."""
    axes.hist(drawn.numpy(), bins=120, range=(-2, 2.5), density=True, color=ACCENT, alpha=0.5, label="samples")
    axes.plot(LINE, density, color=INK, linewidth=1.2, label="product")
    axes.set_title(title, fontsize=10, color=INK, pad=5)
    axes.set_xlim(-2, 2.5)
    axes.set_ylim(0, 1.9 * float(density.max()))
    axes.set_yticks([])
    axes.tick_params(labelsize=8, colors=FAINT)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper right")


if __name__ == "__main__":
    main()
