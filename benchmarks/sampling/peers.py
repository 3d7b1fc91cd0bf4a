"""Samplers of others beside ours: products with exact samples in the plane, and two prompts of a model.

python benchmarks/sampling/peers.py [--seeds 3] [-n 1000] [--steps 50] [--prompts 0] [--model text]

The products are a b / u with exact scores. Prints the sliced 2-Wasserstein distance to exact samples, between two exact
samples (floor), and the evaluations per sample. With `--prompts`, the samplers draw as many pairs `A & B` of concepts
with the model's own weight: the share of prompts that are found, by the same model, and evaluations and CPU seconds of
one thread per sample.

All samplers take the same steps, so that only the algorithms differ:

- Composable Diffusion (Liu et al., 2022): the loop of DDIM over u + sum_k w (e_k - u), which is our default, too.
- SuperDiff AND (Skreta et al., 2025, "The superposition of diffusion models using the Ito density estimator",
  Algorithm 1): the score is kappa s_1 + (1 - kappa) s_2, and kappa keeps both log densities equal along the path.
- FKC (Skreta et al., 2025, "Feynman-Kac correctors in diffusion", Algorithm 1): the score of the product, weights of
  the particles, and systematic resampling in every step: `SMC(weights="fkc", resample_below=1.0)`.

Notation of SuperDiff: variable -> symbol
    mean        mu_k, the mean of the reverse kernel m_k(y | x) = N(mu_k, beta I) of component k, and mu_u of u
    guided      y = mu_u + w (kappa mu_1 + (1 - kappa) mu_2 - mu_u) + n, n ~ N(0, beta I); without u, w = 1
    gap         mu_1 - mu_2
    kappa       log m_1(y | x) = log m_2(y | x): <(mu_1 + mu_2) / 2 - (1 - w) mu_u - w mu_2 - n, gap> / (w |gap|^2)
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import attrs
import torch
from torch import Tensor

from benchmarks.common.options import parser
from benchmarks.sampling.regions import pairs
from energycomp import Composer, infer, load
from energycomp.components import Composition, Mixture
from energycomp.denoisers import count_rows
from energycomp.sampling import Level, Run, Steps
from energycomp.testing import Gaussian
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.kernels import clip
from energycomp_samplers.smc import SMC

SHAPE = (2, 1, 1)
SIDE, CELLS = 14.0, 500  # of the square on which exact samples are drawn, from its centre, and cells along a side
DIRECTIONS = 180
FLOORS = 10  # pairs of exact samples


@attrs.frozen
class SuperDiffAnd:
    """SuperDiff AND of two components, with guidance where the composition has a third one, u, of negative weight."""

    def start(self, run: Run, /) -> _And:
        """n independent samples of noise. Costs what the plain loop costs."""
        return _And(run, run.noise())


@attrs.define(eq=False)
class _And(Steps):
    """Samples x (n, *shape)."""

    run: Run
    x: Tensor

    def step(self, level: Level, /) -> None:
        target = self.run.target
        one, other = (k for k, w in enumerate(target.weights) if w > 0)
        rest = [k for k, w in enumerate(target.weights) if w < 0]
        w = target.weights[one] if rest else 1.0
        # Predict the mean of the reverse kernel of every component.
        x0 = target.predict(self.x, level.rows(self.x), prediction_type="sample")
        mu = level.mean(self.x, clip(x0, target))
        noise = torch.zeros_like(self.x) if level.is_last else level.beta**0.5 * self.run.noise()
        base = (1 - w) * mu[rest[0]] if rest else torch.zeros_like(self.x)
        # kappa: both log densities grow alike in this step.
        gap = mu[one] - mu[other]
        across = tuple(range(1, gap.ndim))
        left = ((mu[one] + mu[other]) / 2 - base - w * mu[other] - noise) * gap
        kappa = left.sum(across, keepdim=True) / (w * gap.square().sum(across, keepdim=True)).clamp(min=1e-12)
        # Step.
        self.x = base + w * (mu[other] + kappa * gap) + noise


SAMPLERS: dict[str, Any] = {
    "Composable Diffusion; default, DDIM": None,
    "SuperDiff AND": SuperDiffAnd(),
    "FKC": SMC(weights="fkc", resample_below=1.0),
    '`SMC(weights="rne")`': SMC(weights="rne"),
    '`SMC(weights="energy")`': SMC(weights="energy"),
    "second order, `gauss`": Gauss(),
    '`SMC(proposal="gauss")`': SMC(proposal="gauss"),
}
OF_PROMPTS: dict[str, Any] = {
    "Composable Diffusion; default, DDIM": None,
    "SuperDiff AND": SuperDiffAnd(),
    "FKC, 4 particles": SMC(weights="fkc", resample_below=1.0, particles=4),
    "`SMC(particles=4)`": SMC(particles=4),
}


def modes(centres: Sequence[tuple[float, float]], sd: float) -> list[Gaussian]:
    """Gaussians of one width in the plane."""
    return [Gaussian(torch.tensor(centre).view(SHAPE), sd**2, sample_shape=SHAPE) for centre in centres]


def diagonal(x: float, y: float) -> Gaussian:
    """A Gaussian around the origin with a variance for each axis."""
    return Gaussian(0.0, torch.tensor([x, y]).view(SHAPE), sample_shape=SHAPE)


def targets() -> dict[str, Composition]:
    """a + b - u, by the name of the target."""
    inside = modes([(x, y) for y in (-2.5, 2.5) for x in (-3.0, 0.0, 3.0)], 0.6)
    outside = modes([(-6.0, 1.5), (9.0, 0.0), (0.0, -9.0), (-1.5, 6.0)], 1.0)
    return {
        "modes of one grid": Mixture(inside[:4]) + Mixture([inside[i] for i in (1, 2, 4, 5)]) - Mixture(inside),
        "no mode shared": Mixture(outside[:2]) + Mixture(outside[2:]) - Mixture(outside),
        "Gaussians": diagonal(10.0, 1.0) + diagonal(1.0, 10.0) - diagonal(1.1, 1.1),
    }


@attrs.frozen(eq=False)
class Exact:
    """The density exp(-E) at timestep 0 in the cells of a grid: samples of a cell are uniform in it."""

    edges: Tensor  # (CELLS^2,) cumulated

    @classmethod
    def of(cls, target: Composition) -> Exact:
        """The product of the densities of the leaves."""
        axis = (torch.arange(CELLS) + 0.5) / CELLS * 2 * SIDE - SIDE
        points = torch.cartesian_prod(axis, axis).view(-1, *SHAPE)
        energy = torch.cat([target.energy(part, torch.zeros(len(part))) for part in points.split(100_000)]).double()
        return cls((energy.min() - energy).exp().cumsum(0))

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n samples (n, 2)."""
        chosen = torch.rand(n, generator=generator, dtype=torch.float64) * self.edges[-1]
        cells = torch.searchsorted(self.edges, chosen)
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


def drawn(composition: Any, sampler: Any, n: int, steps: int, seed: int, output_type: str) -> tuple[Any, float]:
    """n samples, and the evaluations per sample."""
    reports: list[Any] = []
    x = Composer(composition).sample(
        n, sampler=sampler, num_inference_steps=steps, generator=torch.Generator().manual_seed(seed),
        report=reports.append, output_type=output_type, progress=False,
    )  # fmt: skip
    return x, reports[0].evaluations / n


def plane(n: int, steps: int, seeds: int) -> list[str]:
    """The table of products, as lines of Markdown."""
    found, generator = dict[str, list[str]](), torch.Generator().manual_seed(0)
    head = []
    for name, target in targets().items():
        exact = Exact.of(target)
        truths = [exact.sample(n, generator) for _ in range(max(seeds, FLOORS))]
        head.append(f"{name} (floor {mean(sliced_w2(one, exact.sample(n, generator)) for one in truths):.3f})")
        for label, sampler in SAMPLERS.items():
            runs = [drawn(target, sampler, n, steps, seed, "latent") for seed in range(seeds)]
            far = mean(sliced_w2(x.flatten(1), truth) for (x, _), truth in zip(runs, truths, strict=False))
            found.setdefault(label, [f"{runs[0][1]:.0f}"]).append(f"{far:.3f}")
    return lines(["sampler", "NFE", *head], found)


def prompts(name: str, n: int, steps: int, seed: int) -> list[str]:
    """The table of two prompts, as lines of Markdown."""
    model, found = load(name), dict[str, list[str]]()
    for label, sampler in OF_PROMPTS.items():
        shares, rows, seconds = list[float](), 0, 0.0
        for k, names in enumerate(pairs(n, seed)):
            a, b = (model.defaults.guidance_scale * model.leaf(model.conditioner.parse(concept=one)) for one in names)
            started = time.process_time()
            with count_rows() as spent:
                images, _ = drawn(a & b, sampler, 1, steps, seed + k, "pt")
            seconds, rows = seconds + time.process_time() - started, rows + spent.rows
            solution = infer(images[0], model, count=2, progress=False)
            read = {model.conditioner.describe(value)["concept"] for value in solution.conditions}
            shares.append(len(read & set(names)) / 2)
        share = torch.tensor(shares)
        half = 1.96 * float(share.std()) / n**0.5
        found[label] = [f"{rows / n:.0f}", f"{seconds / n:.2f}", f"{float(share.mean()):.3f} ± {half:.3f}"]
    return lines(["sampler", "NFE", "CPU s", "prompts found"], found)


def lines(head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """A table of Markdown."""
    every = [head, ["---"] * len(head), *([label, *row] for label, row in rows.items())]
    return ["| " + " | ".join(row) + " |" for row in every]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    options = parser(
        __doc__, model="text", seeds=(3, "runs of each product"), n=(1000, "samples of each product"), steps=50,
        prompts=(0, "pairs of concepts"), seed=0,
    ).parse_args(arguments)  # fmt: skip
    torch.set_num_threads(1)
    print("\n".join(plane(options.n, options.steps, options.seeds)), flush=True)
    if options.prompts:
        print("\n" + "\n".join(prompts(options.model, options.prompts, options.steps, options.seed)))


if __name__ == "__main__":
    main()
