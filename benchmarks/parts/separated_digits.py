"""Sums of digits, taken apart: how many, which, and whether 90 % intervals cover the true pixels and flux.

python benchmarks/parts/separated_digits.py [-n 20] [--seed 0] [--counts 2 3] [--most 3] [--noise 0.05]

Sources are the ten digits of scikit-learn, 8 x 8 pixels in [0, 1], each a Gaussian that 1,500 images fit: its score is
known. Sums are of the 297 other images, or of draws of the Gaussians themselves ("drawn"), for which the posterior is
exact. Any of the ten digits may be in a sum, one to three in all. Prints one JSON line for each count and kind of
sum: the mean over n sums, with half a 95 % interval. "rmse" is that of pixels, for sums whose count is right, beside
equal shares of the image.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from torch import Tensor

from benchmarks.common.options import parser
from energycomp.components import Composable, NoisedSpace, cosine_schedule
from energycomp.errors import EnergycompWarning
from energycomp_samplers import separate

SPACE = NoisedSpace(cosine_schedule(), (1, 8, 8), "digits", (-1.0, 1.0))
TRAINED = 1_500
LEAST = 0.01  # variance that is added to each pixel


@attrs.frozen(eq=False, repr=False)
class Digit(Composable):
    """N(mean (64,), covariance (64, 64)), of images in [-1, 1] unless another space is given."""

    name: str
    mean: Tensor
    covariance: Tensor
    noised_space: NoisedSpace = SPACE
    values: Tensor = attrs.field(init=False)
    vectors: Tensor = attrs.field(init=False)
    unconditional = None

    def __attrs_post_init__(self) -> None:
        values, vectors = torch.linalg.eigh(self.covariance)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "vectors", vectors)

    def __repr__(self) -> str:
        return self.name

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """In closed form, with the noise levels of each sample."""
        signal, noise = (level.double().reshape(-1, 1) for level in self.noised_space.levels(timestep))
        offset = (sample.flatten(1).double() - signal * self.mean) @ self.vectors
        white = offset / (signal.square() * self.values + noise.square())
        return (noise * white @ self.vectors.T).to(sample.dtype).reshape(sample.shape)

    def drawn(self, generator: torch.Generator) -> Tensor:
        """An image (1, 8, 8)."""
        noise = torch.randn(64, generator=generator, dtype=torch.float64)
        return (self.mean + self.vectors @ (self.values.sqrt() * noise)).reshape(1, 8, 8).float()


def fitted() -> tuple[list[Digit], Tensor, list[str]]:
    """The Gaussian of each digit, and the other images (297, 1, 8, 8), with their digits."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = torch.from_numpy(data.images[order] / 8.0 - 1.0)
    names = [str(label) for label in data.target[order]]
    digits = []
    for name in map(str, range(10)):
        own = images[:TRAINED][[one == name for one in names[:TRAINED]]].flatten(1)
        digits.append(Digit(name, own.mean(0), own.T.cov() + LEAST * torch.eye(64)))
    return digits, images[TRAINED:, None].float(), names[TRAINED:]


def flux(z: Tensor) -> Tensor:
    """The sum of the pixels, (B,)."""
    return z.flatten(1).sum(1)


def compared(found: Any, true: Tensor, image: Tensor) -> dict[str, float]:
    """Draws beside the true digits (K, 1, 8, 8), in the order in which they are most alike."""
    mean = found.mean
    _, order = linear_sum_assignment(torch.cdist(mean.flatten(1), true.flatten(1)).square().numpy())
    true = true[order]
    line = {}
    for name, f in (("pixels", None), ("flux", flux)):
        low, high = found.interval(0.9, f)
        value = true if f is None else f(true)
        line[f"coverage_{name}"] = float(((low <= value) & (value <= high)).float().mean())
    line["flux_error"] = float((flux(mean) / flux(true) - 1.0).abs().mean())
    line["rmse"] = float((mean - true).square().mean().sqrt())
    line["rmse_of_equal_shares"] = float((image / len(true) - true).square().mean().sqrt())
    return line


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each count and kind of sum."""
    options = parser(
        __doc__, n=(20, "sums"), seed=0, counts=([2, 3], "digits in a sum"), noise=(0.05, "standard deviation"),
        most=(3, "digits that a sum may have: 285 sets up to 3, 1,000 up to 4"),
        draws=(100, "particles"), steps=(2, "noise levels: of Gaussians, few are exact"),
        kinds=(["held-out", "drawn"], "of sums"),
    ).parse_args(arguments)  # fmt: skip
    digits, images, names = fitted()
    for kind in options.kinds:
        for count in options.counts:
            random = torch.Generator().manual_seed(options.seed)
            lines: list[dict[str, float]] = []
            begun = time.process_time()
            for k in range(options.n):
                chosen = torch.randint(len(images) if kind == "held-out" else 10, (count,), generator=random).tolist()
                labels = [names[index] if kind == "held-out" else str(index) for index in chosen]
                true = torch.stack([images[i] if kind == "held-out" else digits[i].drawn(random) for i in chosen])
                true = (true + 1.0) / 2.0
                image = true.sum(0) + options.noise * torch.randn(1, 8, 8, generator=random)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", EnergycompWarning)
                    found = separate(
                        image,
                        digits,
                        noise=options.noise,
                        count=(1, options.most),
                        covariances=[digit.covariance for digit in digits],
                        n=options.draws,
                        num_inference_steps=options.steps,
                        generator=k,
                        progress=False,
                    )
                line = {"count_right": float(found.count == count)}
                line["digits_right"] = float(sorted(found.explanations[0].names) == sorted(labels))
                lines.append(line | (compared(found, true, image) if found.count == count else {}))
            seconds = (time.process_time() - begun) / options.n
            print(
                json.dumps(
                    {"sums": kind, "digits": count, "n": options.n, **summary(lines), "cpu_seconds": round(seconds, 1)}
                ),
                flush=True,
            )


def summary(lines: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """The mean of each figure, and half its 95 % interval."""
    found = {}
    for name in dict.fromkeys(name for line in lines for name in line):
        values = np.array([line[name] for line in lines if name in line])
        half = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        found[name] = [round(float(values.mean()), 3), round(float(half), 3)]
    return found


if __name__ == "__main__":
    main()
