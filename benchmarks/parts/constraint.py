"""Samples under a constraint on a Gaussian beside the posterior in closed form, and what it costs.

python benchmarks/parts/constraint.py [-n 2000] [--repeats 10] [--steps 50] [--seed 0]
python benchmarks/parts/constraint.py --steep [--repeats 10] [--dimensions 1 4 16] [--particles 0 16]

x is N(0, 1) in 4 numbers, and the constraint an observation y = a.x of their weighted sum, of variance 0.25, far from
the mean of y. The posterior is a Gaussian with the covariance (I + a a^T / 0.25)^-1. Prints one JSON line of each way:
exact samples of the posterior, `SMC(constraint=)`, and with its gradient. Deviations are those of mean and covariance,
the largest number of each, with the standard error of the mean over repeats; evaluations and calls of f are per sample.

--steep has constraints on the mean direction z of 1, 4 and 16 numbers N(0, 1): an observation of z (soft), 50 and 500
times the square of what z lacks to 1 (hinges), and z > 1 (hard). Mean and variance of z are known by an integral. There
is a JSON line for each constraint, with and without its gradient, in each dimension: for one swarm of n particles (0),
or that many particles of each of n / 5 samples. It has the deviations of mean and variance of z, each with the standard
error over repeats, the mean variance of the other directions (1 is right), and the share of the runs that warned. The
last line counts the lines whose mean and variance are within 3 standard errors, and those that are not though not
every run warned.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import warnings
from collections.abc import Callable, Sequence
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
STEEP: dict[str, Callable[[Tensor], Tensor]] = {  # of z, (B,)
    "soft": lambda z: (z - 0.8).square() / 2,
    "hinge 50": lambda z: 50 * (1 - z).clamp(min=0).square(),
    "hinge 500": lambda z: 500 * (1 - z).clamp(min=0).square(),
    "hard": lambda z: torch.where(z > 1, 0.0, torch.inf),
}
HAVE_GRADIENTS = ("soft", "hinge 50", "hinge 500")


def observation(x: Tensor) -> Tensor:
    """-log p(y | x) of samples (B, 1, 1, 4), up to a constant."""
    return (x.flatten(1) @ A - OBSERVED).square() / (2 * VARIANCE)


def along(x: Tensor) -> Tensor:
    """z, (B,), of samples (B, 1, 1, D): their sum over sqrt(D), which is N(0, 1)."""
    return x.flatten(1).sum(dim=1) / x[0].numel() ** 0.5


def moments(f: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    """Mean and variance of the density N(z; 0, 1) exp(-f(z)).

    >>> mean, variance = moments(STEEP["hard"])
    >>> round(mean, 3), round(variance, 3)
    (1.525, 0.199)
    """
    z = torch.linspace(-10, 10, 1_000_001, dtype=torch.float64)
    share = torch.softmax(-z.square() / 2 - f(z), dim=0)
    mean = float((share * z).sum())
    return mean, float((share * (z - mean).square()).sum())


def steep(options: argparse.Namespace) -> None:
    """Prints one JSON line for each constraint, gradient, dimension and number of particles, and the counts."""
    within = silent = lines = 0
    for name, gradient, dimension, particles in itertools.product(
        STEEP, (False, True), options.dimensions, options.particles
    ):
        if gradient and name not in HAVE_GRADIENTS:
            continue
        result = steep_case(name, gradient, dimension, particles, options)
        print(json.dumps(result), flush=True)
        lines += 1
        within += result["within"]
        silent += not result["within"] and result["warned"] < 1
    print(json.dumps({"lines": lines, "within_3_standard_errors": within, "wrong_without_a_warning": silent}))


def steep_case(
    name: str, gradient: bool, dimension: int, particles: int, options: argparse.Namespace
) -> dict[str, Any]:
    """What one constraint gives over the repeats; a swarm for 0 particles."""
    f = STEEP[name]
    sampler = SMC(constraint=constraint(lambda x: f(along(x)), gradient=gradient), particles=particles or None)
    composer = Composer(Gaussian(0.0, 1.0, sample_shape=(1, 1, dimension)))
    n = options.n // 5 if particles else options.n
    found: list[tuple[float, ...]] = []
    warned = 0
    for repeat in range(options.repeats):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            x = composer.sample(
                n, sampler=sampler, num_inference_steps=options.steps, generator=options.seed + repeat,
                output_type="pt", progress=False,
            )  # fmt: skip
        warned += bool(caught)
        z = along(x)
        others = (x.flatten(1).var(dim=0).sum() - z.var()) / max(dimension - 1, 1)
        found.append((float(z.mean()), float(z.var()), float(others)))
    means, variances, rest = zip(*found, strict=True)
    result: dict[str, Any] = {
        "constraint": name, "gradient": gradient, "dimension": dimension, "particles": particles, "n": n,
    }  # fmt: skip
    is_within = True
    for what, each, truth in zip(("mean", "variance"), (means, variances), moments(f), strict=True):
        error = statistics.stdev(each) / len(each) ** 0.5
        deviation = statistics.mean(each) - truth
        result[f"deviation_of_{what}"] = [round(deviation, 4), round(error, 4)]
        is_within = is_within and abs(deviation) <= 3 * error
    if dimension > 1:
        result["other_variance"] = round(statistics.mean(rest), 3)
    return {**result, "within": is_within, "warned": warned / options.repeats}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each way."""
    options = parser(
        __doc__, n=(2000, "samples, which are the particles"), repeats=10, steps=50, seed=0,
        steep=(False, "constraints that are steep or hard"), dimensions=[1, 4, 16],
        particles=([0, 16], "of each sample; 0 for one swarm"),
    ).parse_args(arguments)  # fmt: skip
    if options.steep:
        steep(options)
        return
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
