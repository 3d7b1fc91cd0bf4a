"""Separation: sources that add up in the data, y = sum_k A_k z_k + noise, with an unknown number of sources.

Notation: variable -> symbol
    x, z                noised and clean joint samples (x_1 ... x_K), (z_1 ... z_K); sources are independent a priori
    x0                  m(x) = (m_1 ... m_K), the predictions of each source
    covariance          C_t, block-diagonal; S_t = A C_t A' + R, see `energycomp_samplers.joint`
    kept, spread        c and b of the reverse kernel: x_s ~ N(mu(x_t, z), b I), whose mean has the slope c in z
    expected            m~(x_s) = m(x_t) + c C_t (b I + c^2 C_t)^-1 (x_s - mu(x_t, m(x_t)))

    psi_t(x) = N(y; A m(x), S_t) is p(y | x_t = x) where sources are Gaussian
    z ~ N(m, C_t) given y, then x_s ~ N(mu(x_t, z), b I), proposes from p(x_s | x_t) N(y; A m~(x_s), S_s) / psi_t(x_t)
    w = psi_s(x_s) / N(y; A m~(x_s), S_s) are the weights, which correct it

So particles are weighted by how much the prediction of the network differs from what its covariance foretold. For
Gaussian sources it does not: the weights are equal, samples are exact, and so is the evidence p(y | sources), the mean
weight. Otherwise both are right for many particles (twisted sequential Monte Carlo). One step from clean samples,
z is the sample. An operator that is not linear stands for the linear one that touches it at the most probable z of each
particle, and Metropolis tests make the last z a draw of the operator itself: see `energycomp_samplers.tangent`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.ledger import count_rows
from energycomp.components.per_sample import per_sample
from energycomp.errors import EnergycompWarning, InputError
from energycomp.progress import progress as shown
from energycomp.sampling import Level, Run, Sampled, Steps, Target, draw_samples
from energycomp.seeds import Generator, draw_noise, seeded
from energycomp_samplers.blend import Blend, check_size, list_sets, screen
from energycomp_samplers.evidence import Evidence
from energycomp_samplers.joint import Joint, log_density
from energycomp_samplers.kernels import clip
from energycomp_samplers.particles import systematic
from energycomp_samplers.separated import Explanation, Separation, align
from energycomp_samplers.smc import SMC
from energycomp_samplers.tangent import Tangent, linearise_at
from energycomp_samplers.weighing import Weighing

UNEXPLAINED = 5.0  # standard errors by which the residual may be larger than the noise


def separate(
    image: Any,
    sources: Sequence[Any],
    *,
    noise: float | Tensor,
    count: int | tuple[int, int] | Mapping[int, float] | None = None,
    repeats: bool = True,
    operators: Any = None,
    covariances: Any = None,
    n: int = 100,
    num_inference_steps: int = 50,
    generator: Generator = None,
    progress: bool = True,
) -> Separation:
    """Samples of the sources of an image that is their sum, and how many sources there are.

    The model is y = sum_k A_k(z_k) + N(0, noise^2), with independent sources z_k. Exact for Gaussian sources and linear
    A_k; for others weighted particles (SMC) correct the samples, and the report says how many are left. Costs n K
    network evaluations a step, for each set of sources that is tried, and once for each source 8 D for samples of
    D <= 32 numbers, else 16, which measure its covariance.

    Args:
        image: y, of one image, without a batch axis: (C, H, W), or any shape that the operators see. Sources of images
            are in [0, 1], so that y may exceed 1.
        sources: components, each a distribution of one source.
        noise: standard deviation of y, above 0: a number, or one for each number of y.
        count: None for each of `sources` once. A number, a range (1, 6), or probabilities {1: 0.3, 2: 0.7} of how many
            sources there are, 1 to 64: each is any one of `sources` then, with equal probability. Of more than 16 sets
            of sources, those are left out that Gaussians make e^30 times less probable than the best of as many.
        repeats: with a count, whether a source may occur more than once. Give False where each of `sources` has a
            place of its own, by its operator.
        operators: A_k: None where y shows sources as they are; a number that scales the brightness, a mask, `pool(k)`,
            `blur(kernel)`, a pair (A, A') of functions of batches, or one function of batches, which need not be
            linear: light in log units, dB or magnitudes adds up after it. One for all, or a list with one each.
        covariances: of clean samples: a number, one for each number of a sample, or a matrix (D, D), in the noised
            space, where images are in [-1, 1]. One for all, or a list; None has them measured.
        n: draws, and particles.
        num_inference_steps: noise levels on the way.

    Raises:
        InputError: no sources, shapes that do not fit, noise that is not above 0, numbers that are not finite, a count
            out of range, a pair (A, A') that is not linear, a source without a covariance, several sets of sources
            whose evidence takes too large a matrix, or more numbers than 4 GiB hold.

    >>> from energycomp.testing import Gaussian
    >>> dim, bright = Gaussian(1.0, 0.01, name="dim"), Gaussian(3.0, 0.04, name="bright")
    >>> how = {"noise": 0.1, "num_inference_steps": 10, "generator": 0, "progress": False}
    >>> found = separate(torch.full((1, 1, 1), 5.0), [dim, bright], n=500, **how)
    >>> found.names, found.mean.flatten().round(decimals=1)  # 1 + 0.01 / 0.06, 3 + 0.04 / 0.06
    (('dim', 'bright'), tensor([1.2000, 3.7000]))
    """
    if isinstance(generator, Sequence):
        raise InputError(f"got {len(generator)} generators; expected one, because draws are particles of one run")
    random = seeded(generator)
    # What is seen, and what is known of each source.
    blend = Blend.of(image, sources, noise, operators, covariances)
    # The sets of sources that may explain it, less those that are out of the question.
    tried = list_sets(len(blend.targets), count, repeats=repeats)
    check_size(blend, tried, n, num_inference_steps)
    tried = screen(blend, tried, blend.targets[0].levels(num_inference_steps)[0])
    # Every set of sources: samples, and the evidence of y.
    runs: list[_Tried] = []
    is_one = len(tried) == 1
    with count_rows() as spent:
        for kinds, prior in shown(tried, "separating", show=progress and not is_one):
            target = Target(per_sample([blend.targets[kind].composition for kind in kinds]))
            sampler = _Separating(blend, kinds, needs_evidence=not is_one)
            run = Run(target, n, num_inference_steps, random)
            sampled = draw_samples(sampler, run, progress=progress and is_one)
            runs.append(_Tried(kinds, prior, sampled, sampler.log_evidence))
    return _answer(blend, runs, is_exchangeable=count is not None and repeats, evaluations=spent.rows, random=random)


@attrs.frozen
class _Tried:
    """The run of one set of sources."""

    kinds: tuple[int, ...]
    prior: float
    sampled: Sampled
    log_evidence: float


@attrs.define(eq=False)
class _Separating:
    """The sampler of one set of sources, with the log evidence of y after the run."""

    blend: Blend
    kinds: Sequence[int]
    needs_evidence: bool = False
    log_evidence: float = math.nan

    def start(self, run: Run, /) -> _Particles:
        weighing = Weighing(SMC(), run, torch.zeros(1, run.n, dtype=torch.float64, device=run.target.device))
        return _Particles(self, run, run.noise((run.n, len(self.kinds))), self.blend.evidence(self.kinds), weighing)


@attrs.define(eq=False)
class _Particles(Steps):
    """Joint samples x (n, K, *shape)."""

    sampler: _Separating
    run: Run
    x: Tensor
    evidence: Evidence | Tangent
    weighing: Weighing
    expected: Tensor | None = None  # the predictions that the last step foretold, (n, K, *shape)
    last: Evidence | None = None  # the linear observation of the last step
    at: Tensor | None = None  # where it touched one that is not linear, (n, K, *shape)

    def step(self, level: Level, /) -> None:
        target = self.run.target
        covariance = self.sampler.blend.covariance(self.sampler.kinds, level)
        # Predict every source of every particle, in one batch.
        flat = self.x.flatten(0, 1)
        x0 = clip(target.compose(flat, level.rows(flat), prediction_type="sample"), target)
        x0 = x0.reshape(self.x.shape).double()
        # The linear observation that stands for y at each particle.
        linear, at = linearise_at(self.evidence, x0, covariance, self.at)
        # Weigh: by what the prediction says of y beyond what the last step foretold; at the start, by all of it.
        needed = self.sampler.needs_evidence
        increment = log_density(linear, x0, covariance, normalised=needed)
        if self.expected is not None and self.last is not None:
            increment = increment - log_density(self.last, self.expected, covariance, normalised=needed)
        # Resample, where few particles have the weight.
        places = self.weighing.resample(None, level, increment[None])[0]
        x = self.x[places].double()
        x0 = x0[places]
        if isinstance(self.evidence, Tangent) and at is not None:
            at = at[places]
            linear = self.evidence.at(at)
        self.last = linear
        self.at = at
        # Draw clean samples, under the observation.
        z = self._draw(linear, x0, covariance)
        if level.is_last and isinstance(self.evidence, Tangent):
            z = self.evidence.test_draws(z, linear, lambda: self._draw(linear, x0, covariance), self.run.uniform)
        # Step: the reverse kernel for these clean samples. The last step ends at them.
        self.x = level.mean(x, z).float()
        if level.is_last:
            return
        # Its variance b, and the slope c of its mean in z.
        b = level.beta * (1.0 - level.next_alpha) / (1.0 - level.alpha)
        c = level.next_alpha**0.5 * level.beta / (1.0 - level.alpha)
        self.x = self.x + b**0.5 * self.run.noise(tuple(x.shape[:2]))
        # Foretell the prediction there: m~ = m + c C (b I + c^2 C)^-1 (x_s - mu(x_t, m)), by the eigenvalues of C^-1.
        surprise = self.x - level.mean(x, x0)
        self.expected = x0 + covariance.apply(surprise, lambda precision: c / (b * precision + c**2))

    def _draw(self, linear: Evidence, x0: Tensor, covariance: Joint) -> Tensor:
        """Clean samples of N(x0, C), under a linear observation."""
        draw = covariance.root(self.run.noise(tuple(x0.shape[:2])).double())
        shape = (self.run.n, *self.evidence.y.shape[1:])
        error = draw_noise(shape, generator=self.run.generator, device=x0.device)
        return linear.condition(x0, covariance, draw, error)[0]  # type: ignore[arg-type]

    def finish(self) -> Sampled:
        self.sampler.log_evidence = float(self.weighing.log_evidence)
        return Sampled(self.x, self.weighing.report(None))


def _answer(
    blend: Blend, runs: Sequence[_Tried], *, is_exchangeable: bool, evaluations: int, random: torch.Generator
) -> Separation:
    # The posterior of the sets, and of the count.
    logs = torch.tensor([math.log(one.prior) + one.log_evidence for one in runs], dtype=torch.float64)
    posterior = torch.softmax(logs, dim=0).tolist()
    counts: dict[int, float] = {}
    for one, probability in zip(runs, posterior, strict=True):
        counts[len(one.kinds)] = counts.get(len(one.kinds), 0.0) + probability
    best = max(counts, key=lambda k: counts[k])
    # Draws of the most probable count, from each set by its probability.
    among = [index for index, one in enumerate(runs) if len(one.kinds) == best]
    n = len(runs[0].sampled.samples)
    places = systematic(logs[among][None], n, torch.rand(1, 1, generator=random))[0]
    samples = []
    kinds = []
    unexplained = []
    for place in places.unique().tolist():
        one = runs[among[place]]
        # As many of its draws as the set was chosen, none of them twice.
        chosen = torch.randperm(n, generator=random)[: int((places == place).sum())]
        draws = one.sampled.samples[chosen]
        samples.append(draws)
        kinds.append(torch.tensor(one.kinds, device=draws.device).expand(len(draws), -1))
        # What these draws do not explain: y - sum_k A_k z_k.
        evidence = blend.evidence(one.kinds)
        unexplained.append(evidence.y - evidence.f(draws))
    # Sources that could change places, in one order.
    z, kind = align(torch.cat(samples), torch.cat(kinds), is_exchangeable=is_exchangeable)
    # What to doubt: what the run of the most probable set says, and a residual that is larger than the noise.
    top = runs[max(among, key=lambda index: float(logs[index]))].sampled.report
    missed = torch.cat(unexplained)
    excess = float((missed.square() / blend.noise).mean()) - 1.0
    notes = list(top.warnings)
    if excess > UNEXPLAINED * (2.0 / missed[0].numel()) ** 0.5:
        notes.append(f"the squared residual is {1.0 + excess:.3g} times the noise: other sources, or more of them")
    for note in notes:
        warnings.warn(note, EnergycompWarning, stacklevel=3)
    # All sets that were tried. A density of y is in its own units, not in those of the noised space.
    names = [repr(target.composition) for target in blend.targets]
    units = missed[0].numel() * math.log(blend.scale)
    explanations = []
    for one, probability in zip(runs, posterior, strict=True):
        # The error of the log evidence, by the first particles that draws descend from (Lee and Whiteley, 2018)
        stderr = max(0.0, 1.0 / (one.sampled.report.ancestors or 1.0) - 1.0 / n) ** 0.5
        of_set = tuple(names[source] for source in one.kinds)
        explanations.append(Explanation(of_set, probability, one.log_evidence - units, stderr))
    # Samples in the scale of the data: images in [0, 1].
    return Separation(
        samples=z * blend.scale + (0.0 if blend.scale == 1.0 else 0.5),
        kinds=kind,
        names=tuple(names[int(one)] for one in kind.mode(dim=0).values),
        counts=dict(sorted(counts.items())),
        explanations=tuple(sorted(explanations, key=lambda one: -one.probability)),
        residual=missed.mean(0) * blend.scale,
        report=attrs.evolve(top, evaluations=evaluations),
        warnings=tuple(notes),
    )
