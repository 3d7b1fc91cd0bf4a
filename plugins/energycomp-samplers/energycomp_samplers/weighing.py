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
from typing import TYPE_CHECKING

import attrs
import torch
from torch import Tensor

from energycomp.sampling import Level, Run, SamplingReport
from energycomp_samplers.chain import Chain
from energycomp_samplers.kernels import least_sum
from energycomp_samplers.particles import effective_sample_size, systematic, take

if TYPE_CHECKING:
    from energycomp_samplers.smc import SMC

# Beyond these the report warns; benchmarks/sampling/inverse.py compares samples with exact ones.
LEAST_SUM = 0.5  # of the weights, for moves without a test: the variance is then 14 % too large at 50 steps
FEW = 10.0  # ancestors of a swarm: with fewer, means were off by 0.1 to 0.8 standard deviations
UNSURE = 0.02  # standard error of a share: with as much, one in a hundred is off by more than 0.05
ALIKE = 0.9  # the effective sample size of evidences: below it, means were off by 0.04 to 2 standard deviations


@attrs.define(eq=False)
class Weighing:
    """The log weights of a run, and what the report says of them.

    Args:
        by_product: (G,), whether the weights of the product go on.
        ended: (G,), whether no weights are left.
        stopped: by group, the level at which the spread of its weights ended them.
        starts_far: whether weights of energies could not correct the start.
        is_constrained: by a constraint or an observation.
        independent: (G,), first particles when weights ended; 0 before.
    """

    options: SMC
    run: Run
    log_weights: Tensor
    by_product: Tensor = attrs.field(init=False)
    ended: Tensor = attrs.field(init=False)
    log_evidence: Tensor = attrs.field(init=False)
    ancestors: Tensor = attrs.field(init=False)
    independent: Tensor = attrs.field(init=False)
    ess: list[float] = attrs.field(factory=list)
    resampled: list[int] = attrs.field(factory=list)
    stopped: dict[int, Level] = attrs.field(factory=dict)
    starts_far: bool = False
    is_constrained: bool = False

    def __attrs_post_init__(self) -> None:
        groups, count = self.log_weights.shape
        device = self.log_weights.device
        self.by_product = torch.full((groups,), self.options.weights != "none", device=device)
        self.ended = torch.zeros(groups, dtype=torch.bool, device=device)
        self.log_evidence = self.log_weights.new_zeros(groups)
        self.independent = self.log_weights.new_zeros(groups)
        self.ancestors = torch.arange(count, device=device).expand(groups, count)

    @property
    def is_weighing(self) -> bool:
        """Whether the product weighs the particles of any group."""
        return bool(self.by_product.any())

    @property
    def copies(self) -> Tensor:
        """The groups (G,) whose particles are copies of the one that became their sample."""
        return self.ended if self.options.particles is not None else torch.zeros_like(self.ended)

    def resample(self, increment: Tensor | None, level: Level, constrained: Tensor | None = None) -> Tensor:
        """Adds the weights of a step, and of a constraint. Returns the places of the particles that stay, (G, P).

        All is decided for each group by itself, and as many numbers are drawn at each level whatever is decided, so
        that no sample depends on the others.
        """
        # Add: those of the product unless they are noise, those of a constraint always.
        if increment is not None:
            self._add(increment, level)
        weighs = self.by_product & ~self.ended
        if constrained is not None:
            self.is_constrained = True
            weighs = ~self.ended
            self.log_weights = self.log_weights + constrained
        # What the report says of this step.
        share = effective_sample_size(self.log_weights)
        if bool(weighs.any()):
            self.ess.append(float(share[weighs].mean()))
        # Resample where few particles have the weight of a group; end at clean samples, or where no weights are left.
        ends = ~self.ended & (~weighs | level.is_last)
        low = weighs & ~ends & (share < self.options.resample_below)
        places = self._draw_places(low, ends)
        if bool((low | ends).any()):
            self.resampled.append(level.step)
        # Equal weights from there on; their mean goes into the evidence.
        mean_weight = self.log_weights.logsumexp(dim=1) - math.log(self.log_weights.shape[1])
        self.log_evidence = self.log_evidence + mean_weight.masked_fill(~(low | ends), 0.0)
        self._end(ends)
        self.log_weights = self.log_weights.masked_fill(low[:, None], 0.0)
        self.ancestors = take(self.ancestors, places)
        return places

    def _add(self, increment: Tensor, level: Level) -> None:
        """Adds the weights of a step to each group, unless they are noise."""
        options = self.options
        # Only differences between particles matter; the mean goes into the evidence alone.
        mean = increment.mean(dim=1, keepdim=True)
        increment = increment - mean
        spread = increment.std(dim=1, correction=0)
        # The start: noise is far from the product, which no weight can correct.
        if options.weights == "energy" and level.step == 0:
            far = spread > options.max_spread
            self.starts_far = bool(far.any())
            increment = increment.masked_fill(far[:, None], 0.0)
            spread = spread.masked_fill(far, 0.0)
        # Weighing goes on down to a timestep, or as long as weights are no noise.
        if options.resample_above is not None:
            self.by_product = self.by_product & (level.timestep >= options.resample_above)
        else:
            noise = self.by_product & (spread > options.max_spread)
            self.by_product = self.by_product & ~noise
            self.stopped |= dict.fromkeys(noise.nonzero()[:, 0].tolist(), level)
        # Add, with a limit, so that no single step decides alone.
        kept = increment.clamp(-options.clamp, options.clamp)
        self.log_weights = self.log_weights + kept.masked_fill(~self.by_product[:, None], 0.0)
        self.log_evidence = self.log_evidence + mean.squeeze(1).masked_fill(~self.by_product, 0.0)

    def _draw_places(self, low: Tensor, ends: Tensor) -> Tensor:
        """The places of the particles that stay, (G, P), of groups (G,) that are resampled, and that end."""
        count = self.log_weights.shape[1]
        start = self.run.uniform((len(self.log_weights), 1))
        drawn = systematic(self.log_weights, count, start)
        # All of a swarm; or copies of the one particle that becomes the sample of its group
        last = drawn
        if self.options.particles is not None:
            last = systematic(self.log_weights, 1, start).expand(-1, count)
        places = torch.where(low[:, None], drawn, torch.arange(count, device=drawn.device))
        return torch.where(ends[:, None], last, places)

    def _end(self, ends: Tensor) -> None:
        """Groups (G,) whose weights end: how many first particles are left, by the share of each."""
        shares = torch.softmax(self.log_weights, dim=1)
        of_ancestor = torch.zeros_like(shares).scatter_add_(1, self.ancestors, shares)
        self.independent = torch.where(ends, 1.0 / of_ancestor.square().sum(dim=1), self.independent)
        self.ended = self.ended | ends
        self.by_product = self.by_product & ~ends

    def draw_one(self) -> Tensor:
        """The place of one particle of each group, by their weights, (G, 1)."""
        return systematic(self.log_weights, 1, self.run.uniform((len(self.log_weights), 1)))

    def share_error(self, samples: Tensor) -> float | None:
        """The largest standard error of a share of samples (n, ...) below a value; None of groups.

        It is that of sums over samples that descend from one first particle, which do not depend on the others (Lee and
        Whiteley, 2018): sum_a (sum_{A_p = a} (1[z_p < c] - share))^2 / n^2, at deciles c of each number.
        """
        groups, n = self.log_weights.shape
        if groups > 1 or n == 1 or self.options.particles is not None or not bool(self.ended.all()):
            return None
        flat = samples.flatten(1).double()
        most = 0.0
        for decile in range(1, 10):
            below = (flat < flat.quantile(decile / 10.0, dim=0)).double()
            of_ancestor = torch.zeros_like(flat).index_add_(0, self.ancestors[0], below - below.mean(0))
            most = max(most, float(of_ancestor.square().sum(0).max()))
        return most**0.5 / n

    def report(self, chain: Chain | None, share_error: float | None = None) -> SamplingReport:
        """What the weights and the moves say of the samples."""
        notes = self._note_stops()
        # Moves without a test, where these do not arrive
        is_untested = chain is not None and chain.options.acceptance is None and self.options.weights == "none"
        total = least_sum(self.run.target)
        if is_untested and total < LEAST_SUM:
            notes.append(
                f"the weights sum to {total:.3g}, for which moves without a test do not arrive at the density: samples "
                "are too far apart; use sampler='mala'"
            )
        notes += self._note_few() or self._note_unsure(share_error)
        return SamplingReport(
            ess=tuple(self.ess),
            resampled=tuple(self.resampled),
            ancestors=self._ancestors_left(),
            share_error=share_error,
            acceptance={} if chain is None else chain.acceptance,
            log_weights=tuple(map(tuple, self.log_weights.tolist())) if self.ess else (),
            notes=tuple(notes),
        )

    def _ancestors_left(self) -> float | None:
        return float(self.independent.mean()) if bool(self.ended.any()) else None

    def _note_stops(self) -> list[str]:
        """Weights that were left out, at the start or from some level on."""
        most = self.options.max_spread
        notes = []
        if self.starts_far:
            notes.append(
                "particles started from noise that is far from the product at the noisiest timestep: the log weights "
                f"for the difference had a standard deviation above {most:g} and were left out; use a noise "
                "schedule that ends nearer to noise"
            )
        early = [level for level in self.stopped.values() if level.alpha < 0.5]
        if early:
            first = min(early, key=lambda level: level.step)
            better = "use more steps" if first.step else "use SMC(weights='fkc') or sampler='mala'"
            groups = len(self.log_weights)
            of = f" of {len(early)} of {groups} samples" if groups > 1 else ""
            notes.append(
                f"particles{of} moved without weights from timestep {first.timestep:g} on, because the "
                f"log weights of one step had a standard deviation above {most:g}; {better}"
            )
        return notes

    def _note_unsure(self, error: float | None) -> list[str]:
        """Shares of samples that are less sure than those of as many independent ones."""
        n = self.log_weights.shape[1]
        if error is None or error <= max(UNSURE, 2.0 * (0.25 / n) ** 0.5):
            return []
        share = f"the share of samples on either side of a value, such as that of a mode, may be off by {2 * error:.2g}"
        left = f"all {n} samples descend from about {self._ancestors_left():.0f} of the particles"
        return [f"{share}, because {left}; use more particles or steps"]

    def _note_few(self) -> list[str]:
        """Samples that descend from few particles, or of which each has too few."""
        groups, count = self.log_weights.shape
        if self.options.particles is None:
            # One swarm: samples descend from its particles
            least = min(FEW, max(1.5, count / 5.0))  # of few particles, a few ancestors are many
            left = self._ancestors_left()
            if count == 1 or left is None or left >= least:
                return []
            few = f"all {count} samples descend from about {left:.1f} of the particles"
            return [f"the weights collapsed: {few}; use more particles or steps"]
        # A group for each sample: how much the weights of the groups differ
        share = float(effective_sample_size(self.log_evidence[None]))
        if not self.is_constrained or share >= ALIKE:
            return []
        few = f"{count} particles of each sample are too few for the constraint or the observation"
        worth = f"{groups} samples are worth {share * groups:.1f} of its distribution"
        return [f"the weights collapsed: {few}, and {worth}; use more particles, or one swarm (particles=None)"]
