"""Anneal a mixture of 40 Gaussians to p^3 with exact scores: Table A1 of Skreta et al. (2025), beside its figures.

python benchmarks/sampling/annealed_mixture.py [--samplers "fkc" "energy"] [--runs 5] [--transport 2000] [--json]

Prints the distances to 10,000 exact samples after 1,000 steps: mean and standard deviation over runs. Runs are stored
in the folder of `-o`, and a second call continues from there. `--transport 10000` takes all samples for W1 and W2, as
in the paper: that is half a minute more for each run and distance.

Notation: variable -> symbol
    means, sd       m_k and s: p = 1/40 sum_k N(m_k, s^2 I), with softplus(2) = 2.127 for s
    UNIT            50, the length in which the noise levels are given: modes are within 0.8, noise begins at 10
    sigma           0.01 sqrt(1000^(2 t) - 1) at t = 1/1000, ..., 1, geometric and variance exploding
    alphas_cumprod  1 / (1 + sigma^2): x / sqrt(1 + sigma^2) has the variance-preserving form of the library

    p^3 is a mixture of 40^3 Gaussians N((m_i + m_j + m_k) / 3, s^2 / 3 I), with the weights
    exp(-(|m_i|^2 + |m_j|^2 + |m_k|^2 - |m_i + m_j + m_k|^2 / 3) / (2 s^2))
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from torch import Tensor

from benchmarks.common import measure
from energycomp import Composer
from energycomp.components import Composable, NoisedSpace, log_snr
from energycomp.sampling import SamplingReport
from energycomp_samplers.mala import MALA
from energycomp_samplers.smc import SMC

BETA, MODES, SIDE, UNIT = 3, 40, 40.0, 50.0
SD = math.log1p(math.exp(2.0))
BINS = 200  # of a histogram, along a side
WIDTHS = tuple(10.0 ** (place / 4.5 - 2.0) for place in range(10))  # of the kernels of the MMD: 0.01 to 1
PART = 500  # samples whose neighbours are held at a time
REACH = 5.0 * WIDTHS[-1]  # beyond it kernels are below 4e-6
LEAST = 1e-4  # weight of a mode of p^3, relative to all: those below it are left out, as in the paper
METRICS = {"total_variation": 3, "w1": 2, "w2": 2, "mmd": 4, "energy_w2": 3}  # digits shown
SAMPLERS: dict[str, Any] = {
    "scheduler": None,
    "none": SMC(weights="none"),
    "fkc, every step": SMC(weights="fkc", resample_below=1.0),
    "fkc": SMC(weights="fkc"),
    "fkc + mala": SMC(weights="fkc", moves=MALA(moves=1, nodes=2)),
    "rne": SMC(weights="rne"),
    "energy": SMC(weights="energy"),
    "energy, 0.9": SMC(weights="energy", resample_below=0.9),
    "energy, 0.9 + mala": SMC(weights="energy", resample_below=0.9, moves=MALA(moves=1, test="energy")),
}
EXACT = "exact samples"
PUBLISHED = {  # Skreta et al. (2025), Table A1: total variation, W1, W2, MMD and energy W2
    "paper: target score": ((0.487, 0.026), (11.30, 0.30), (15.67, 0.27), (0.020, None), (0.943, 0.026)),
    "paper: target score + FKC": ((0.372, 0.020), (6.26, 3.96), (11.27, 5.63), (0.007, 0.005), (1.098, 0.418)),
}


NOTE = (
    "The energy W2 of the paper is not comparable: its notebook takes the energies of 5 exact samples for reference, "
    "and this script takes those of all."
)


@attrs.frozen(eq=False, repr=False)
class GaussianModes(Composable):
    """A component whose data are a mixture of K Gaussians of one width and equal weights, evaluated in one product.

    Args:
        means: (K, D).
        sd: standard deviation of every mode.
        noised_space: with D numbers in a sample.
    """

    means: Tensor
    sd: float
    noised_space: NoisedSpace
    unconditional: Any = None

    def __repr__(self) -> str:
        return "p"

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Closed-form noise prediction (B, C, H, W)."""
        logits, a, variance = self._logits(sample, timestep)
        mean = torch.softmax(logits, dim=1) @ self.means
        return ((1 - a).sqrt() * (sample.flatten(1) - a.sqrt() * mean) / variance).view_as(sample)

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log density of x_t up to a constant that depends on the timestep, (B,)."""
        logits, _, variance = self._logits(sample, timestep)
        return sample.flatten(1).square().sum(1) / (2 * variance[:, 0]) - logits.logsumexp(dim=1)

    def _logits(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(|x|^2 - |x - sqrt(a) m_k|^2) / (2 v), (B, K), alpha_bar a and the variance v of a mode, (B, 1)."""
        exact = torch.sigmoid(log_snr(self.noised_space.alphas_cumprod, timestep))[:, None]
        variance = (exact * self.sd**2 + 1 - exact).to(sample.dtype)
        a = exact.to(sample.dtype)
        rows = torch.cat([a.sqrt() / variance * sample.flatten(1), -a / (2 * variance)], dim=1)
        return rows @ torch.cat([self.means, self.means.square().sum(1, keepdim=True)], dim=1).T, a, variance


def centres() -> Tensor:
    """m_k, (40, 2): the means of the target GMM-40 (Midgley et al., 2023)."""
    return (torch.rand(MODES, 2, generator=torch.Generator().manual_seed(0)) - 0.5) * 2 * SIDE


def component(steps: int = 1000) -> GaussianModes:
    """p at the noise levels of the paper, in units of 50."""
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    alphas = 1 / (1 + 0.01**2 * (1000.0 ** (2 * t) - 1))
    return GaussianModes(centres() / UNIT, SD / UNIT, NoisedSpace(alphas, (2, 1, 1), "plane"))


@attrs.frozen(eq=False)
class Annealed:
    """p^3: means (M, 2) and weights (M,) of its modes, all of one width."""

    means: Tensor
    weights: Tensor

    @classmethod
    def of(cls, means: Tensor) -> Annealed:
        """The modes of p^3, for the means of p (K, 2)."""
        m = means.double()
        total = (m[:, None, None] + m[:, None] + m).view(-1, 2)
        square = m.square().sum(1)
        squares = (square[:, None, None] + square[:, None] + square).flatten()
        weights = torch.softmax((total.square().sum(1) / BETA - squares) / (2 * SD**2), dim=0)
        kept = weights > LEAST
        return cls(total[kept] / BETA, weights[kept] / weights[kept].sum())

    def sample(self, n: int, generator: torch.Generator) -> NDArray[np.float64]:
        """n samples (n, 2)."""
        mode = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        return np.asarray(self.means[mode] + SD / BETA**0.5 * noise)

    def log_density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of points (n, 2), (n,)."""
        variance = SD**2 / BETA
        squares = torch.cdist(torch.from_numpy(x), self.means).square()
        logits = self.weights.log() - squares / (2 * variance) - math.log(2 * math.pi * variance)
        return np.asarray(logits.logsumexp(dim=1))


def total_variation(x: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    """Half the absolute difference of two histograms, over the range of the reference; points outside are left out.

    >>> points = np.random.default_rng(0).normal(size=(100, 2))
    >>> total_variation(points, points), total_variation(np.tile(points[:1], (100, 1)), points)
    (0.0, 0.99)
    """
    expected, *edges = np.histogram2d(*reference.T, bins=BINS)
    found, *_ = np.histogram2d(*x.T, bins=edges)
    return float(np.abs(found / max(found.sum(), 1) - expected / expected.sum()).sum() / 2)


def wasserstein(x: NDArray[np.float64], y: NDArray[np.float64], power: int) -> float:
    """The Wasserstein distance of two samples (n, 2) of one size: the best assignment.

    >>> points = np.random.default_rng(0).normal(size=(50, 2))
    >>> round(wasserstein(points, points[::-1] + np.array([3.0, 4.0]), 2), 6)
    5.0
    """
    costs = cdist(x, y) ** power
    return float(costs[linear_sum_assignment(costs)].mean() ** (1 / power))


def mmd(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The squared maximum mean discrepancy (biased) of the sum of ten Gaussian kernels, of widths 0.01 to 1.

    >>> points = np.random.default_rng(0).normal(size=(50, 2))
    >>> abs(mmd(points, points)) < 1e-12, round(mmd(points[:1], points[:1] + 9.0), 6)  # 10 + 10 kernels of value 1
    (True, 20.0)
    """

    def kernels(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        tree, total = cKDTree(b), 0.0
        for part in np.array_split(a, math.ceil(len(a) / PART)):
            near = cKDTree(part).sparse_distance_matrix(tree, REACH, output_type="ndarray")["v"]
            total += sum(float(np.exp(-np.square(near / width) / 2).sum()) for width in WIDTHS)
        return total / (len(a) * len(b))

    return kernels(x, x) + kernels(y, y) - 2 * kernels(x, y)


def energy_w2(x: NDArray[np.float64], y: NDArray[np.float64], target: Annealed) -> float:
    """The squared 2-Wasserstein distance of the log densities of two samples of one size."""
    return float(np.square(np.sort(target.log_density(x)) - np.sort(target.log_density(y))).mean())


def drawn(sampler: Any, n: int, steps: int, seed: int) -> tuple[NDArray[np.float64], SamplingReport]:
    """n samples (n, 2) of p^3 and the report."""
    reports: list[SamplingReport] = []
    x = Composer(BETA * component()).sample(
        n,
        sampler=sampler,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        report=reports.append,
        output_type="latent",
        progress=False,
    )
    return np.asarray(x.flatten(1).double() * UNIT), reports[0]


def distances(
    x: NDArray[np.float64], reference: NDArray[np.float64], target: Annealed, transport: int
) -> dict[str, float]:
    """All metrics; W1 and W2 of `transport` samples in random order, since neighbours in a swarm are related."""
    few = np.random.default_rng(0).permutation(len(x))[:transport]
    return {
        "total_variation": total_variation(x, reference),
        "w1": wasserstein(x[few], reference[few], 1),
        "w2": wasserstein(x[few], reference[few], 2),
        "mmd": mmd(x, reference),
        "energy_w2": energy_w2(x, reference, target),
    }


def compare(
    samplers: Sequence[str], *, n: int, steps: int, runs: int, transport: int, out: Path
) -> list[dict[str, Any]]:
    """A record for each sampler and run."""
    target = Annealed.of(centres())
    reference = target.sample(n, torch.Generator().manual_seed(0))

    def run(case: str) -> dict[str, Any]:
        name, _, seed = case.rpartition(" #")
        if name == EXACT:
            x, report = target.sample(n, torch.Generator().manual_seed(1 + int(seed))), SamplingReport(0)
        else:
            x, report = drawn(SAMPLERS[name], n, steps, int(seed))
        return {
            "sampler": name,
            **distances(x, reference, target, transport),
            "evaluations": report.evaluations / n,
            "least_ess": min(report.ess, default=1.0),
            "resampled": len(report.resampled),
        }

    settings = {"n": n, "steps": steps, "transport": transport}
    cases = [f"{name} #{seed}" for name in samplers for seed in range(runs)]
    return measure.resumed(out / "annealed_mixture.jsonl", settings, cases, run)


def summary(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each sampler: (mean, standard deviation over runs) of each metric, evaluations, least ESS, resamplings."""
    rows: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(record["sampler"] for record in records):
        own = [record for record in records if record["sampler"] == name]
        values = {metric: np.array([record[metric] for record in own]) for metric in METRICS}
        rows[name] = {
            "runs": len(own),
            "evaluations": own[0]["evaluations"],
            "least_ess": min(record["least_ess"] for record in own),
            "resampled": max(record["resampled"] for record in own),
            **{metric: (float(v.mean()), float(v.std(ddof=1)) if len(v) > 1 else None) for metric, v in values.items()},
        }
    return rows


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table, the rows of the paper first, and a note."""

    def cells(pairs: Sequence[tuple[float, float | None]]) -> list[str]:
        return [
            f"{mean:.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")
            for (mean, spread), digits in zip(pairs, METRICS.values(), strict=True)
        ]

    lines = ["| sampler | NFE per sample | total variation | W1 | W2 | MMD | energy W2 |", "| --- " * 7 + "|"]
    lines += [f"| {name} | 1000 | {' | '.join(cells(pairs))} |" for name, pairs in PUBLISHED.items()]
    for name, row in rows.items():
        lines.append(f"| {name} | {row['evaluations']:.0f} | {' | '.join(cells([row[m] for m in METRICS]))} |")
    return "\n".join([*lines, "", NOTE])


def main() -> None:
    """Prints the table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [EXACT, *SAMPLERS]
    parser.add_argument("--samplers", nargs="+", choices=names, default=names)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("-n", type=int, default=10_000, help="number of samples of a run")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--transport", type=int, default=2000, help="number of samples for W1 and W2")
    parser.add_argument("--json", action="store_true", help="print {sampler: {metric: [mean, deviation], ...}}")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/annealed_mixture"), help="folder of stored runs")
    options = parser.parse_args()
    records = compare(
        options.samplers,
        n=options.n,
        steps=options.steps,
        runs=options.runs,
        transport=options.transport,
        out=options.out,
    )
    rows = summary(records)
    print(json.dumps(rows, indent=2) if options.json else table(rows))


if __name__ == "__main__":
    main()
