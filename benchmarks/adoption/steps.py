"""How much narrower samples are than the data, by the steps of an adopted model.

python benchmarks/adoption/steps.py [--std 0.25]

Of normal data N(0, std^2) the ideal prediction is linear, so that the deviation of samples follows from step to step in
closed form: of DDIM, which are Euler steps in sigma, and of DDPM, with trailing timesteps and a last step to x0.

Notation: variable -> symbol
    a, n    signal and noise of the sample x = a x0 + n eps of a step; b, m those of the next step
    x0, eps     the ideal predictions, as multiples of x
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from benchmarks.common.options import parser
from energycomp_adopt import adopt

BETAS = ("linear", "scaled linear", "stable diffusion", "cosine")
STEPS = (50, 200, 500)


def deviations(alphas: Tensor, steps: int, std: float) -> tuple[float, float]:
    """Of samples of DDIM and of DDPM."""
    T = len(alphas)
    known = [float(alphas[round(T - k * T / steps) - 1]) for k in range(steps)]
    ddim, ddpm = 1.0, 1.0  # variances
    for alpha, following in zip(known, [*known[1:], 1.0], strict=True):
        a, n, b, m = (math.sqrt(max(each, 0.0)) for each in (alpha, 1 - alpha, following, 1 - following))
        total = (a * std) ** 2 + n**2
        x0, eps = a * std**2 / total, n / total
        ddim *= (b * x0 + m * eps) ** 2
        # The posterior of the next sample given x0 and x, with its smaller variance (Ho et al., 2020)
        beta = 1 - alpha / following
        mean = b * beta / n**2 * x0 + math.sqrt(alpha / following) * m**2 / n**2
        ddpm = ddpm * mean**2 + (m / n) ** 2 * beta
    return math.sqrt(ddim), math.sqrt(ddpm)


def main() -> None:
    """Prints the table."""
    options = parser(__doc__, std=(0.25, "deviation of the data")).parse_args()
    print(f"| betas | {' | '.join(f'{steps} steps, DDIM | DDPM' for steps in STEPS)} |")
    print(f"| --- |{' --- |' * 2 * len(STEPS)}")
    for name in BETAS:
        alphas = adopt(nn.Identity(), shape=(2,), process=name).denoiser.alphas_cumprod
        found = [each for steps in STEPS for each in deviations(alphas, steps, options.std)]
        print(f"| {name} | {' | '.join(f'{each:.3f}' for each in found)} |")


if __name__ == "__main__":
    main()
