"""A constraint on a Gaussian beside the posterior in closed form, and what it costs.

python benchmarks/parts/constraint.py [-n 2000] [--repeats 10] [--steps 50] [--seed 0]

x is N(0, 1) in 4 numbers, and the constraint an observation y = a.x of their weighted sum, of variance 0.25, far from
the mean of y. The posterior is a Gaussian with the covariance (I + a a^T / 0.25)^-1. Prints one JSON line of each way:
exact samples of the posterior, `SMC(constraint=)`, and with its gradient. Deviations are those of mean and covariance,
the largest number of each, with the standard error of the mean over repeats; evaluations and calls of f are per sample.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.options import parser
from energycomp import Composer
from energycomp.sampling import SamplingReport
from energycomp.testing import Gaussian
from energycomp_samplers import constraint
from energycomp_samplers.smc import SMC

A, OBSERVED, VARIANCE = torch.tensor([1.0, -0.5, 0.5, 0.25]), 2.0, 0.25


def observation(x: Tensor) -> Tensor:
    """-log p(y | x) of samples (B, 1, 1, 4), up to a constant."""
    return (x.flatten(1) @ A - OBSERVED).square() / (2 * VARIANCE)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each way."""
    options = parser(
        __doc__, n=(2000, "samples, which are the particles"), repeats=10, steps=50, seed=0
    ).parse_args(arguments)  # fmt: skip
    covariance = torch.linalg.inv(torch.eye(4) + torch.outer(A, A) / VARIANCE)
    mean = covariance @ A * OBSERVED / VARIANCE
    ways = {
        "exact samples": None,
        "constraint": SMC(constraint=constraint(observation)),
        "constraint with gradient": SMC(constraint=constraint(observation, gradient=True)),
    }
    for name, sampler in ways.items():
        reports: list[SamplingReport] = []
        deviations = []
        for repeat in range(options.repeats):
            generator = torch.Generator().manual_seed(options.seed + repeat)
            x = mean + torch.randn(options.n, 4, generator=generator) @ torch.linalg.cholesky(covariance).T
            x = x if sampler is None else Composer(Gaussian(0.0, 1.0, sample_shape=(1, 1, 4))).sample(
                options.n, sampler=sampler, num_inference_steps=options.steps, generator=generator,
                output_type="pt", report=reports.append, progress=False,
            ).flatten(1)  # fmt: skip
            found = (x.mean(0) - mean).abs().max(), (torch.cov(x.T) - covariance).abs().max()
            deviations.append(list(map(float, found)))
        result: dict[str, Any] = {"way": name, "n": options.n, "steps": options.steps, "seed": options.seed}
        for what, each in zip(("mean", "covariance"), zip(*deviations, strict=True), strict=True):
            error = statistics.stdev(each) / len(each) ** 0.5
            result[f"deviation_of_{what}"] = [round(statistics.mean(each), 4), round(error, 4)]
        if sampler is None:
            print(json.dumps(result))
            continue
        result["least_ess"] = round(statistics.mean(min(report.ess, default=1.0) for report in reports), 3)
        result["evaluations"] = reports[0].evaluations / options.n
        result["calls_of_f"] = reports[0].constraint_calls / options.n
        print(json.dumps(result))


if __name__ == "__main__":
    main()
