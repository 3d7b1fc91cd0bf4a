"""Ways to sample a composition of two components in the plane: a line of `WAYS` each.

A way gets a `Problem` and returns the samples that it keeps. Those of the peers follow the schedule "peers".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from benchmarks.sampling.plane_densities import even_schedule, linear_schedule, plane
from benchmarks.sampling.plane_peers import Chain, WarmOr, lift
from energycomp import Composable, Composer
from energycomp.components import Gaussian, Mixture, NoisedSpace
from energycomp_samplers.mala import MALA, annealed_mala
from energycomp_samplers.mixture import MixtureSampler
from energycomp_samplers.smc import SMC

__all__ = ["SCHEDULES", "WAYS", "Counted", "Problem", "Way"]

STEPS, FINE = 50, 100
REFERENCE = 4.0  # variance of the Gaussian around the origin that lift compares with, wider than every component
SCHEDULES = {"peers": plane(linear_schedule(STEPS)), "even": plane(even_schedule(FINE))}


@attrs.define(eq=False)
class Counted(Composable):
    """A component that counts what it is asked for: a noise prediction or an energy of one sample is one evaluation."""

    component: Any
    rows: int = 0

    @property
    def noised_space(self) -> NoisedSpace:
        """Where its samples live."""
        space: NoisedSpace = self.component.noised_space
        return space

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Noise prediction (B, 2, 1, 1)."""
        self.rows += len(sample)
        eps: Tensor = self.component.eps(sample, timestep)
        return eps

    def energy(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """-log p_t, (B,)."""
        self.rows += len(sample)
        energy: Tensor = self.component.energy(sample, timestep)
        return energy


@attrs.frozen(eq=False)
class Problem:
    """The components of one task, n samples to draw, and the random numbers for it."""

    kind: str
    a: Any
    b: Any
    n: int
    generator: torch.Generator
    weights: tuple[float, float] = (0.5, 0.5)

    @property
    def composed(self) -> Any:
        """a + b, a | b or a - b / 2."""
        if self.kind == "summation":
            return Mixture([self.a, self.b], [math.log(weight) for weight in self.weights])
        return self.a + self.b if self.kind == "product" else self.a - 0.5 * self.b

    @property
    def as_published(self) -> Any:
        """The same, with the mixture of CompLift."""
        return WarmOr(self.a, self.b) if self.kind == "summation" else self.composed


def followed(problem: Problem, *, of: str = "composed", steps: int = STEPS, **options: Any) -> Tensor:
    """Samples (n, 2) of a composition of the problem by `Composer.sample`."""
    x = Composer(getattr(problem, of)).sample(
        problem.n,
        num_inference_steps=steps,
        generator=problem.generator,
        output_type="latent",
        progress=False,
        **options,
    )
    return x.flatten(1)


def chained(problem: Problem, kind: Literal["ULA", "MALA", "U-HMC", "HMC"]) -> Tensor:
    """Samples of a chain of the peers."""
    return Chain(kind).sample(problem.as_published, problem.n, problem.generator)


def lifted(problem: Problem) -> Tensor:
    """CompLift: reverse steps, and rejection by lift against 0.9 of the same prediction."""
    x = followed(problem, of="as_published", scheduler="ddpm")
    a, b = (lift(part, x, lambda _x, _t, eps: 0.9 * eps, problem.generator) for part in (problem.a, problem.b))
    kept = {"product": (a > 0) & (b > 0), "summation": (a > 0) | (b > 0), "negation": (a > 0) & (b <= 0)}
    return x[kept[problem.kind]]


def rejected(problem: Problem, **options: Any) -> Tensor:
    """Rejection by lift against a broad Gaussian: samples of a without b, or of the product that both explain."""
    broad = Gaussian(0.0, REFERENCE, sample_shape=(2, 1, 1), alphas_cumprod=problem.a.noised_space.alphas_cumprod)
    gain = partial(lift, reference=lambda x, t, _: broad.eps(x, t), generator=problem.generator)
    if problem.kind == "negation":
        x = followed(problem, of="a", **options)
        return x[gain(problem.b, x) <= 0]
    x = followed(problem, **options)
    return x[(gain(problem.a, x) > 0) & (gain(problem.b, x) > 0)]


@attrs.frozen
class Way:
    """How samples are drawn, for which kinds of tasks, and on which schedule."""

    draw: Callable[[Problem], Tensor]
    kinds: tuple[str, ...] = ("product", "summation", "negation")
    schedule: str = "even"


PRODUCT, SUMMATION, NEGATION = ("product",), ("summation",), ("negation",)
WAYS: dict[str, Way] = {
    "peers: reverse": Way(partial(followed, of="as_published", scheduler="ddpm"), schedule="peers"),
    **{
        f"peers: {kind}": Way(partial(chained, kind=kind), schedule="peers") for kind in ("ULA", "U-HMC", "MALA", "HMC")
    },
    "peers: lift": Way(lifted, schedule="peers"),
    "scheduler": Way(followed),
    "mixture": Way(partial(followed, sampler=MixtureSampler()), SUMMATION),
    "mixture, 100 steps": Way(partial(followed, sampler=MixtureSampler(), steps=FINE), SUMMATION),
    "rne": Way(partial(followed, sampler=SMC()), PRODUCT),
    "energy": Way(partial(followed, sampler=SMC(weights="energy")), (*PRODUCT, *SUMMATION)),
    "mala": Way(partial(followed, sampler=annealed_mala(test="energy")), (*PRODUCT, *SUMMATION)),
    "rne + mala": Way(partial(followed, sampler=SMC(moves=MALA(moves=2, test="energy"))), (*PRODUCT, *SUMMATION)),
    "lift": Way(rejected, NEGATION),
    "mala + lift": Way(partial(rejected, sampler=annealed_mala(test="energy")), PRODUCT),
}
