"""Sources in log units, whose light adds up: whether 90 % intervals cover, and what the draws leave over.

python benchmarks/parts/log_light.py [-n 15] [--seed 0] [--draws 100] [--steps 20] [--bright 2.0] [--measured]

A source is an image u of 8 x 8 pixels in log units, a smooth Gaussian around a bright spot: its score is known. Its
light is A(u) = exp(u) - 1, up to 20 and more where noise is 0.05. Prints one JSON line for one source and for two,
whose light adds up: the mean over n images, with half a 95 % interval. "lit" pixels have a light above 1; a "flux" is
the light of a whole source; "residual" is that of the draws, in standard deviations of the noise. With `--measured`,
`separate` is not told the covariances: it measures one variance for all pixels.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.common.options import parser
from benchmarks.parts.separated_digits import Digit, summary
from energycomp.components import NoisedSpace, cosine_schedule
from energycomp.errors import EnergycompWarning
from energycomp_samplers import separate

SIDE = 8
SPACE = NoisedSpace(cosine_schedule(), (1, SIDE, SIDE), "log light")
WIDTH = 1.5  # of the spot, and of what is smooth, in pixels
DEVIATION = 0.5  # of the brightest pixel; a third of it far away
ROUGH = 0.05  # variance of each pixel by itself


def light(u: Tensor) -> Tensor:
    """What is seen of a source."""
    return torch.exp(u) - 1.0


def source(name: str, middle: tuple[float, float], bright: float) -> Digit:
    """A spot with a middle (row, column)."""
    axis = torch.arange(SIDE, dtype=torch.float64)
    pixels = torch.cartesian_prod(axis, axis)
    apart = (pixels - torch.tensor(middle, dtype=torch.float64)).square().sum(1)
    spot = torch.exp(-apart / (2 * WIDTH**2))
    smooth = torch.exp(-torch.cdist(pixels, pixels).square() / (2 * WIDTH**2))
    deviations = DEVIATION * (0.3 + spot)
    covariance = smooth * deviations[:, None] * deviations + ROUGH * torch.eye(SIDE**2)
    return Digit(name, bright * spot, covariance, SPACE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each number of sources."""
    options = parser(
        __doc__, n=(15, "images"), seed=0, noise=(0.05, "standard deviation"), draws=(100, "particles"),
        steps=(20, "noise levels"), bright=(2.0, "of the middle of a spot, in log units"), sources=([1, 2], "numbers"),
        measured=(False, "covariances are measured"),
    ).parse_args(arguments)  # fmt: skip
    torch.set_num_threads(1)
    both = [source("a", (3.0, 2.0), options.bright), source("b", (4.0, 5.5), options.bright)]
    for count in options.sources:
        chosen = both[:count]
        lines: list[dict[str, float]] = []
        begun = time.process_time()
        for k in range(options.n):
            random = torch.Generator().manual_seed(options.seed + k)
            true = torch.stack([one.drawn(random) for one in chosen])
            image = light(true).sum(0) + options.noise * torch.randn(1, SIDE, SIDE, generator=random)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", EnergycompWarning)
                found = separate(
                    image,
                    chosen,
                    noise=options.noise,
                    operators=light,
                    covariances=None if options.measured else [one.covariance for one in chosen],
                    n=options.draws,
                    num_inference_steps=options.steps,
                    generator=k,
                    progress=False,
                )
            low, high = found.interval(0.9)
            inside = ((low <= true) & (true <= high)).float()
            lights = light(found.samples)  # (draws, sources, 1, 8, 8)
            left = (image - lights.sum(1)) / options.noise
            fluxes = lights.flatten(2).sum(2)
            least, most = fluxes.quantile(torch.tensor([0.05, 0.95], dtype=fluxes.dtype), 0)
            flux = light(true).flatten(1).sum(1)
            lines.append(
                {
                    "coverage": float(inside.mean()),
                    "coverage_lit": float(inside[light(true) > 1.0].mean()),
                    "coverage_flux": float(((least <= flux) & (flux <= most)).float().mean()),
                    "residual": float(left.square().mean().sqrt()),
                    "warned": float(bool(found.warnings)),
                }
            )
        seconds = (time.process_time() - begun) / options.n
        line = {"sources": count, "n": options.n, **summary(lines), "cpu_seconds": round(seconds, 1)}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
