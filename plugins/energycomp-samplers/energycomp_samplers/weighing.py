"""The weights of the particles of a run: when they are resampled, and whether samples can be trusted.

Notation: variable -> symbol
    log_weights     log w, (G, P), since particles were resampled last
    ancestors       A_p, (G, P): the first particle that particle p descends from
    log_evidence    log Z, (G,): the product of the mean weights at each resampling, of the particles of each sample

A run of P particles has as many independent first particles as 1 / sum_a (sum_{A_p = a} w_p)^2. Where they are few,
means are not those of the density, whatever the effective sample size of one step (Lee and Whiteley, 2018).

Particles of each sample have a Z of their own, whose mean is right. Samples are drawn from each group alike, so that
they are biased where Z differs: by its effective sample size over groups.
"""

from __future__ import annotations

import math
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.sampling import Level, Run, SamplingReport
from energycomp_samplers.chain import Chain
from energycomp_samplers.kernels import least_sum
from energycomp_samplers.particles import effective_sample_size, systematic, taken

MAX_SPREAD = 3.0  # standard deviation of the weights of one step, in log: beyond it they are noise
LEAST_SUM = 0.5  # of the weights, for moves without a test: the variance is then 14 % too large at 50 steps
FEW = 10.0  # ancestors of a swarm: with fewer, means were off by 0.1 to 0.8 standard deviations
ALIKE = 0.9  # the effective sample size of evidences: below it, means were off by 0.04 to 2 standard deviations


@attrs.define(eq=False)
class Weighing:
    """The log weights of a run, and what the report says of them."""

    options: Any
    run: Run
    log_weights: Tensor
    is_weighing: bool = attrs.field(init=False)
    ess: list[float] = attrs.field(factory=list)
    resampled: list[int] = attrs.field(factory=list)
    stopped: Level | None = None  # where the spread of the weights ended them
    starts_far: bool = False  # whether weights of energies could not correct the start
    log_evidence: Tensor = attrs.field(init=False)
    ancestors: Tensor = attrs.field(init=False)
    is_constrained: bool = False  # by a constraint or an observation
    independent: float | None = None  # first particles, the mean over groups, when weights ended

    def __attrs_post_init__(self) -> None:
        groups, count = self.log_weights.shape
        self.is_weighing = self.options.weights != "none"
        self.log_evidence = self.log_weights.new_zeros(groups)
        self.ancestors = torch.arange(count, device=self.log_weights.device).expand(groups, count)

    def weighed(self, increment: Tensor | None, level: Level, constrained: Tensor | None = None) -> Tensor:
        """Adds the weights of a step, and of a constraint. Returns the places of the particles that stay, (G, P)."""
        # Add: those of the product unless they are noise, those of a constraint always.
        if increment is not None:
            self._add(increment, level)
        weighs = self.is_weighing or constrained is not None
        if constrained is not None:
            self.is_constrained = True
            self.log_weights = self.log_weights + constrained
        # What the report says of this step.
        if weighs:
            self.ess.append(float(effective_sample_size(self.log_weights).mean()))
        # End: at clean samples, or where the rest of the way is without weights.
        if not weighs or level.is_last:
            self.is_weighing = False
            return self._ended(level)
        # Drawn whether it is needed or not, so that the numbers of one sample do not depend on the others.
        count = self.log_weights.shape[1]
        drawn = self._drawn(count)
        # Resample where few particles have the weight of a group.
        low = effective_sample_size(self.log_weights) < self.options.resample_below
        if bool(low.any()):
            self.resampled.append(level.step)
        places = torch.where(low[:, None], drawn, torch.arange(count, device=drawn.device))
        self.ancestors = taken(self.ancestors, places)
        # Equal weights from there on; their mean goes into the evidence.
        self.log_evidence = self.log_evidence + self._mean_weight().masked_fill(~low, 0.0)
        self.log_weights = self.log_weights.masked_fill(low[:, None], 0.0)
        return places

    def drawn_one(self) -> Tensor:
        """The place of one particle of each group, by their weights, (G, 1)."""
        return self._drawn(1)

    def _drawn(self, count: int) -> Tensor:
        return systematic(self.log_weights, count, self.run.uniform((len(self.log_weights), 1)))

    def _ended(self, level: Level) -> Tensor:
        """Equal weights from here on; of the particles of one sample, one stays."""
        self.resampled.append(level.step)
        self.log_evidence = self.log_evidence + self._mean_weight()
        # The share of each first particle, by those that descend from it.
        shares = torch.softmax(self.log_weights, dim=1)
        of_ancestor = torch.zeros_like(shares).scatter_add_(1, self.ancestors, shares)
        self.independent = float((1.0 / of_ancestor.square().sum(dim=1)).mean())
        # Draw: all of a swarm, or the one particle that becomes the sample of its group.
        return self._drawn(self.log_weights.shape[1] if self.options.particles is None else 1)

    def _mean_weight(self) -> Tensor:
        """The log of the mean weight of each group, (G,)."""
        count: int = self.log_weights.shape[1]
        return self.log_weights.logsumexp(dim=1) - math.log(count)

    def _add(self, increment: Tensor, level: Level) -> None:
        """Adds the weights of a step, unless they are noise."""
        options = self.options
        # Only differences between particles matter; the mean goes into the evidence alone.
        mean = increment.mean(dim=1, keepdim=True)
        increment = increment - mean
        spread = float(increment.std(dim=1, correction=0).mean())
        # The start: noise is far from the product, which no weight can correct.
        if options.weights == "energy" and level.step == 0 and spread > MAX_SPREAD:
            self.starts_far = True
            increment = torch.zeros_like(increment)
            spread = 0.0
        # Weighing goes on down to a timestep, or as long as weights are no noise.
        least = options.resample_above
        self.is_weighing = spread <= MAX_SPREAD if least is None else level.timestep >= least
        if not self.is_weighing and least is None:
            self.stopped = level
        # Add, with a limit, so that no single step decides alone.
        if self.is_weighing:
            self.log_weights = self.log_weights + increment.clamp(-options.clamp, options.clamp)
            self.log_evidence = self.log_evidence + mean.squeeze(1)

    def report(self, chain: Chain | None) -> SamplingReport:
        # Weights that were left out, at the start or from some level on
        notes = []
        if self.starts_far:
            notes.append(
                "particles started from noise that is far from the product at the noisiest timestep: the log weights "
                f"for the difference had a standard deviation above {MAX_SPREAD:g} and were left out; use a noise "
                "schedule that ends nearer to noise"
            )
        if self.stopped is not None and self.stopped.alpha < 0.5:
            better = "use more steps" if self.stopped.step else "use SMC(weights='fkc') or sampler='mala'"
            notes.append(
                f"particles moved without weights from timestep {self.stopped.timestep:g} on, because the "
                f"log weights of one step had a standard deviation above {MAX_SPREAD:g}; {better}"
            )
        # Moves without a test, where these do not arrive
        is_untested = chain is not None and chain.options.acceptance is None and self.options.weights == "none"
        total = least_sum(self.run.target)
        if is_untested and total < LEAST_SUM:
            notes.append(
                f"the weights sum to {total:.3g}, for which moves without a test do not arrive at the density: samples "
                "are too far apart; use sampler='mala'"
            )
        # Few particles that are left
        notes += self._few()
        return SamplingReport(
            ess=tuple(self.ess),
            resampled=tuple(self.resampled),
            ancestors=self.independent,
            acceptance={} if chain is None else chain.acceptance,
            log_weights=tuple(map(tuple, self.log_weights.tolist())) if self.ess else (),
            notes=tuple(notes),
        )

    def _few(self) -> list[str]:
        """What to warn of where samples descend from few particles, or each sample has too few."""
        groups, count = self.log_weights.shape
        if self.options.particles is None:
            # One swarm: samples descend from its particles
            least = min(FEW, max(1.5, count / 5.0))  # of few particles, a few ancestors are many
            if count == 1 or self.independent is None or self.independent >= least:
                return []
            few = f"all {count} samples descend from about {self.independent:.1f} of the particles"
            return [f"the weights collapsed: {few}; use more particles or steps"]
        # A group for each sample: how much the weights of the groups differ
        share = float(effective_sample_size(self.log_evidence[None]))
        if not self.is_constrained or share >= ALIKE:
            return []
        few = f"{count} particles of each sample are too few for the constraint or the observation"
        worth = f"{groups} samples are worth {share * groups:.1f} of its distribution"
        return [f"the weights collapsed: {few}, and {worth}; use more particles, or one swarm (particles=None)"]
