"""Whether `forecast` says before sampling what happens: random products with exact samples.

python benchmarks/sampling/forecast.py [-n 120] [--seed 1] [--fit]

A product is p_1 ... p_K / u^(K - 1) of 2 to 4 mixtures of 1 to 3 modes over a Gaussian u, in 1 to 16 dimensions, whose
parts overlap from not at all to fully. It is a mixture itself, so that there are exact samples. Samples are wrong where
they are farther than 0.35 from these: the Wasserstein distance along random directions, in standard deviations (exact
ones have 0.07 for 256 samples, and 0.17 for 48). A product contradicts a part where half of its samples are where at
most 1 % of those of the part are.

Prints how often the default sampler, and `SMC(particles=64)`, are wrong; the area under the ROC curve (AUC) of the
forecast and its calibration error (5 bins of as many products); the same for the mean share of another seed, and the
AUC of the distance of the means of the parts, which need no forecast; and how often contradictions are named. `--fit`
prints the curve of the forecast, which is that of `--seed 0`; figures are of other seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from benchmarks.common.options import parser
from energycomp import Composer
from energycomp.components import Composable, Composition, NoisedSpace, cosine_schedule
from energycomp.components.space import log_snr
from energycomp_samplers import forecast
from energycomp_samplers.smc import SMC

FAR = 0.35  # standard deviations
DIMENSIONS = (1, 2, 4, 8, 16)
PARTS = (2, 2, 2, 3, 4)
DIRECTIONS = 24
BINS = 5
ALPHAS = cosine_schedule()
SAMPLERS: dict[str, tuple[Any, int]] = {"plain": (None, 256), "smc": (SMC(particles=64), 48)}


@attrs.frozen(eq=False, repr=False)
class Modes(Composable):
    """A mixture of M round Gaussians in D dimensions: shares (M,), means (M, D), variances (M,)."""

    shares: Tensor
    means: Tensor
    variances: Tensor
    name: str
    noised_space: NoisedSpace = attrs.field(init=False)
    unconditional = None

    @noised_space.default
    def _space(self) -> NoisedSpace:
        return NoisedSpace(ALPHAS, (self.means.shape[1],), "modes")

    def __repr__(self) -> str:
        return self.name

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """The noise prediction (B, D), in closed form."""
        a = torch.sigmoid(log_snr(ALPHAS, timestep)).to(sample)
        total, apart, logs = self._modes(sample, a)
        pull = (torch.softmax(logs, 1) / total)[..., None] * apart
        return (1 - a[:, None]).sqrt() * pull.sum(1)

    def log_density(self, z: Tensor) -> Tensor:
        """Of clean samples (B, D), up to a constant, (B,)."""
        return self._modes(z, torch.ones(len(z)).to(z))[2].logsumexp(1)

    def _modes(self, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Variances (B, M), offsets (B, M, D) and log densities (B, M) of the modes, for alpha_bar (B,)."""
        total = a[:, None] * self.variances.to(x) + 1 - a[:, None]
        apart = x[:, None] - a.sqrt()[:, None, None] * self.means.to(x)
        logs = self.shares.to(x).log() - apart.square().sum(2) / (2 * total) - x.shape[1] / 2 * total.log()
        return total, apart, logs


def product(seed: int) -> tuple[Composition, list[Modes], float]:
    """A random product, its parts, and the variance of u."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random, dtype=torch.float64)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    size, count = (values[int(5 * uniform())] for values in (DIMENSIONS, PARTS))
    wide = 1 + float(uniform())
    apart = 2.5 * uniform() ** 1.5  # of the centres of parts
    between = 1.5 * uniform()  # modes of a part
    narrow = wide * (0.25 + 0.7 * uniform())
    parts = []
    for name in "abcd"[:count]:
        modes = 1 + int(3 * uniform())
        means = (normal(1, size) * apart + normal(modes, size) * between) / size**0.5
        deviations = (narrow * (0.7 + 0.6 * uniform(modes))).clamp(max=0.97 * wide)
        shares = 0.2 + uniform(modes)
        parts.append(Modes(shares / shares.sum(), means, deviations.square(), name))
    u = Modes(torch.ones(1), torch.zeros(1, size), torch.tensor([wide**2]), "u")
    return sum(parts, Composition([])) - (count - 1) * u, parts, wide**2


def exact(parts: Sequence[Modes], wide: float, n: int, random: torch.Generator) -> Tensor:
    """Exact samples (n, D): each choice of a mode of every part makes one of the product."""
    size = parts[0].means.shape[1]
    logs = torch.zeros(1, dtype=torch.float64)
    precision = torch.full((1,), (1 - len(parts)) / wide, dtype=torch.float64)
    pull = torch.zeros(1, size, dtype=torch.float64)  # precision times mean
    for part in parts:
        own = part.shares.log() - size / 2 * part.variances.log() - part.means.square().sum(1) / (2 * part.variances)
        logs = (logs[:, None] + own).flatten()
        precision = (precision[:, None] + 1 / part.variances).flatten()
        pull = (pull[:, None] + part.means / part.variances[:, None]).flatten(0, 1)
    logs = logs + pull.square().sum(1) / (2 * precision) - size / 2 * precision.log()
    chosen = torch.multinomial(torch.softmax(logs, 0), n, replacement=True, generator=random)
    noise = torch.randn(n, size, generator=random, dtype=torch.float64) * precision[chosen, None].rsqrt()
    return (pull / precision[:, None])[chosen] + noise


def is_outside(parts: Sequence[Modes], wide: float, truth: Tensor, random: torch.Generator) -> bool:
    """Whether the product contradicts a part: half of its samples are where 1 % of those of the part are."""
    for part in parts:
        own = exact([part], wide, len(truth), random)
        if float(part.log_density(truth).median()) < float(part.log_density(own).quantile(0.01)):
            return True
    return False


def distance(x: Tensor, truth: Tensor, random: torch.Generator) -> float:
    """The Wasserstein distance of samples to exact ones along directions, in standard deviations, its mean."""
    directions = torch.randn(x.shape[1], DIRECTIONS, generator=random, dtype=torch.float64)
    wanted = (truth @ directions).sort(0).values
    found = (x.double() @ directions).sort(0).values
    places = ((torch.arange(len(found)) + 0.5) / len(found) * len(wanted)).long()
    return float(((wanted[places] - found).abs().mean(0) / wanted.std(0)).mean())


def measured(seed: int) -> dict[str, Any]:
    """What happens to one product, and what was forecast."""
    composition, parts, wide = product(seed)
    random = torch.Generator().manual_seed(seed)
    truth = exact(parts, wide, 4000, random)
    found: dict[str, Any] = {"forecast": forecast(composition, generator=seed)}
    for name, (sampler, n) in SAMPLERS.items():
        options: dict[str, Any] = {"generator": seed, "output_type": "latent", "progress": False}
        x = Composer(composition).sample(n, sampler=sampler, report=lambda _: None, **options)
        found[name] = distance(x, truth, random)
    found["outside"] = is_outside(parts, wide, truth, random)
    centres = torch.stack([part.shares @ part.means for part in parts])
    found["means"] = float(
        torch.cdist(centres, centres).max() / min(float(part.variances.min()) for part in parts) ** 0.5
    )
    return found


def area(score: Tensor, is_wrong: Tensor) -> float:
    """The area under the ROC curve: how often a wrong one has the higher score, ties by half.

    >>> area(torch.tensor([0.1, 0.4, 0.4]), torch.tensor([False, True, False]))
    0.75
    """
    gap = score[is_wrong][:, None] - score[~is_wrong]
    return float(((gap > 0).double() + 0.5 * (gap == 0).double()).mean())


def calibration_error(probability: Tensor, happened: Tensor) -> float:
    """The mean distance of probabilities to shares, in bins of as many.

    >>> calibration_error(torch.tensor([0.2, 0.2, 0.8, 0.8, 0.8]), torch.tensor([False, False, True, True, True]))
    0.2
    """
    order = probability.argsort()
    bins = [one for one in order.tensor_split(BINS) if len(one)]
    gaps = [len(one) * abs(float(probability[one].mean() - happened[one].double().mean())) for one in bins]
    return round(sum(gaps) / len(order), 6)


def fitted(spread: Tensor, is_right: Tensor) -> tuple[float, float]:
    """The middle and the slope of 1 / (1 + (spread / middle)^slope) of highest likelihood, by Newton's method."""
    design = torch.stack([torch.ones(len(spread)).double(), spread.double().log()], 1)
    w = torch.zeros(2).double()
    for _ in range(50):
        p = torch.sigmoid(design @ w)
        curved = design.T * (p * (1 - p)) @ design + 1e-3 * torch.eye(2)
        w = w + torch.linalg.solve(curved, design.T @ (is_right.double() - p) - 1e-3 * w)
    return math.exp(-float(w[0] / w[1])), -float(w[1])


def table_of_products(seeds: Sequence[int], usual: float) -> list[str]:
    """What was forecast and what happened, as lines; `usual` is the share of wrong ones that one would expect."""
    found = [measured(seed) for seed in seeds]
    said = [one["forecast"] for one in found]
    expected = torch.tensor([1 - (one.plain or 0.0) for one in said], dtype=torch.float64)
    is_wrong = {name: torch.tensor([one[name] > FAR for one in found]) for name in SAMPLERS}
    means = torch.tensor([one["means"] for one in found])
    outside = torch.tensor([one["outside"] for one in found])
    named = torch.tensor(["contradict" in one.verdict for one in said])
    left = torch.tensor([-one.ess for one in said])
    plain = is_wrong["plain"]
    by_smc = int(is_wrong["smc"].sum())
    hits, others = int((named & outside).sum()), int((named & ~outside).sum())
    return [
        f"{len(found)} products; wrong: {int(plain.sum())} by the default sampler, {by_smc} by SMC(particles=64)",
        "| expectation | AUC | calibration error |",
        "| --- | --- | --- |",
        f"| forecast | {area(expected, plain):.3f} | {calibration_error(expected, plain):.3f} |",
        f"| share of another seed | 0.500 | {abs(usual - float(plain.double().mean())):.3f} |",
        f"| distance of the means | {area(means, plain):.3f} | |",
        f"| `ess` of the forecast | {area(left, plain):.3f} | |",
        f"verdict right of {float(((expected > 0.5) == plain).double().mean()):.3f}",
        f"contradictions: {int(outside.sum())}; named {hits}, and of the others {others} of {int((~outside).sum())}",
    ]


def curve(seeds: Sequence[int]) -> str:
    """The middle and the slope of the forecast."""
    found = [measured(seed) for seed in seeds]
    disagreement = torch.tensor([one["forecast"].disagreement for one in found])
    middle, slope = fitted(disagreement, torch.tensor([one["plain"] <= FAR for one in found]))
    return f"MIDDLE = {middle:.3f}\nSLOPE = {slope:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    options = parser(
        __doc__, n=(120, "products"), seed=1, fit=False, usual=(0.43, "share of wrong products of another seed")
    ).parse_args(arguments)  # fmt: skip
    torch.set_num_threads(1)
    seeds = range(1000 * options.seed, 1000 * options.seed + options.n)
    if options.fit:
        print(curve(seeds))
    else:
        print("\n".join(table_of_products(seeds, options.usual)), flush=True)


if __name__ == "__main__":
    main()
