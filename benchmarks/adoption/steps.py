"""How much narrower samples are than the data, by the steps of an adopted model.

python benchmarks/adoption/steps.py [-n 1000] [--std 0.25]

The network is ideal for normal data of one deviation. Prints the deviation of `n` samples of 16 numbers, for the usual
schedulers of bounded and of unbounded data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import energycomp
from benchmarks.common.options import parser

BETAS = ("linear", "scaled linear", "stable diffusion", "cosine")
STEPS = (50, 200, 500)


class Ideal(nn.Module):
    """E[eps | x] of N(0, std^2), where alphas_cumprod (T,) are known."""

    def __init__(self, alphas: Tensor, std: float) -> None:
        super().__init__()
        self.alphas, self.std = alphas, std

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha = self.alphas[t.round().long().clamp(0, len(self.alphas) - 1)][:, None]
        return (1 - alpha).sqrt() * x / (alpha * self.std**2 + 1 - alpha)


def main() -> None:
    """Prints the table."""
    options = parser(__doc__, n=(1000, "samples"), std=(0.25, "deviation of the data")).parse_args()
    torch.set_num_threads(1)
    print(f"| betas | scheduler | {' | '.join(f'{steps} steps' for steps in STEPS)} |")
    print(f"| --- | --- |{' --- |' * len(STEPS)}")
    for name in BETAS:
        alphas = energycomp.adopt(nn.Identity(), shape=(16,), process=name).denoiser.alphas_cumprod
        for data_range in ((-1.0, 1.0), None):
            model = energycomp.adopt(Ideal(alphas, options.std), shape=(16,), process=name, data_range=data_range)
            found = [
                energycomp.Composer(model()).sample(
                    options.n, num_inference_steps=steps, generator=0, output_type="latent", progress=False
                )
                for steps in STEPS
            ]
            deviations = " | ".join(f"{float(x.std()):.3f}" for x in found)
            print(
                f"| {name} | {model.defaults.scheduler} | {deviations} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
