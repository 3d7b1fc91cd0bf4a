"""Inverse problems with an exact posterior: `observe` beside DPS and DiffPIR of deepinv, same network and operators.

python benchmarks/sampling/inverse.py [--truths 8] [-n 100] [--steps 100] [--seed 0]

Needs deepinv, which is no dependency of this project: pip install deepinv.

The images (1, 4, 8) are of a mixture of four Gaussians with smooth covariances, whose score is exact and is the network
of all. A truth is drawn, observed with noise of deviation 0.1, and n samples of each method are compared with as many
of the exact posterior, a mixture again. Prints for each operator, as means over truths:

    SW          sliced 2-Wasserstein distance to exact samples, in 64 random directions; the floor is between two of
                these
    coverage    the share of pixels whose truth is in the interval of 90 % of the samples, with half a 95 % interval
                over truths; of exact samples 0.9 on average, whatever n is
    PSNR        of the mean of the samples, for a peak of 2

Each method of deepinv stands there twice: with the settings that it comes with, and with those that were nearest to the
exact posterior on other truths, seed 1000, of a grid over the weight, or over lambda and zeta (`benchmarks/NOTES.md`).
Ours have no setting. What deepinv cuts off lies beyond +-3, its reach: a number in a thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from statistics import mean
from typing import Any

import attrs
import torch
from torch import Tensor

from benchmarks.baselines.restoration import DPS, DiffPIR, Problem, check_installed, interval
from benchmarks.common.options import parser
from energycomp import Composer
from energycomp.components import Composable, NoisedSpace, cosine_schedule
from energycomp.sampling import Target
from energycomp_samplers import blur, observe, pool
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.observation import Observation
from energycomp_samplers.smc import SMC

SHAPE = (1, 4, 8)
SIZE = 32
NOISE = 0.1
KINDS = 4
DIRECTIONS = 64
SPACE = NoisedSpace(cosine_schedule(), SHAPE, "mixture")
REACH = 3.0  # of the numbers of an image, for deepinv


@attrs.frozen(eq=False, repr=False)
class Smooth(Composable):
    """sum_k w_k N(means_k, covariances_k), of log weights (K,), means (K, D) and covariances (K, D, D) in float64."""

    log_weights: Tensor
    means: Tensor
    covariances: Tensor
    noised_space: NoisedSpace = SPACE
    unconditional: Any = None

    @cached_property
    def axes(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (K, D) and eigenvectors (K, D, D) of the covariances."""
        values, vectors = torch.linalg.eigh(self.covariances)
        return values, vectors

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The noise prediction in closed form; all rows have one timestep."""
        signal, noise = (float(level.flatten()[0]) for level in self.noised_space.levels(timestep[:1]))
        values, vectors = self.axes
        total = signal**2 * values + noise**2  # (K, D)
        turned = torch.einsum("nkd,kde->nke", sample.flatten(1).double()[:, None] - signal * self.means, vectors)
        energy = (turned.square() / total + total.log()).sum(2) / 2
        share = (self.log_weights - energy).softmax(1)
        return noise * torch.einsum("nk,nke,kde->nd", share, turned / total, vectors).to(sample).reshape(sample.shape)

    def observed(self, matrix: Tensor, y: Tensor) -> Smooth:
        """The posterior for y = A z + noise, a mixture again."""
        seen = torch.einsum("md,kde,ne->kmn", matrix, self.covariances, matrix) + NOISE**2 * torch.eye(len(matrix))
        gain = torch.linalg.solve(seen, matrix @ self.covariances).mT  # (K, D, M)
        missed = y - self.means @ matrix.mT
        fit = (missed * torch.linalg.solve(seen, missed)).sum(1) + torch.logdet(seen)
        means = self.means + torch.einsum("kdm,km->kd", gain, missed)
        return Smooth(self.log_weights - fit / 2, means, self.covariances - gain @ matrix @ self.covariances)

    def sample(self, n: int, random: torch.Generator) -> Tensor:
        """(n, D)."""
        kinds = torch.multinomial(self.log_weights.softmax(0), n, replacement=True, generator=random)
        values, vectors = self.axes
        roots = vectors * values.clamp(min=0).sqrt()[:, None]
        noise = torch.randn(n, SIZE, generator=random, dtype=torch.float64)
        return self.means[kinds] + torch.einsum("nde,ne->nd", roots[kinds], noise)


def prior(random: torch.Generator) -> Smooth:
    """Four Gaussians, each of deviation 1/2, smooth over different lengths."""
    places = torch.cartesian_prod(torch.arange(4.0), torch.arange(8.0)).double()
    apart = torch.cdist(places, places)
    lengths = torch.tensor([0.7, 1.0, 1.5, 2.5]).double()[:, None, None]
    covariances = 0.25 * (torch.exp(-(apart**2) / (2 * lengths**2)) + 0.02 * torch.eye(SIZE))
    return Smooth(torch.zeros(KINDS).double(), 0.7 * torch.randn(KINDS, SIZE, generator=random).double(), covariances)


def operators(random: torch.Generator) -> dict[str, Any]:
    """What `observe` takes, by name."""
    matrix = torch.randn(8, SIZE, generator=random) / SIZE**0.5
    return {
        "inpainting": (torch.rand(SHAPE, generator=random) < 0.4).float(),
        "blur": blur(torch.full((3, 3), 1 / 9)),
        "x4": pool(2),
        "projections": (lambda z: z.flatten(1) @ matrix.T, lambda w: (w @ matrix).reshape(-1, *SHAPE)),
    }


def forward(operator: Any) -> Callable[[Tensor], Tensor]:
    """A, of samples (B, *SHAPE)."""
    if isinstance(operator, Tensor):
        return lambda z: z * operator
    found: Callable[[Tensor], Tensor] = operator[0] if isinstance(operator, tuple) else operator.forward
    return found


def drawn(method: Any, network: Smooth, seen: Observation, options: Any, seed: int) -> Tensor:
    """n samples (n, D)."""
    if callable(method):
        problem = Problem(Target(network), seen, reach=REACH)
        return method(problem, options.n, options.steps, seed + 1).flatten(1)
    made = Composer(network & seen).sample(
        options.n, sampler=method, num_inference_steps=options.steps, output_type="latent", generator=seed,
        progress=False, report=lambda _: None,
    )  # fmt: skip
    return made.flatten(1)


def dense(operator: Any) -> Tensor:
    """A as a matrix (M, D)."""
    return forward(operator)(torch.eye(SIZE).reshape(-1, *SHAPE)).flatten(1).T.double()


METHODS: dict[str, Any] = {
    "DPS": DPS(),
    "DPS, weight 100": DPS(weight=100.0),
    "DiffPIR": DiffPIR(),
    "DiffPIR, zeta 1": DiffPIR(zeta=1.0),
    "`observe`, the default": None,
    '`observe`, `Gauss(last="draw")`': Gauss(last="draw"),
    "`observe`, `SMC()`": SMC(),
}


def sliced(a: Tensor, b: Tensor) -> float:
    """The sliced 2-Wasserstein distance of two samples (n, D) of one size."""
    directions = torch.randn(SIZE, DIRECTIONS, generator=torch.Generator().manual_seed(0)).double()
    directions = directions / directions.norm(dim=0)
    return float(
        ((a.double() @ directions).sort(0).values - (b.double() @ directions).sort(0).values).pow(2).mean().sqrt()
    )


def measured(x: Tensor, truth: Tensor, exact: Tensor) -> tuple[float, float, float]:
    """SW, coverage and PSNR of samples (n, D)."""
    low, high = interval(x.double())
    inside = float(((truth >= low) & (truth <= high)).double().mean())
    error = float((x.double().mean(0) - truth).square().mean())
    return sliced(x, exact), inside, 10 * float(torch.tensor(4.0 / error).log10())


def cells(found: Sequence[tuple[float, float, float]]) -> list[str]:
    """Means over truths."""
    far, inside, psnr = (torch.tensor(column) for column in zip(*found, strict=True))
    half = 1.96 * float(inside.std()) / len(inside) ** 0.5
    return [f"{float(far.mean()):.3f}", f"{float(inside.mean()):.3f} ± {half:.3f}", f"{float(psnr.mean()):.1f}"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each operator."""
    options = parser(__doc__, truths=(8, "of each operator"), n=(100, "samples"), steps=100, seed=0).parse_args(
        arguments
    )
    check_installed()
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(options.seed)
    network = prior(random)
    print("| operator | method | SW | coverage | PSNR |\n| --- | --- | --- | --- | --- |")
    for name, operator in operators(random).items():
        rows: dict[str, list[tuple[float, float, float]]] = {}
        floors = []
        for k in range(options.truths):
            truth = network.sample(1, random)
            seen = forward(operator)(truth.float().reshape(-1, *SHAPE))[0]
            y = seen + NOISE * torch.randn(seen.shape, generator=random)
            y = y * operator if isinstance(operator, Tensor) else y
            exact = network.observed(dense(operator), y.flatten().double())
            samples = exact.sample(options.n, random)
            floors.append(sliced(exact.sample(options.n, random), samples))
            rows.setdefault("exact samples", []).append(measured(exact.sample(options.n, random), truth[0], samples))
            for label, method in METHODS.items():
                x = drawn(method, network, observe(operator, y, std=NOISE), options, options.seed + k)
                rows.setdefault(label, []).append(measured(x, truth[0], samples))
        print(f"| {name}: floor {mean(floors):.3f} | | | | |")
        print("\n".join(" | ".join(["|", label, *cells(found), "|"]) for label, found in rows.items()), flush=True)


if __name__ == "__main__":
    main()
