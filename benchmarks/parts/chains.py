"""Chains of Gaussian parts: the samples of a canvas whose separators are divided out, beside the closed form.

python benchmarks/parts/chains.py [--parts 3 10 30] [-n 1000] [--steps 100] [--correlation 0.8]

A stationary chain of numbers with mean 0.5 and standard deviation 0.6. Its parts are pairs of neighbours, and its
separators the numbers between: both are marginals of the chain, so that the product of the parts over the separators
is the chain. Prints a markdown row for each length and sampler: the error of the mean (root mean square over numbers),
the error of the covariance (Frobenius norm, relative), the mean deviation, the correlation of neighbours and of both
ends, and evaluations per sample. `exact` are independent draws of the chain.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp import Composer, Composition, window
from energycomp.components import Composable, NoisedSpace, by_sample, cosine_schedule, items, log_snr
from energycomp_samplers import Canvas

MEAN, SPREAD = 0.5, 0.6
SCHEDULE = cosine_schedule()
SAMPLERS = {"ddpm": {"scheduler": "DDPMScheduler"}, "smc": {"sampler": "smc"}, "mala": {"sampler": "mala"}}


@attrs.frozen(eq=False, repr=False)
class Correlated(Composable):
    """A Gaussian of D numbers with a full covariance (D, D) in closed form, as `energycomp.components.Gaussian`."""

    covariance: Tensor
    eigen: tuple[Tensor, Tensor] = attrs.field(init=False)

    @eigen.default
    def _decomposed(self) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(self.covariance)
        return values, vectors

    @property
    def noised_space(self) -> NoisedSpace:
        """Rows of numbers."""
        return NoisedSpace(SCHEDULE, (len(self.covariance),), "chain")

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """sqrt(1 - a) (a S + (1 - a) I)^-1 (x - sqrt(a) mean), (B, D)."""
        whitened, offset, a = self._whitened(sample, timestep)
        return ((1 - a).sqrt() * (whitened @ self.eigen[1].T.to(offset))).to(sample.dtype)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log density up to a constant, (B,)."""
        whitened, offset, _ = self._whitened(sample, timestep)
        return ((whitened * (offset @ self.eigen[1].to(offset))).sum(1) / 2).to(sample.dtype)

    def _whitened(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a = by_sample(torch.sigmoid(log_snr(SCHEDULE, timestep)), 2)
        values, vectors = (one.to(a) for one in self.eigen)
        offset = sample.to(a) - a.sqrt() * MEAN
        return (offset @ vectors) / (a * values + 1 - a), offset, a

    def __repr__(self) -> str:
        return f"chain of {len(self.covariance)}"


def covariance(numbers: int, correlation: float) -> Tensor:
    """Of a stationary chain, (D, D)."""
    place = torch.arange(numbers, dtype=torch.float64)
    return SPREAD**2 * correlation ** (place[:, None] - place).abs()


def chain(parts: int, correlation: float) -> Composition:
    """The chain of `parts` + 1 numbers as pairs of neighbours, over the numbers between."""
    pair, number = Correlated(covariance(2, correlation)), Correlated(covariance(1, correlation))
    pairs = [window(i, 2) for i in range(parts)]
    separators = [(items(i), number) for i in range(1, parts)]
    return Canvas((parts + 1,), pairs, cover="bethe", separators=separators).join([pair] * parts)


def errors(x: Tensor, correlation: float) -> dict[str, float]:
    """The errors of samples (n, D), and their correlations."""
    true, found = covariance(x.shape[1], correlation), torch.cov(x.double().T)
    deviation = found.diagonal().sqrt()
    correlations = found / (deviation[:, None] * deviation)
    return {
        "mean": float((x.double().mean(0) - MEAN).square().mean().sqrt()),
        "covariance": float((found - true).norm() / true.norm()),
        "deviation": float(deviation.mean()),
        "neighbours": float(correlations.diagonal(1).mean()),
        "ends": float(correlations[0, -1]),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=int, nargs="+", default=[3, 10, 30])
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--correlation", type=float, default=0.8)
    options = parser.parse_args(arguments)
    print(
        "| parts | sampler | mean | covariance | deviation | neighbours | ends | evaluations |\n" + "| --- " * 8 + "|"
    )
    for parts in options.parts:
        true = covariance(parts + 1, options.correlation)
        noise = torch.randn(options.n, parts + 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        rows = {"exact": (noise @ torch.linalg.cholesky(true).T + MEAN, 0)}
        for name, how in SAMPLERS.items():
            reports = []
            composer = Composer(chain(parts, options.correlation))
            x = composer.sample(
                options.n, generator=0, num_inference_steps=options.steps, output_type="latent", progress=False,
                report=reports.append, **how,
            )  # fmt: skip
            rows[name] = (x, reports[0].evaluations // options.n)
        for name, (x, spent) in rows.items():
            found = " | ".join(f"{value:.3f}" for value in errors(x, options.correlation).values())
            print(f"| {parts} | {name} | {found} | {spent:,} |", flush=True)


if __name__ == "__main__":
    main()
