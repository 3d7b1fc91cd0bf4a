"""What a sampler is: it starts a run, takes its steps, and returns samples with a report. The loop is in `loop`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor

from energycomp.components import wide_type
from energycomp.sampling.target import Level, Target
from energycomp.seeds import draw_noise, seeded

STUCK = 0.1  # share of proposals that are accepted


@attrs.frozen(eq=False)
class Run:
    """What a sampler is given for one run: what is drawn, in how many steps, and the random numbers.

    Args:
        target: the composition at any noise level.
        n: the number of samples, at least 1.
        num_inference_steps: noise levels on the way. A sampler may choose others, see `Steps.levels`.
        generator: one, or a seed; or one per sample, which a sampler may refuse; None draws a fresh seed.

    >>> from energycomp.components import Gaussian
    >>> run = Run(Target(Gaussian()), 2, num_inference_steps=4, generator=0)
    >>> [level.timestep for level in run.levels], run.noise().shape
    ([999.0, 749.0, 499.0, 249.0], torch.Size([2, 1, 1, 1]))
    """

    target: Target
    n: int
    num_inference_steps: int
    generator: torch.Generator | list[torch.Generator] = attrs.field(converter=seeded)

    @property
    def levels(self) -> list[Level]:
        """N noise levels, from the noisiest timestep to clean samples: those of most samplers.

        Raises:
            InputError: more steps than the schedule has timesteps.
        """
        return self.target.levels(self.num_inference_steps)

    def noise(self, rows: tuple[int, ...] | None = None) -> Tensor:
        """Normal noise (*rows, *sample_shape); rows are (n,) when left out.

        Of a list of generators, each draws one of the first axis: the others do not change what it draws.
        """
        shape = (*((self.n,) if rows is None else rows), *self.target.noised_space.sample_shape)
        return draw_noise(shape, generator=self.generator, device=self.target.device)

    def uniform(self, rows: tuple[int, ...]) -> Tensor:
        """Uniform numbers in (0, 1), of shape `rows`, in the widest type of the device; see `noise`."""
        # Through the distribution function of the normal: uniform numbers of each sample's own generator
        normal = draw_noise(rows, generator=self.generator, device=self.target.device)
        return torch.special.ndtr(normal.to(wide_type(normal.device)))


@attrs.frozen
class SamplingReport:
    """What a run of a sampler cost, and whether it worked.

    Args:
        evaluations: as `count_rows` counts them; `Composer.sample` fills it in.
        ess: by weighted step, the effective sample size (sum w)^2 / sum w^2 as a share of the particles, in (0, 1];
            the mean over groups of particles. Empty without weights.
        resampled: steps (from 0) after which particles were resampled.
        ancestors: how many of the first particles the samples descend from, by their shares, 1 / sum share^2; the mean
            over groups of particles. None without weights.
        share_error: of samples under an observation that share particles, the standard error of the share of samples
            on either side of a value, such as that of a mode, the largest over values and numbers of a sample; None
            for others.
        is_drawn: whether samples are draws of what the last noise level leaves open; otherwise they are its mean.
        acceptance: share of the accepted proposals by timestep; empty without a Metropolis test.
        log_weights: of the particles before they were resampled for the last time, one tuple for each group.
        notes: what else the sampler warns of.
        drawn, kept: samples that were drawn, and those of the result, by a sampler that rejects some; None for others.
        constraint_calls: samples of which a constraint was evaluated.

    >>> SamplingReport(acceptance={500.0: 0.04}).warnings[0]
    'the chains did not move at 1 of 1 timesteps: less than 10% of the proposals were accepted; use smaller steps'
    >>> print(SamplingReport(evaluations=800, ess=(1.0, 0.4), resampled=(1,), ancestors=52.0))
    no reason to doubt the samples
    effective sample size: 0.40 to 1.00 of the particles, which were resampled after 1 of 2 steps
    ancestors: about 52 of the first particles
    evaluations: 800
    """

    evaluations: int = 0
    ess: tuple[float, ...] = ()
    resampled: tuple[int, ...] = ()
    ancestors: float | None = None
    share_error: float | None = None
    is_drawn: bool = False
    acceptance: Mapping[float, float] = attrs.field(factory=dict)
    log_weights: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()
    drawn: int | None = None
    kept: int | None = None
    constraint_calls: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """Reasons not to trust the samples, one sentence each; none does not mean that they are right."""
        reasons = list(self.notes)
        # Chains that hardly move do not reach the density
        still = [t for t, rate in self.acceptance.items() if rate < STUCK]
        if still:
            where = f"at {len(still)} of {len(self.acceptance)} timesteps"
            why = f"less than {STUCK:.0%} of the proposals were accepted"
            reasons.append(f"the chains did not move {where}: {why}; use smaller steps")
        return tuple(reasons)

    def __str__(self) -> str:
        """Whether to trust the samples, and why, one line each."""
        reasons = self.warnings
        lines = ["reasons to doubt the samples:" if reasons else "no reason to doubt the samples"]
        lines += [f"- {reason}" for reason in reasons]
        if self.ess:
            range_ = f"{min(self.ess):.2f} to {max(self.ess):.2f} of the particles"
            times = f"after {len(self.resampled)} of {len(self.ess)} steps"
            lines.append(f"effective sample size: {range_}, which were resampled {times}")
        if self.ancestors is not None:
            lines.append(f"ancestors: about {self.ancestors:.0f} of the first particles")
        if self.share_error is not None:
            lines.append(f"share of a mode: right within {2.0 * self.share_error:.2g}")
        if self.acceptance:
            rates = self.acceptance.values()
            lines.append(f"moves: {min(rates):.2f} to {max(rates):.2f} accepted")
        lines.append(f"evaluations: {self.evaluations:,}")
        return "\n".join(lines)


@attrs.frozen(eq=False)
class Sampled:
    """Samples (n, C, H, W) and the report of the run."""

    samples: Tensor
    report: SamplingReport = attrs.field(factory=SamplingReport)


class Steps(ABC):
    """The steps of one run. The loop shows the progress, calls callbacks back, and names the step of an error.

    `x` are samples (B, *sample_shape) on their way from noise to clean samples, which a callback may replace between
    two steps. B may differ from n until the end.
    """

    run: Run
    x: Tensor

    @property
    def levels(self) -> Iterable[Level]:
        """The noise levels at which steps are taken: `run.levels`, or a list of others, or a generator.

        The length of a list is that of the progress bar. A generator is asked for the next level after each step, and
        so may choose it by how the step went.
        """
        return self.run.levels

    @abstractmethod
    def step(self, level: Level, /) -> None:
        """Takes `x` from a noise level to the next one. Gradients are off."""

    def finish(self) -> Sampled:
        """The samples and the report of the run: after the last step, or after any, where a callback ended the run."""
        return Sampled(self.x)


@runtime_checkable
class Sampler(Protocol):
    """An algorithm that draws samples of a composition, step by step.

    Its options are the arguments of its constructor, all with default values. `energycomp_lab.checks.check_sampler`
    compares it with Gaussians and their products. `draw_samples` runs it.

    >>> from energycomp.components import Gaussian
    >>> from energycomp.sampling import draw_samples
    >>> class Jump(Steps):  # from noise to the prediction of x0
    ...     def __init__(self, run):
    ...         self.run, self.x = run, run.noise()
    ...
    ...     def step(self, level):
    ...         self.x = self.run.target.predict(self.x, level.rows(self.x), prediction_type="sample")
    >>> class InOneStep:
    ...     def start(self, run, /):
    ...         return Jump(run)
    >>> run = Run(Target(Gaussian(3.0, 0.01)), 2, num_inference_steps=1, generator=0)
    >>> draw_samples(InOneStep(), run, progress=False).samples.round(decimals=1).flatten()
    tensor([3., 3.])
    """

    def start(self, run: Run, /) -> Steps:
        """Checks what is asked for, and draws noise. A sampler that only changes the run starts another one."""
