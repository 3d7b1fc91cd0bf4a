"""What a sampler is, and what it returns: samples, and a report of whether the run worked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import attrs
from torch import Tensor

from energycomp.sampling.sampler import StepCallback
from energycomp.sampling.target import Target
from energycomp.seeds import Generator

COLLAPSED = 0.1  # effective sample size, as a share of the particles
STUCK = 0.1  # share of proposals that are accepted


@attrs.frozen
class SamplingReport:
    """What a run of a sampler cost, and whether it worked.

    Args:
        evaluations: component evaluations: one is the prediction, or the energy, of one leaf for one particle.
        ess: by weighted step, the effective sample size (sum w)^2 / sum w^2 as a share of the particles, in (0, 1];
            the mean over groups of particles. Empty without weights.
        resampled: steps (from 0) after which particles were resampled.
        acceptance: share of the accepted proposals by timestep; empty without a Metropolis test.
        log_weights: of the particles before they were resampled for the last time, one tuple for each group.
        notes: what else the sampler warns of.
        drawn: samples that were drawn, by a sampler that rejects some of them; None for others.
        kept: samples of the result that were not rejected; None for other samplers.

    >>> SamplingReport(evaluations=300, ess=(0.9, 0.04)).warnings
    ('the weights collapsed: the effective sample size fell to 4% of the particles; use more particles or steps',)
    """

    evaluations: int
    ess: tuple[float, ...] = ()
    resampled: tuple[int, ...] = ()
    acceptance: Mapping[float, float] = attrs.field(factory=dict)
    log_weights: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()
    drawn: int | None = None
    kept: int | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the samples, one sentence each; none does not mean that they are right."""
        found = list(self.notes)
        if self.ess and min(self.ess) < COLLAPSED:
            found.append(
                f"the weights collapsed: the effective sample size fell to {min(self.ess):.0%} of the particles; use "
                "more particles or steps"
            )
        if still := [t for t, rate in self.acceptance.items() if rate < STUCK]:
            found.append(
                f"the chains did not move at {len(still)} of {len(self.acceptance)} timesteps: less than {STUCK:.0%} "
                "of the proposals were accepted; use smaller steps"
            )
        return tuple(found)


@attrs.frozen(eq=False)
class Sampled:
    """Samples (n, C, H, W) and the report of the run."""

    samples: Tensor
    report: SamplingReport


@runtime_checkable
class Sampler(Protocol):
    """An algorithm that draws samples of a composition.

    Its options are the arguments of its constructor, all with default values. `energycomp_lab.checks.check_sampler`
    compares it with Gaussians and their products; `exact=True` also with a product that the sum of the scores does not
    sample.
    """

    def sample(
        self,
        target: Target,
        n: int,
        *,
        num_inference_steps: int,
        generator: Generator = None,
        callback_on_step_end: StepCallback | None = None,
        progress: bool = True,
    ) -> Sampled:
        """n samples of the target. Gradients are off where it is called.

        Args:
            target: the composition at any noise level.
            n: at least 1.
            num_inference_steps: noise levels on the way.
            generator: one, or a seed; or one per sample, which the sampler may refuse; None draws a fresh seed.
            callback_on_step_end: called after every step.
            progress: whether to show a bar, see `energycomp.progress`.
        """
        ...
