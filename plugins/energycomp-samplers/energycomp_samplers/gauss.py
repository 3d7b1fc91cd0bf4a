"""Products by Tweedie's second formula: components count by how sure they are, with a covariance each.

It is kept constant, see `energycomp_samplers.spread`, or is that of each sample: `energycomp_samplers.second_order`.

The noised product p(z | x) is proportional to prod_i p_i(z | x)^b_i N(x; sqrt(alpha_bar) z, (1 - alpha_bar) I)^(1 - B).
With Gaussians N(m_i, C_i) for p_i(z | x) it is one, N(m, C). This is GAUSS of Linhart et al. (2024), with exact steps.

Notation: variable -> symbol
    x, z            a noised sample, and a draw of its clean sample
    x0, mean        m_i, the predictions of the leaves, and m
    b, total        the weights b_i, and their sum B
    P, ratio        precisions P_i of clean samples, and alpha_bar / (1 - alpha_bar): see `energycomp_samplers.spread`
    alpha, next_alpha   alpha_bar_t, alpha_bar_s of a step from t to s

    C^-1 = sum_i b_i C_i^-1 + (1 - B) ratio I = ratio I + sum_i b_i P_i
    m = C (sum_i b_i (ratio I + P_i) m_i + (1 - B) sqrt(alpha_bar) / (1 - alpha_bar) x)
    z ~ N(m, C), conditioned on observations: see `energycomp_samplers.observation`
    y ~ N(mu(x, z), beta (1 - alpha_bar_s) / (1 - alpha_bar_t) I), the reverse kernel for the clean sample z

For Gaussians every step is exact, however few there are. Where C is small beside the noise, m is the sum of the
predictions: at little noise the two samplers do the same.
"""

from __future__ import annotations

from typing import Literal

import attrs
import torch
from torch import Tensor

from energycomp.fields import number, one_of, whole
from energycomp.sampling import Level, Run, Sampled, SamplingReport, Steps
from energycomp.seeds import draw_noise
from energycomp_samplers.chain import MOVES, Chain, Density, Moves
from energycomp_samplers.evidence import Evidence
from energycomp_samplers.jumps import jump
from energycomp_samplers.kernels import check_densities, clip, weighted_sum
from energycomp_samplers.observation import (
    evidence_of,
    given_variance,
    observed_spreads,
    stationary_of,
    without_observations,
)
from energycomp_samplers.operators import AnyCovariance
from energycomp_samplers.second_order import Product, second_order
from energycomp_samplers.spread import MOST, Spread, ratio_of

FOLLOWS = "samples follow the sum of the predictions; use sampler='smc'"
NO_GAUSSIAN = (
    "the precisions of the components do not add up to that of a Gaussian, because negated components are surer than "
    "the others"
)
NOISY = 0.02  # alpha_bar at the first level, above which samples do not begin as noise alone
NEWTON = 4  # steps to the mean of clean samples, one evaluation of each leaf each
LEAST = 4  # samples for each number, from which on they jump
WIDE = 0.01  # of the precision of the noise: the least of clean samples that begin a run


@attrs.frozen
class Gauss:
    """Second-order products, and observations. Exact for Gaussians; costs what plain sampling costs.

    One evaluation per leaf, sample and step, 8 more for jumps, and once those that measure the covariance of each leaf:
    8 D for samples of D <= 32 numbers, else 16; none where an observation gives the variance. The mean m stays within
    five standard deviations of the range of the predictions. Where the product is no Gaussian it is their sum, as the
    report notes.

    Args:
        last: "mean" ends at the mean of the clean sample, as DDPM does; "draw" at a draw of it, whose noise is that of
            the last noise level: right for intervals, and visible in images of few steps.
        covariance: "constant" is measured once for each leaf; "jacobian" at each sample and step, at 2 D evaluations
            more per leaf, for samples of at most 32 numbers: for components of several modes, or in a box.
        moves: `MALA`, `HMC` or `Langevin` at each noise level, for components that are curved or have several modes.
        jumps: of each sample, once, to where others are, see `energycomp_samplers.jumps`, at 8 evaluations of each leaf
            and sample: at most 32 numbers, 4 samples for each, one generator, and no operator that is not linear.
        jump_noise: the noise at which they jump, in the least deviation of the samples. Less noise has sharper modes
            apart; more makes less of the error of a network (`benchmarks/sampling/inverse.py`).
    """

    last: Literal["mean", "draw"] = attrs.field(default="mean", validator=one_of(("mean", "draw")))
    covariance: Literal["constant", "jacobian"] = attrs.field(
        default="constant", validator=one_of(("constant", "jacobian"))
    )
    moves: Moves | None = attrs.field(default=None, validator=attrs.validators.optional(MOVES))
    jumps: int = attrs.field(default=1, validator=whole(0))
    jump_noise: float = attrs.field(default=0.2, validator=number())

    def start(self, run: Run, /) -> _Draws:
        """n independent samples of noise; a list of n generators makes each independent of its batch."""
        # Observations apart from the product
        target, observations = without_observations(run.target)
        check_densities(target)
        evidence = evidence_of(observations, target) if observations else None
        given = given_variance(observations)
        spreads: list[Spread] = []
        # The covariance of clean samples: given, constant, or of the second order of the product
        if given is not None:
            product: Product | Spread = Spread.of_variance(given, target.noised_space.sample_shape)
        else:
            if observations and self.covariance == "constant":
                spreads = observed_spreads(target)
            product = second_order(target, self.covariance)
        # Samples of noise; moves take no larger step than the first one
        chain = None if self.moves is None else Chain(self.moves, self.moves.step_size)
        steps = _Draws(attrs.evolve(run, target=target), self, run.noise(), product, evidence, chain, spreads)
        # Where the first level is not all noise, begin in the Gaussian of that level
        first = run.levels[0]
        if first.alpha > NOISY:
            steps.begin(first)
        return steps


@attrs.define(eq=False)
class _Draws(Steps):
    """Samples x (n, *shape); `spreads` are of the leaves of an observed composition, where they are constant."""

    run: Run
    options: Gauss
    x: Tensor
    product: Product | Spread
    evidence: Evidence | None
    chain: Chain | None
    spreads: list[Spread]
    problem: str = ""
    has_jumped: bool = False

    def begin(self, level: Level) -> None:
        """Starts a schedule that does not end in noise alone: at noised draws of the Gaussian of the product."""
        target = self.run.target
        # The mean of clean samples is that which its own noised sample predicts: Newton steps, exact for Gaussians.
        mean = torch.zeros_like(self.x[:1])
        ratio = ratio_of(level, self.x)
        for _ in range(NEWTON):
            x = level.alpha**0.5 * mean
            x0 = target.predict(x, level.rows(x), prediction_type="sample")
            found, spread = self._product(x, x0, level)
            spread = attrs.evolve(spread, values=spread.values.clamp(min=WIDE * float(ratio)))
            # m(mean) has the slope ratio C, C = (ratio I + P)^-1: mean + (I - ratio C)^-1 (m - mean)
            mean = mean + spread.apply(found - mean, lambda values: 1.0 + ratio / values)
        # Draw clean samples, under the observations, and noise them.
        covariance = spread.covariance(torch.zeros_like(ratio))
        z = self._draw(clip(mean, target).expand_as(self.x), covariance, covariance.root(self.run.noise()))
        self.x = level.alpha**0.5 * z + (1.0 - level.alpha) ** 0.5 * self.x

    def step(self, level: Level, /) -> None:
        target = self.run.target
        # Predict x_0 by every leaf in one batch.
        x0 = target.predict(self.x, level.rows(self.x), prediction_type="sample")
        # Move, and once jump, within the noised product under the observations.
        if self.chain is not None:
            x0 = self._move(self.chain, x0, level)
        if self._is_time_to_jump(level):
            x0 = self._jump(x0, level)
        # Multiply, and draw the clean sample, under the observations.
        mean, covariance = self._clean(self.x, x0, level)
        draw = None
        if not level.is_last or self.options.last == "draw":
            draw = covariance.root(self.run.noise())
        z = self._draw(mean, covariance, draw)
        # Step: the reverse kernel for this clean sample.
        self.x = level.mean(self.x, z)
        if not level.is_last:
            variance = level.beta * (1.0 - level.next_alpha) / (1.0 - level.alpha)
            self.x = self.x + variance**0.5 * self.run.noise()

    def finish(self) -> Sampled:
        notes = (f"{self.problem}: {FOLLOWS}",) if self.problem else ()
        acceptance = {} if self.chain is None else self.chain.acceptance
        is_drawn = self.options.last == "draw"
        return Sampled(self.x, SamplingReport(is_drawn=is_drawn, acceptance=acceptance, notes=notes))

    def _move(self, chain: Chain, x0: Tensor, level: Level) -> Tensor:
        groups = (self.run.n, 1) if isinstance(self.run.generator, list) else (1, self.run.n)
        x, x0 = chain.move(self._density_at(level), self.x.unflatten(0, groups), x0.unflatten(1, groups))
        self.x = x.flatten(0, 1)
        return x0.flatten(1, 2)

    def _is_time_to_jump(self, level: Level) -> bool:
        """Whether samples jump at this level: once, where noise is small beside their deviations."""
        if not self.options.jumps or self.has_jumped or isinstance(self.run.generator, list):
            return False
        # Of few numbers, enough samples, and a product: of one leaf the predictions are right as they are
        size = self.x[0].numel()
        is_product = self.evidence is not None or len(self.run.target.composition.terms) > 1
        is_linear = self.evidence is None or self.evidence.linear is not None
        if size > MOST or self.run.n < LEAST * size or not (is_product and is_linear):
            return False
        # The variance of clean samples is that of x / sqrt(alpha_bar) without its noise
        noise = (1.0 - level.alpha) / level.alpha
        variance = self.x.flatten(1).double().var(0).min() / level.alpha - noise
        self.has_jumped = level.is_last or noise < self.options.jump_noise**2 * float(variance)
        return self.has_jumped

    def _jump(self, x0: Tensor, level: Level) -> Tensor:
        density = self._density_at(level)
        x = self.x[None]
        x0 = x0[:, None]
        for _ in range(self.options.jumps):
            x, x0 = jump(density, x, x0)
        self.x = x[0]
        return x0[:, 0]

    def _density_at(self, level: Level) -> Density:
        """The noised product, with the clean samples as the observations have them."""

        def mean(x: Tensor, x0: Tensor) -> Tensor:
            return self._draw(*self._clean(x, x0, level), None)

        return Density(self.run.target, level, self.run.noise, self.run.uniform, mean)

    def _clean(self, x: Tensor, x0: Tensor, level: Level) -> tuple[Tensor, AnyCovariance]:
        """m and C of the clean samples of x, without observations."""
        mean, spread = self._product(x, x0, level)
        # What is observed of images moves them by frequency
        stationary = stationary_of(self.spreads, self.run.target.weights_at(level.timestep))
        return clip(mean, self.run.target), (stationary or spread).covariance(ratio_of(level, x))

    def _draw(self, mean: Tensor, covariance: AnyCovariance, draw: Tensor | None) -> Tensor:
        """A clean sample of N(mean, C), mean + draw, under the observations; the mean without a draw."""
        if self.evidence is None:
            return mean if draw is None else mean + draw
        error = None
        if draw is not None:
            seen = (self.run.n, *self.evidence.y.shape[1:])
            error = draw_noise(seen, generator=self.run.generator, device=self.x.device)
        return self.evidence.condition(mean, covariance, draw, error)[0]

    def _product(self, x: Tensor, x0: Tensor, level: Level) -> tuple[Tensor, Spread]:
        """m (B, *shape) for the predictions x0 (K, B, *shape), and the spread that C follows from."""
        # First order: sum_i b_i m_i, and for what the weights lack of 1 the clean sample of x without noise
        if isinstance(self.product, Spread):
            b = self.run.target.weights_at(level.timestep)
            rest = (1.0 - sum(b)) / level.alpha**0.5 * x.double()
            return (weighted_sum(b, x0.double()) + rest).to(x0), self.product
        # Second order: the product of the Gaussians of all leaves
        found = self.product(x, x0, level)
        if not found.is_gaussian:
            self.problem = next((one.problem for one in found.spreads if one.problem), NO_GAUSSIAN)
        return found.mean.to(x0), found.spread
