"""Negation by rejection: samples of the positive components, without those that show a negated one.

Notation: variable -> symbol
    samples         x, samples of u + sum_{w_i > 0} w_i (e_i - u) that another sampler draws
    bank            draws of noise eps at timesteps t, with weights lambda; the same for all samples
    base            e, the prediction over which b is measured: u + sum_{w_i > 0} min(w_i, 1) (e_i - u), or u

    lift_k(x) = mean over draws of lambda (|eps - e|^2 - |eps - e - (e_k - u)|^2)  for a negated component k
    x is drawn again where lift_k(x) > 0

The lift of Yu and Gao (2025, CompLift), as in `energycomp_samplers.rank`: weights above 1 describe the sampler and not
the image, and the weight of a negated component has no influence. x is rejected where b explains a part of the noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from energycomp.components import Composition, bounds, default_gamma
from energycomp.errors import CompositionError
from energycomp.fields import one_of, whole
from energycomp.inference import NoiseBank, draw_bank
from energycomp.plugins import object_of
from energycomp.sampling import Level, Run, Sampled, Sampler, SamplingReport, SchedulerSampler, Steps, Target
from energycomp_samplers.kernels import check_densities, sum_of_squares
from energycomp_samplers.residuals import Residuals, residuals

ROWS = 64  # noised samples in one batch of predictions


@attrs.frozen
class Rejection:
    """Samples of `a & ~b` that do not show b: those of `a` are drawn until the lift of b is not above 0.

    Costs the evaluations of the other sampler, and `draws` evaluations of every leaf and of u for each sample that is
    drawn. Without a negated component it is the other sampler.

    Args:
        sampler: name or object of the sampler of the positive components; the default one when left out.
        over: what b is measured over. "positive": the positive components, right for images with parts, in which b
            alone also explains parts that others asked for. "unconditional": u, right for components that are whole
            densities, and for positive components that are a mixture without energies.
        draws: of noise, over which a lift is averaged.
        attempts: how often a sample is drawn at most. If it is always rejected, the one of least lift is returned, and
            the report warns.

    Raises:
        CompositionError: every sample was rejected, or see `energycomp_samplers.residuals`.
    """

    sampler: str | Sampler | None = None
    over: Literal["positive", "unconditional"] = attrs.field(
        default="positive", validator=one_of(("positive", "unconditional"))
    )
    draws: int = attrs.field(default=32, validator=whole(1))
    attempts: int = attrs.field(default=16, validator=whole(1))

    def start(self, run: Run, /) -> Steps:
        check_densities(run.target)
        other: Sampler = SchedulerSampler() if self.sampler is None else object_of("samplers", self.sampler)
        # Without a negated component nothing is rejected
        form = residuals(run.target.composition)
        if form is None:
            return other.start(run)
        # The other sampler draws what is asked for, and is not told of the negated components
        wanted = attrs.evolve(run, target=Target(form.wanted, run.target.mixed_precision))
        return _Attempts(self, form, run, wanted, other, other.start(wanted))


@attrs.define(eq=False)
class _Attempts(Steps):
    """Samples of the wanted components, `rest` the places of those that show a negated one and are drawn again."""

    options: Rejection
    form: Residuals
    run: Run
    wanted: Run
    other: Sampler
    steps: Steps
    judge: Judge | None = None
    samples: Tensor | None = None
    lifts: Tensor = attrs.field(init=False)
    rest: Tensor = attrs.field(init=False)
    drawn: int = 0
    reports: list[SamplingReport] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.rest = torch.arange(self.run.n, device=self.x.device)
        self.lifts = torch.full((self.run.n, len(self.form.negated)), torch.inf, dtype=torch.float64).to(self.x.device)

    @property
    def x(self) -> Tensor:
        return self.steps.x

    @x.setter
    def x(self, x: Tensor) -> None:
        self.steps.x = x

    @property
    def levels(self) -> Iterator[Level]:
        while True:
            # The levels of one attempt
            yield from self.steps.levels
            # Another one for the samples that show a negated component, as long as attempts are left
            self._keep()
            if not len(self.rest) or len(self.reports) == self.options.attempts:
                return
            # Each sample keeps its generator
            generator = self.run.generator
            if isinstance(generator, list):
                generator = [generator[place] for place in self.rest.tolist()]
            self.steps = self.other.start(attrs.evolve(self.wanted, n=len(self.rest), generator=generator))

    def step(self, level: Level, /) -> None:
        self.steps.step(level)

    def _keep(self) -> None:
        """Judges the samples of an attempt, and keeps those of less lift than before."""
        attempt = self.steps.finish()
        self.reports.append(attempt.report)
        self.drawn += len(attempt.samples)
        if self.judge is None or self.samples is None:
            # After the first attempt, whose samples are those of a composition without negated components.
            self.judge = Judge.of(self.form, self.run.target, self.options, self.run.generator)
            self.samples = attempt.samples.clone()
        # Keep those in which the negated components explain less
        lifts = self.judge.lifts(attempt.samples)
        better = lifts.amax(1) < self.lifts[self.rest].amax(1)
        places = self.rest[better]
        self.samples[places] = attempt.samples[better]
        self.lifts[places] = lifts[better]
        # Those that still show one are drawn again
        self.rest = (self.lifts > 0).any(1).nonzero()[:, 0]

    def finish(self) -> Sampled:
        if self.samples is None:  # ended by a callback
            return self.steps.finish()
        n = self.run.n
        rejected = len(self.rest)
        is_shown = (self.lifts > 0).any(0).tolist()
        shown = " or ".join(repr(leaf) for leaf, own in zip(self.form.negated, is_shown, strict=True) if own)
        if rejected == n:
            raise CompositionError(
                f"got {self.drawn} samples of {self.form.wanted!r}, all of which show {shown}; expected some "
                f"that do not within attempts={self.options.attempts}; choose another composition, or more attempts"
            )
        # What the attempts said, each once, and how many samples are left that show one
        notes = dict.fromkeys(note for report in self.reports for note in report.notes)
        if rejected:
            left = f"{rejected} of {n} samples show {shown} after {self.options.attempts} attempts each"
            notes[f"{left}; use more attempts"] = None
        report = attrs.evolve(self.reports[0], drawn=self.drawn, kept=n - rejected, notes=tuple(notes))
        return Sampled(self.samples, report)


@attrs.frozen(eq=False)
class Judge:
    """The lifts of J negated components; weights (1 + J, K) of the base, and of the base with each of them."""

    target: Target
    weights: Tensor
    bank: NoiseBank

    @classmethod
    def of(cls, form: Residuals, target: Target, options: Rejection, generator: Any) -> Judge:
        """With draws of one generator; of the seed 0 where every sample has a generator."""
        space = target.noised_space
        u = Composition.of(form.unconditional)
        # e = u + sum_i min(w_i, 1) (e_i - u): positive components without what guidance adds, or subtracts
        asked = {}
        if options.over == "positive":
            most = {leaf: bounds(weight, space.sample_shape)[1] for leaf, weight in form.positive.items()}
            asked = {leaf: min(weight, 1.0) for leaf, weight in most.items() if weight > 0}
        base = sum((weight * (Composition.of(leaf) - u) for leaf, weight in asked.items()), u)
        # The weights of all leaves in the base, and in the base with each negated component.
        compositions = [base, *(base + leaf - u for leaf in form.negated)]
        leaves = Composition([(leaf, 1.0) for leaf in (form.unconditional, *asked, *form.negated)])
        weights = [[one.terms.get(leaf, 0.0) for leaf in leaves.terms] for one in compositions]
        inner = Target(leaves, target.mixed_precision)
        # The same draws of noise for all samples, so that their lifts can be compared.
        bank = draw_bank(
            options.draws,
            space.sample_shape,
            space.alphas_cumprod,
            gamma=default_gamma(inner.prediction_type),
            generator=0 if isinstance(generator, list) else generator,
        )
        return cls(inner, torch.tensor(weights), bank)

    def lifts(self, samples: Tensor) -> Tensor:
        """The lift (B, J) of each negated component for samples (B, ...): it is shown where it is above 0."""
        space = self.target.noised_space
        count = len(samples)
        clean = samples if space.value_range is None else samples.clamp(*space.value_range)
        total = torch.zeros(len(self.weights), count, dtype=torch.float64, device=samples.device)
        size = max(1, ROWS // count)  # draws in one batch
        for start in range(0, len(self.bank), size):
            draws = self.bank[start : start + size]
            # Noise every sample by each draw.
            eps = draws.noise.to(samples).repeat_interleave(count, dim=0)
            rows = draws.timestep.to(samples).repeat_interleave(count)
            signal, sigma = space.levels(rows, samples.dtype)
            noised = signal * clean.repeat(len(draws), *[1] * (clean.ndim - 1)) + sigma * eps
            # Predict by all leaves in one batch, and compose the base, and the base with each negated component.
            predictions = self.target.predict(noised, rows)
            composed = torch.einsum("jk,k...->j...", self.weights.to(samples), predictions)
            # Sum the weighted errors of the draws.
            errors = sum_of_squares(eps - composed, eps[None]).unflatten(1, (len(draws), count))
            total += torch.einsum("s,jsb->jb", draws.weight.to(errors), errors)
        # lift_k: the error of the base less that with the negated component k.
        return ((total[0] - total[1:]) / len(self.bank)).T
