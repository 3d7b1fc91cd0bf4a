"""Negation by rejection: samples of the positive components, without those that show a negated one.

Notation: variable -> symbol
    samples         x, samples of u + sum_{w_i > 0} w_i (e_i - u) that another sampler draws
    bank            draws of noise eps at timesteps t, with weights lambda; the same for all samples
    base            e, the prediction over which b is measured: u + sum_{w_i > 0} min(w_i, 1) (e_i - u), or u

    lift_k(x) = mean over draws of lambda (|eps - e|^2 - |eps - e - (e_k - u)|^2)  for a negated component k
    x is drawn again where lift_k(x) > 0

The lift of Yu and Gao (2025, CompLift), as in `energycomp.rank`: weights above 1 describe the sampler and not the
image, and the weight of a negated component has no influence. x is rejected where b explains a part of the noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from energycomp.components import Composition, bounds, default_gamma
from energycomp.errors import CompositionError
from energycomp.fields import one_of, whole
from energycomp.inference import NoiseBank, draw_bank
from energycomp.plugins import object_of
from energycomp.sampling import Generator, Sampled, Sampler, SchedulerSampler, StepCallback, Target
from energycomp.seeds import as_generators
from energycomp_samplers.kernels import check_densities, sum_of_squares
from energycomp_samplers.residuals import Residuals, residuals

OVER = ("positive", "unconditional")
ROWS = 64  # noised samples in one batch of predictions


@attrs.frozen
class Rejection:
    """Samples of `a & ~b` that do not show b: those of `a` are drawn until the lift of b is not above 0.

    Costs the evaluations of the other sampler, and `draws` evaluations of every leaf and of u for each sample that is
    drawn. Without a negated component it is the other sampler.

    Args:
        sampler: name or object of the sampler of the positive components; the default one when left out.
        over: what b is measured over. "positive": the positive components, as in `energycomp.rank`; right for images
            with parts, in which b alone also explains parts that others asked for. "unconditional": u, right for
            components that are whole densities: samples are rejected where that of b is high compared with that of u.
            It does not evaluate the positive components, which may be a mixture without energies.
        draws: of noise, over which a lift is averaged.
        attempts: how often a sample is drawn at most. If it is always rejected, the one of least lift is returned, and
            the report warns.

    Raises:
        CompositionError: from `sample`, every sample was rejected, or see `energycomp_samplers.residuals`.

    >>> from energycomp import Composer
    >>> from energycomp.testing import Gaussian
    >>> u = Gaussian(0.0, 1.0, name="u", unconditional="self")
    >>> a, b = Gaussian(0.0, 1.0, "a", unconditional=u), Gaussian(1.0, 0.1, "b", unconditional=u)
    >>> x = Composer(a & ~b).sample(200, sampler=Rejection(), output_type="pt", generator=0, progress=False)
    >>> ((x > 0.7) & (x < 1.3)).any(), (x < 0.0).float().mean() > 0.5
    (tensor(False), tensor(True))
    """

    sampler: str | Sampler | None = None
    over: Literal["positive", "unconditional"] = attrs.field(default="positive", validator=one_of(OVER))
    draws: int = attrs.field(default=32, validator=whole(1))
    attempts: int = attrs.field(default=16, validator=whole(1))

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
        """n samples. Callbacks are called in every run of the other sampler, of those samples that are drawn again."""
        check_densities(target)
        own: Sampler = SchedulerSampler() if self.sampler is None else object_of("samplers", self.sampler)
        form, generator = residuals(target.composition), as_generators(generator)
        options: dict[str, Any] = {
            "num_inference_steps": num_inference_steps,
            "callback_on_step_end": callback_on_step_end,
            "progress": progress,
        }
        if form is None:
            return own.sample(target, n, generator=generator, **options)
        wanted = Target(form.wanted, target.mixed_precision)
        runs = [own.sample(wanted, n, generator=generator, **options)]
        judge = Judge.of(form, target, self, generator)  # after the first run, whose samples are those without `~b`
        samples, drawn = runs[0].samples.clone(), n
        lifts = judge.lifts(samples)
        while len(rest := (lifts > 0).any(1).nonzero()[:, 0].tolist()) and len(runs) < self.attempts:
            again = [generator[i] for i in rest] if isinstance(generator, list) else generator
            runs.append(own.sample(wanted, len(rest), generator=again, **options))
            found, drawn = judge.lifts(runs[-1].samples), drawn + len(rest)
            better = [j for j, i in enumerate(rest) if found[j].max() < lifts[i].max()]
            places = [rest[j] for j in better]
            samples[places], lifts[places] = runs[-1].samples[better], found[better]
        if len(rest) == n:
            raise CompositionError(
                f"got {drawn} samples of {form.wanted!r}, all of which show {_shown(form, lifts)}; expected some that "
                f"do not within attempts={self.attempts}; choose another composition, or more attempts"
            )
        notes = list(dict.fromkeys(note for run in runs for note in run.report.notes))
        if rest:
            notes.append(
                f"{len(rest)} of {n} samples show {_shown(form, lifts)} after {self.attempts} attempts each; use more "
                "attempts"
            )
        report = attrs.evolve(runs[0].report, drawn=drawn, kept=n - len(rest), notes=tuple(notes))
        return Sampled(samples, report)


def _shown(form: Residuals, lifts: Tensor) -> str:
    """The negated components that some of the samples show."""
    return " or ".join(repr(leaf) for leaf, lift in zip(form.negated, lifts.T, strict=True) if bool((lift > 0).any()))


@attrs.frozen(eq=False)
class Judge:
    """The lifts of the J negated components.

    Args:
        target: of the K leaves that are evaluated.
        weights: (1 + J, K) of the base, and of the base with each negated component.
        bank: the draws.
    """

    target: Target
    weights: Tensor
    bank: NoiseBank

    @classmethod
    def of(cls, form: Residuals, target: Target, options: Rejection, generator: Any) -> Judge:
        """With draws of one generator; of the seed 0 where every sample has a generator."""
        u, space = Composition.of(form.unconditional), target.noised_space
        asked: Mapping[Any, Any] = {}
        if options.over == "positive":  # without what guidance adds, or subtracts
            most = [(leaf, bounds(weight, space.sample_shape)[1]) for leaf, weight in form.positive.items()]
            asked = Composition([(leaf, min(weight, 1.0)) for leaf, weight in most if weight > 0]).terms
        base = sum((weight * (Composition.of(leaf) - u) for leaf, weight in asked.items()), u)
        compositions = [base, *(base + leaf - u for leaf in form.negated)]
        leaves = Composition([(leaf, 1.0) for leaf in (form.unconditional, *asked, *form.negated)])
        inner = Target(leaves, target.mixed_precision)
        bank = draw_bank(
            options.draws,
            space.sample_shape,
            space.alphas_cumprod,
            gamma=default_gamma(inner.prediction_type),
            generator=0 if isinstance(generator, list) else generator,
        )
        weights = [[one.terms.get(leaf, 0.0) for leaf in leaves.terms] for one in compositions]
        return cls(inner, torch.tensor(weights), bank)

    def lifts(self, samples: Tensor) -> Tensor:
        """The lift (B, J) of each negated component for samples (B, ...): it is shown where it is above 0."""
        space, count = self.target.noised_space, len(samples)
        seen = samples if space.value_range is None else samples.clamp(*space.value_range)
        total = torch.zeros(len(self.weights), count, dtype=torch.float64, device=samples.device)
        size = max(1, ROWS // count)
        for start in range(0, len(self.bank), size):
            part = self.bank[start : start + size]
            eps = part.noise.to(samples).repeat_interleave(count, dim=0)
            rows = part.timestep.to(samples).repeat_interleave(count)
            signal, sigma = space.levels(rows, samples.dtype)
            predictions = self.target.predict(
                signal * seen.repeat(len(part), *[1] * (seen.ndim - 1)) + sigma * eps, rows
            )
            composed = torch.einsum("jk,k...->j...", self.weights.to(samples), predictions)
            errors = sum_of_squares(eps - composed, eps[None]).unflatten(1, (len(part), count))
            total += torch.einsum("s,jsb->jb", part.weight.to(errors), errors)
        return ((total[0] - total[1:]) / len(self.bank)).T
