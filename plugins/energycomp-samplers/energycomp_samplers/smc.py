"""Sequential Monte Carlo: weighted particles that follow the product of the components at every noise level.

The sum of the scores of noised components is not the score of their noised product. Particles that follow it get
weights for the difference, and are resampled. At noise level t they follow pi_t = prod_i p_{i,t}^b_i.

Notation: variable -> symbol
    x, y            a particle at timestep t, and at the next timestep s < t
    b, total        the weights b_i of the components, and their sum B
    x0, mean        E_i[x_0 | x], and mu_i, the mean of the reverse kernel m_i(y | x) of component i: see `kernels`
    beta            variance of the forward kernel q(x | y) = N(sqrt(1 - beta) y, beta I)
    back            kappa, of the backward kernel L(x | y) = N(sqrt(1 - beta) y, beta / kappa I); 1 without energies
    centre          mu, the mean of the proposal p(y | x)
    s, G            scores s_i, and G = sum_i b_i s_i

Start: x ~ N(0, I / B), which pi_t is at the noisy end where alpha_bar is near 0. Weights of energies begin with
log w = B |x|^2 / 2 - sum_i b_i E_i(x, t), the ratio of the two.

Proposal: p(y | x) is proportional to prod_i m_i^b_i q^-B L as a function of y, a Gaussian:
    p = N(mu, beta / D I),  mu = (sum_i b_i mu_i + (kappa - B) sqrt(1 - beta) x) / D,  D = B + (kappa - B) (1 - beta)
For B = 1 these are ancestral steps (DDPM) with the sum of the scores.

Weights (for kappa = B "rne" would be biased, since m_i has the noise beta and p would have beta / B):
    rne     Radon-Nikodym estimator (He et al., 2025): d log w = sum_i b_i log m_i(y | x) + (1 - B) log q(x | y)
            - log p(y | x). By the choice of p it does not depend on y, and is
            -1/(2 beta) (sum_i b_i |mu_i - mu|^2 + (1 - B) |x - sqrt(1 - beta) mu|^2),
            so that particles are weighted and resampled before they move (a fully adapted particle filter).
    fkc     Feynman-Kac correctors (Skreta et al., 2025), the limit of small steps, with g^2 dt = beta:
            d log w = beta / 2 (|G|^2 - sum_i b_i |s_i|^2); the term in div f is the same for all particles.
    energy  d log w = sum_i b_i (E_i(x, t) - E_i(y, s)) + log L(x | y) - log p(y | x), with kappa = B. Exact for every
            proposal, and better where B is not 1; costs an evaluation more per component, particle and step.

Weights b_i that vary over the noise level, as those of guidance do, are those of level t in the step from t to s. Where
they change, only the weights of energies follow the change of pi_t.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import attrs
import torch
from torch import Tensor

from energycomp.errors import CompositionError, InputError
from energycomp.fields import legal, number, one_of, whole
from energycomp.sampling import Generator, Sampled, StepCallback, Target, draw_noise
from energycomp.seeds import as_generators
from energycomp_samplers.chain import Chain, Moves
from energycomp_samplers.constraints import Constraint, Twist
from energycomp_samplers.kernels import (
    Level,
    called_back,
    check_densities,
    clipped,
    least_sum,
    levels,
    sum_of_squares,
    total_energy,
)
from energycomp_samplers.particles import taken, uniform
from energycomp_samplers.weighing import Weighing

NONE_LEFT = "the constraint ruled all particles of a sample out: samples do not satisfy it; use more particles"
CONSTRAINT = legal(lambda value: isinstance(value, Constraint), "one of `energycomp_samplers.constraint(f)`")
WEIGHTS = ("rne", "fkc", "energy", "none")
MOVES = legal(
    lambda value: isinstance(value, Moves) and not isinstance(value, type), "moves, such as MALA(), HMC() or Langevin()"
)


@attrs.frozen
class SMC:
    """Weighted particles with systematic resampling. Costs as many evaluations per particle as the plain loop.

    Args:
        weights: "rne", "fkc" or "energy", see the formulas above; "none" for moves without weights.
        particles: of each sample, of which one is drawn in the end; None for one swarm of n particles, all of which are
            samples. A swarm costs no more than plain sampling, but its samples are not independent.
        resample_below: particles are resampled where the effective sample size is below this share of them.
        resample_above: the least timestep at which particles are weighted; below it they move without weights. None
            stops where the standard deviation of the log weights of one step exceeds 3, because weights of images are
            noise at low noise levels.
        clamp: the log weights of one step are limited to this distance from their mean.
        moves: `MALA`, `HMC` or `Langevin` at each noise level, before particles are weighted.
        constraint: of `constraint(f)`: samples are those of p(x) exp(-w f(x)). Its weights have no limit, and go on to
            the end. f is called once for each particle and step; with `gradient=True` networks are differentiated, too.

    >>> from energycomp import Composer
    >>> from energycomp.testing import Gaussian
    >>> u = Gaussian(0.0, 1.0, name="u", unconditional="self")
    >>> a, b = Gaussian(1.0, 0.25, unconditional=u), Gaussian(-0.2, 0.25, unconditional=u)  # a b / u: N(0.457, 0.143)
    >>> x = Composer(a & b).sample(2000, sampler=SMC(), output_type="pt", generator=0, progress=False)
    >>> abs(x.mean() - 0.457) < 0.05, abs(x.var() - 0.143) < 0.02
    (tensor(True), tensor(True))
    """

    weights: Literal["rne", "fkc", "energy", "none"] = attrs.field(default="rne", validator=one_of(WEIGHTS))
    particles: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))
    resample_below: float = attrs.field(default=0.5, validator=number(most=1))
    resample_above: float | None = attrs.field(default=None, validator=number(least=0, or_none=True))
    clamp: float = attrs.field(default=10.0, validator=number())
    moves: Moves | None = attrs.field(default=None, validator=attrs.validators.optional(MOVES))
    constraint: Constraint | None = attrs.field(default=None, validator=attrs.validators.optional(CONSTRAINT))

    def __attrs_post_init__(self) -> None:
        if self.weights == "none" and (self.particles or 1) > 1 and self.constraint is None:
            raise InputError(
                f"got particles={self.particles} with weights='none'; expected weights, by which one particle of each "
                "sample is drawn; leave particles= out"
            )

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
        """n samples. A list of n generators goes with `particles`, and with weights "none". A sample does not depend on
        its batch then; with weights, only if `resample_above` is given.
        """
        self._check(target, generator)
        generator = as_generators(generator)
        product = self._product(target, float(target.timesteps(num_inference_steps)[0]))
        alone = not self._weighs and isinstance(generator, list)  # steps are adapted to each sample
        groups = (n, self.particles or 1) if alone or self.particles is not None else (1, n)
        shape = target.noised_space.sample_shape

        def noise(like: tuple[int, ...]) -> Tensor:
            return draw_noise((*like, *shape), generator=generator, device=target.device)

        def clean(x: Tensor, x0: Tensor, level: Level) -> Tensor:
            mean = clipped(product.mean(x0), target)
            return product.centre(x, mean, level) if level.is_last else mean

        x = noise(groups) / product.total**0.5
        chain = None if self.moves is None else Chain(self.moves, target)
        run = Weighing(self, torch.zeros(groups, dtype=torch.float64, device=target.device), generator)
        # Of the weights of energies, what does not depend on the energies of y. At the start, -log N(x; 0, I / B).
        arriving: Tensor | None = product.total * sum_of_squares(x, x) / 2.0
        twist = Twist(self.constraint, target, torch.zeros_like(run.log_weights))
        for level in levels(target, num_inference_steps, progress=progress):
            product = self._product(target, level.timestep)
            x, x0 = twist.predicted(x, level)
            uses_energy = self.weights == "energy" and run.is_weighing
            energy = total_energy(target, x, level) if uses_energy else None
            arrived = None if arriving is None or energy is None else arriving - energy
            if chain is not None:
                x, x0 = chain.move(x, x0, level, noise, lambda shape: uniform(shape, generator, target.device))
                energy = total_energy(target, x, level) if uses_energy else None
                x, x0 = twist.predicted(x, level) if twist.follows(level) else (x, x0)
            if run.is_weighing or self.constraint is not None:
                increment = self._increment(product, x, x0, level, arrived) if run.is_weighing else None
                twisted = twist.weighed(x, partial(clean, x, x0, level), level, product.variance(level))
                places = run.weighed(increment, level, twisted)
                twist.take(places)
                x, x0 = x.detach(), x0.detach()
                x, x0 = taken(x, places), torch.stack([taken(one, places) for one in x0])
                energy = None if energy is None else taken(energy, places)
            centre = product.centre(x, clipped(product.mean(x0), target), level)
            variance = product.variance(level)
            y = centre
            if not level.is_last:
                y = twist.moved(centre, variance) + variance**0.5 * noise(tuple(x.shape[:2]))
            twist.correct(y, centre, variance)
            if energy is not None and not level.is_last:
                arriving = energy + product.log_ratio(x, y, centre, level)
            x = called_back(callback_on_step_end, level, y)
        samples = x.flatten(0, 1)
        if self._weighs and self.particles is None:  # copies of one particle stand side by side
            samples = samples[uniform((n,), generator, target.device).argsort()]
        report = run.report(chain)
        notes = (*report.notes, *([NONE_LEFT] if twist.rules_out_all else []))
        return Sampled(samples, attrs.evolve(report, constraint_calls=twist.calls, notes=notes))

    @property
    def _weighs(self) -> bool:
        return self.weights != "none" or self.constraint is not None

    def _product(self, target: Target, timestep: float) -> _Product:
        weights = target.weights_at(timestep)
        return _Product(weights, back=sum(weights) if self.weights == "energy" else 1.0)

    def _increment(
        self,
        product: _Product,
        x: Tensor,
        x0: Tensor,
        level: Level,
        arrived: Tensor | None,
    ) -> Tensor:
        if self.weights == "energy":
            return x.new_zeros(x.shape[:2], dtype=torch.float64) if arrived is None else arrived
        return product.rne(x, x0, level) if self.weights == "rne" else product.fkc(x, x0, level)

    def _check(self, target: Target, generator: Generator) -> None:
        check_densities(target)
        if (total := least_sum(target)) <= 0:
            raise CompositionError(
                f"got {target.composition!r} with weights that sum to {total:g}; expected a positive "
                "sum, because the product is no distribution otherwise; compose with `&`, or leave sampler= out"
            )
        if isinstance(generator, Sequence) and self.particles is None and self._weighs:
            raise InputError(
                f"got {len(generator)} generators for one swarm of particles, whose samples depend on each other; "
                "expected one; give one generator, or particles of each sample: SMC(particles=4)"
            )


@attrs.frozen
class _Product:
    """The proposal and the weights of the formulas above; particles are (G, P, C, H, W), weights (G, P)."""

    b: tuple[float, ...]
    back: float

    @property
    def total(self) -> float:
        return sum(self.b)

    def _scale(self, level: Level) -> float:
        return self.total + (self.back - self.total) * (1.0 - level.beta)

    def _sum(self, values: Tensor) -> Tensor:
        return torch.einsum("k,k...->...", values.new_tensor(self.b), values)

    def mean(self, x0: Tensor) -> Tensor:
        """sum_i b_i x0_i / B."""
        return self._sum(x0) / self.total

    def variance(self, level: Level) -> float:
        """Of the proposal."""
        return level.beta / self._scale(level)

    def centre(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """mu of the proposal, for the mean prediction x0."""
        kept = (self.back - self.total) * (1.0 - level.beta) ** 0.5
        return (self.total * level.mean(x, x0) + kept * x) / self._scale(level)

    def rne(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        centre = self.centre(x, self.mean(x0), level)
        apart = self._sum(sum_of_squares(level.mean(x, x0) - centre, x))
        if self.total != 1.0:
            apart = apart + (1.0 - self.total) * sum_of_squares(x - (1.0 - level.beta) ** 0.5 * centre, x)
        return -apart / (2.0 * level.beta)

    def fkc(self, x: Tensor, x0: Tensor, level: Level) -> Tensor:
        """|G|^2 - sum_i b_i |s_i|^2 = B (B - 1) |s|^2 - sum_i b_i |s_i - s|^2 with the mean score s = G / B."""
        scores = (level.alpha**0.5 * x0 - x) / (1.0 - level.alpha)
        mean = self.mean(scores)
        apart = self.total * (self.total - 1.0) * sum_of_squares(mean, x) - self._sum(sum_of_squares(scores - mean, x))
        return 0.5 * level.beta * apart

    def log_ratio(self, x: Tensor, y: Tensor, centre: Tensor, level: Level) -> Tensor:
        """log L(x | y) - log p(y | x) up to a constant."""
        backward = self.back * sum_of_squares(x - (1.0 - level.beta) ** 0.5 * y, x)
        return (self._scale(level) * sum_of_squares(y - centre, x) - backward) / (2.0 * level.beta)
