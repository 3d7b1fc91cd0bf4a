"""Whether samples of the default sampler are like the data."""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp import Composer
from energycomp.errors import EnergycompError
from energycomp_adopt.checks.case import Case, Finding, once

FAR = 3.0  # times the range of the data, or the distance to the nearest of them
STEPS = 20  # of samples that are drawn
DRAWN = 16  # how many are drawn, at least
MOST = 64  # and at most, of few numbers
EACH = 3  # of the evaluations that were asked for, one of the samples that are drawn in a second attempt
NEAREST = 64  # of the data, to which distances are measured: among more data the nearest one is nearer
OFF = 0.1  # of the variance, by how much the means may differ
NARROW, WIDE = math.log(0.6), math.log(1.3)  # ratios of standard deviations, in log: few steps make samples narrow
SURE = 4.0  # standard errors beyond that


@attrs.frozen
class Likeness:
    """How samples that were drawn compare with the data."""

    error: str = ""  # that the sampler raised
    beyond: float = math.inf  # the greatest number, in ranges of the data
    near: float = math.inf  # the distance to the nearest of `NEAREST` of the data, in distances between these
    off: float = math.inf  # |difference of the means|^2 as a share of the variance, less what is chance
    spread: float = math.inf  # the ratio of standard deviations
    limits: tuple[float, float, float] = (OFF, NARROW, WIDE)  # of `off`, and of the logarithm of `spread`

    @property
    def stays(self) -> bool:
        """Whether none leaves the data."""
        return max(self.beyond, self.near) < FAR

    @property
    def right(self) -> bool:
        """Whether the samples may be data: none leaves them, and mean and deviation are theirs."""
        most, narrow, wide = self.limits
        return self.stays and self.off < most and narrow < math.log(max(self.spread, 1e-9)) < wide

    def __str__(self) -> str:
        if self.error:
            return self.error
        return (
            f"{self.beyond:.2g} times the range, {self.near:.2g} the nearest distance, {self.spread:.2f} the "
            f"deviation, means differ by {math.sqrt(max(self.off, 0.0)):.2f} of it"
        )


def draw(case: Case, count: int, **scheduler: Any) -> Likeness:
    """Draws samples of values that the data have, and compares them with the data."""
    model = case.model
    index = torch.randperm(len(case.samples), generator=torch.Generator().manual_seed(0))
    if case.values is not None:
        leaf = model.leaf(case.values[index[torch.arange(count) % len(index)]])
    elif model.denoiser.null_trained:
        leaf = model.unconditional
    else:
        leaf = model.leaf(torch.zeros(1, dtype=torch.long))
    given: dict[str, Any] = {"num_inference_steps": STEPS, "generator": 0, "output_type": "latent", "progress": False}
    given["report"] = lambda _: None  # what strays is compared with the data below
    try:
        samples = Composer([leaf]).sample(count, **given, **scheduler)
    except EnergycompError as error:
        return Likeness(str(error))
    return compare(samples.cpu().flatten(1).double(), case.samples.flatten(1).double())


def compare(samples: Tensor, data: Tensor) -> Likeness:
    """Samples (G, D) beside data (N, D), of which some may be the same."""
    middle = (data.max() + data.min()) / 2
    reach = (data.max() - data.min()).clamp(min=1e-9) / 2
    beyond = float((samples - middle).abs().max() / reach)
    some = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:NEAREST]]
    distinct = some.unique(dim=0)
    apart = torch.cdist(distinct, distinct).fill_diagonal_(math.inf).amin(1).median().clamp(min=1e-9)
    near = float(torch.cdist(samples, some).amin(1).median() / apart)
    # Of means that are the same, |difference|^2 is chance: the trace of both covariances of the mean
    variance = data.var(0).sum().clamp(min=1e-12)
    expected = samples.var(0).sum() / len(samples) + variance / len(data)
    off = float(((samples.mean(0) - data.mean(0)).square().sum() - expected) / variance)
    spread = float((samples.var(0).sum() / variance).sqrt())
    # Standard errors by the number of directions in which the data vary
    centred = data - data.mean(0)
    square = (centred @ centred.T / (len(data) - 1)).square().sum()
    directions = float(variance**2 / square.clamp(min=1e-12))
    share = 1 / len(samples) + 1 / len(data)
    chance = SURE * math.sqrt(share / (2 * directions))
    limits = OFF + SURE * share * math.sqrt(2 / directions), NARROW - chance, WIDE + chance
    return Likeness("", beyond, near, off, spread, limits)


@once
def measure_samples(case: Case) -> Likeness:
    """Draws few samples where they are like the data, otherwise more."""
    few = draw(case, min(MOST, max(DRAWN, 256 // case.numbers)))
    return few if few.right else draw(case, min(2 * MOST, max(2 * DRAWN, case.evaluations // EACH)))


def check_samples(case: Case) -> Finding:
    """Samples are like the data."""
    likeness = measure_samples(case)
    change = ""
    if not likeness.right:
        others = ("EulerDiscreteScheduler", "DDPMScheduler")
        name = next(one for one in others if one != case.model.defaults.scheduler)
        is_cure = draw(case, MOST, scheduler=name).right
        change = f"scheduler={name!r}" if is_cure else "scheduler=, data_range=, or the data, which are others"
    expected = f"below {FAR:g} times, and the mean and deviation of the data"
    return Finding("drawn samples", f"{likeness}", expected, "wrong" if change else "ok", change)
