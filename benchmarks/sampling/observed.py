"""Observations against quadrature: shares of modes, widths, and what samplers say of samples that miss.

python benchmarks/sampling/observed.py [-n 2000] [--seeds 3] [--steps 20 50 200]

The prior is N(0, 1) of one number, whose score is exact. Prints three tables:

    shares      P(z < 0) for operators that are not linear, by `SMC()`: the largest error over seeds, the standard error
                that the report says of it, and how many runs warned
    widths      the standard deviation of samples, divided by the true one, of y = 0.5 for A = 1, and how many runs
                warned
    misses      of z^3 = 0.5: the share of samples that miss y by more than four standard deviations of the noise, and
                the warning
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.options import parser
from energycomp import Composer
from energycomp.components import Gaussian
from energycomp.sampling import SamplingReport
from energycomp_samplers import observe
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.smc import SMC

PRIOR = Gaussian(0.0, 1.0, sample_shape=(1,))
WIDTHS = (0.3, 0.05, 0.005)
LEVELS = (20, 100, 500)


def kink(z: Tensor) -> Tensor:
    """Slope -1 below 0, and 5 above."""
    return torch.where(z < 0, -z, 5.0 * z)


CASES: list[tuple[str, Callable[[Tensor], Tensor], float, float]] = [
    *(("-z, 5 z = 1", kink, 1.0, std) for std in (0.005, 0.02, 0.05, 0.1)),
    *(("sin(3 z) = 0.5", lambda z: torch.sin(3.0 * z), 0.5, std) for std in (0.02, 0.1)),
    ("z^3 - 2 z = 0.5", lambda z: z**3 - 2.0 * z, 0.5, 0.02),
    ("z^3 = 0.5", lambda z: z**3, 0.5, 0.1),
]
SAMPLERS: dict[str, Any] = {
    "the default": None,
    "`Gauss()`": Gauss(),
    '`Gauss(last="draw")`': Gauss(last="draw"),
    '`SMC(last="mean")`': SMC(last="mean"),
    "`SMC()`": SMC(),
}


def share(f: Callable[[Tensor], Tensor], y: float, std: float) -> float:
    """P(z < 0) by quadrature."""
    z = torch.linspace(-6.0, 6.0, 1_200_001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2.0 - (y - f(z)).square() / (2.0 * std**2))
    return float(density[z < 0].sum() / density.sum())


def drawn(seen: Any, sampler: Any, n: int, steps: int, seed: int) -> tuple[Tensor, SamplingReport]:
    """Samples (n,) of the prior under an observation, and their report."""
    reports: list[SamplingReport] = []
    options: Any = {"output_type": "latent", "progress": False, "report": reports.append}
    x = Composer(PRIOR & seen).sample(n, sampler=sampler, num_inference_steps=steps, generator=seed, **options)
    return x.flatten(), reports[0]


def print_shares(n: int, seeds: int, steps: int) -> None:
    """The table of shares, at a number of steps."""
    print(f"\n| {steps} steps | std | exact | largest error | standard error | silent above 0.05 | warned |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, f, y, std in CASES:
        exact = share(f, y, std)
        runs = [drawn(observe(f, [y], std), SMC(), n, steps, seed) for seed in range(seeds)]
        errors = [abs(float((x < 0).double().mean()) - exact) for x, _ in runs]
        said = mean(report.share_error or 0.0 for _, report in runs)
        silent = sum(error > 0.05 and not run[1].warnings for error, run in zip(errors, runs, strict=True))
        warned = sum(bool(report.warnings) for _, report in runs)
        print(f"| {name} | {std} | {exact:.3f} | {max(errors):.3f} | {said:.3f} | {silent} | {warned} of {seeds} |")


def print_widths(n: int, seeds: int) -> None:
    """The table of widths: the range over seeds, with a * where a run warned."""
    print("\n| sampler | std | " + " | ".join(f"{steps} steps" for steps in LEVELS) + " |")
    print("| --- | --- |" + " --- |" * len(LEVELS))
    for label, sampler in SAMPLERS.items():
        for std in WIDTHS:
            cells = []
            for steps in LEVELS:
                seen = observe(torch.ones(1), [0.5], std)
                runs = [drawn(seen, sampler, n, steps, seed) for seed in range(seeds)]
                ratios = [float(x.std()) * (1.0 + 1.0 / std**2) ** 0.5 for x, _ in runs]
                star = "*" if any(report.warnings for _, report in runs) else ""
                cells.append(f"{min(ratios):.3f} to {max(ratios):.3f}{star}")
            print(f"| {label} | {std} | " + " | ".join(cells) + " |", flush=True)


def print_misses(n: int, steps: int) -> None:
    """The table of samples that miss y."""
    print(f"\n| sampler, {steps} steps | std | beyond 4 std | warning |\n| --- | --- | --- | --- |")
    for label, sampler in SAMPLERS.items():
        for std in (0.1, 0.03):
            x, report = drawn(observe(lambda z: z**3, [0.5], std), sampler, n, steps, 0)
            beyond = float(((x**3 - 0.5).abs() > 4.0 * std).double().mean())
            print(f"| {label} | {std} | {beyond:.4f} | {'; '.join(report.warnings)} |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    asked = parser(__doc__, n=(2000, "samples"), seeds=3, steps=[20, 50, 200])
    options = asked.parse_args(arguments)
    torch.set_num_threads(1)
    for steps in options.steps:
        print_shares(options.n, options.seeds, steps)
    print_widths(options.n, options.seeds)
    print_misses(options.n, 50)


if __name__ == "__main__":
    main()
