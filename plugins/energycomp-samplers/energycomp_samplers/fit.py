"""Whether samples fit what was observed: A(z) beside y, and the noise of y beside that of the last noise level."""

from __future__ import annotations

import torch
from torch import Tensor

from energycomp_samplers.evidence import Evidence
from energycomp_samplers.operators import AnyCovariance

FAR = 4.0  # standard deviations of the noise: 6 of 100,000 numbers are beyond
MOST = 0.01  # share of what is seen that may be beyond
UNEXPLAINED = 5.0  # standard errors by which the squared residual may be larger than the noise
NARROW = 0.05  # share of the variance that may be lost: 2.5 % of a standard deviation


def note_misses(evidence: Evidence, samples: Tensor, *, is_weighed: bool) -> list[str]:
    """A sentence where samples z (B, *shape) miss y by more than its noise."""
    # y - A(z) in standard deviations of the noise; a mask hides numbers, which have no residual
    with torch.no_grad():
        left = (evidence.y.to(samples) - evidence.f(samples)).double() / evidence.noise.to(samples).double().sqrt()
    left = left.flatten(1)
    left = left[:, (left != 0.0).any(0)]
    if left.numel() == 0:
        return []
    beyond = float((left.abs() > FAR).double().mean())
    excess = float(left.square().mean()) - 1.0
    if beyond <= MOST and excess <= UNEXPLAINED * (2.0 / left.shape[1]) ** 0.5:
        return []
    missed = (
        f"samples miss the observation: {beyond:.2g} of what is seen of them is more than {FAR:g} std from y, and the "
        f"squared residual is {1.0 + excess:.3g} times the noise"
    )
    better = "use more particles or steps" if is_weighed else "use sampler='smc'"
    return [f"{missed}; {better}, unless the components contradict y, or std is too small"]


def note_narrow(evidence: Evidence, samples: Tensor, covariance: AnyCovariance, *, is_weighed: bool) -> list[str]:
    """A sentence where samples that ended at a mean lack much of the variance C that y leaves at the last level."""
    # J C J' beside R, for each number that is seen: the mean of z given y lacks their harmonic sum
    random = torch.Generator().manual_seed(0)
    draw = covariance.root(torch.randn(samples.shape, generator=random).to(samples))
    seen = evidence.slope(samples, draw).double().square().mean(0)
    noise = evidence.noise.flatten().double().to(seen)
    share = (seen / (seen + noise))[seen > 0.0]
    if share.numel() == 0 or (lost := float(share.mean())) <= NARROW:
        return []
    better = "SMC(last='draw')" if is_weighed else "Gauss(last='draw')" if evidence.linear else "sampler='smc'"
    left = (lost / (1.0 - lost)) ** 0.5
    ended = f"samples ended at the mean of what the last noise level leaves open, which is {left:.2g} times std"
    near = f"they are too near to each other, about {(1.0 - lost) ** 0.5:.2g} of their distance in what is seen"
    return [f"{ended}: {near}; use {better}, or more steps"]
