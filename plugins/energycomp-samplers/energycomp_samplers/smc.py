"""Sequential Monte Carlo: weighted particles that follow the product of the components at every noise level.

The sum of the scores of noised components is not the score of their noised product. Particles that follow it get
weights for the difference, and are resampled. At noise level t they follow pi_t = prod_i p_{i,t}^b_i.

Notation: variable -> symbol
    x, y            a particle at timestep t, and at the next timestep s < t
    b, total        the weights b_i of the components, and their sum B
    x0, mean        E_i[x_0 | x], and mu_i, the mean of the reverse kernel m_i(y | x) of component i: see `Level`
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

Second order: the particles of `proposal="gauss"` and "jacobian" follow pi_t Z_t in place of pi_t, with Z of
`energycomp_samplers.second_order`, which is the noised product where components are Gaussian. Z is a twist, as a
constraint is one: it changes which particles are on the way, and not what arrives. It is weighed with the product.

Moves: the step size c of `energycomp_samplers.chain` grows beyond the first one only where the noised product still
changes: where the log weights of "rne" for a unit of the log signal-to-noise ratio are above 0.1, the mean over the
particles of a sample. They fall as the noise does, so that they stand for all that is left. Below, the sum of the
scores is the score of the product, and steps of the size of the noise are enough. Longer ones would follow the error of
a network, whose score is wrong by that of its noise prediction divided by the noise. Fewer than 8 particles, such as
those of a list of generators, do not say where that is: their steps stay short for one component alone.

Weights b_i that vary over the noise level, as those of guidance do, are those of level t in the step from t to s. Where
they change, only the weights of energies follow the change of pi_t.
"""

from __future__ import annotations

from typing import Literal

import attrs
import torch
from torch import Tensor

from energycomp.components import bounds, by_sample
from energycomp.errors import CompositionError, InputError
from energycomp.fields import legal, number, one_of, whole
from energycomp.sampling import Level, Run, Sampled, Steps
from energycomp_samplers.chain import MOVES, Chain, Density, Moves
from energycomp_samplers.constraints import Constraint
from energycomp_samplers.kernels import check_densities, least_sum, predict_clean, sum_of_squares, total_energy
from energycomp_samplers.observation import without_observations
from energycomp_samplers.particles import Particles, take
from energycomp_samplers.proposal import Proposal
from energycomp_samplers.twist import ConstraintFactor, Factor, ObservationFactor, SecondOrderFactor, propose
from energycomp_samplers.weighing import Weighing

NONE_LEFT = "the constraint ruled all particles of a sample out: samples do not satisfy it; use more particles"
CONSTRAINT = legal(lambda value: isinstance(value, Constraint), "one of `energycomp_samplers.constraint(f)`")
CHANGES = 0.01  # of log weights, up to which the sum of the scores is as good as right from a level on
NOTHING = 1e-3  # the same of a single component, by rounding
SEVERAL = 8  # particles, whose mean hardly depends on where each is
ONE = (1.0, 1.0)  # the bounds of the sum of the weights


@attrs.frozen
class SMC:
    """Weighted particles with systematic resampling. Costs as many evaluations per particle as the plain loop.

    Args:
        weights: "rne", "fkc" or "energy", see the formulas above; "none" for moves without weights.
        particles: of each sample, of which one is drawn in the end; None for one swarm of n particles, all of which are
            samples. A swarm costs no more than plain sampling, but its samples are not independent.
        resample_below: share of the particles below which the effective sample size has them resampled.
        resample_above: the least timestep at which particles are weighted. None stops where the log weights of one step
            have a standard deviation above `max_spread`.
        max_spread: more follows weights further down, where those of images are noise
            (`benchmarks/sampling/inverse_images.py`).
        clamp: the log weights of one step are limited to this distance from their mean.
        moves: `MALA`, `HMC` or `Langevin` at each noise level, before particles are weighted.
        constraint: of `constraint(f)`: samples are those of p(x) exp(-w f(x)). Its weights have no limit, and go on to
            the end. f is called once for each particle and step.
        depth: nats below the best particle that a constraint takes others at most, at the noisy end. More follows f
            sooner, less keeps particles that may still satisfy it (`benchmarks/parts/constraint.py`).
        proposal: "sum" follows the sum of the scores; "gauss" the second-order product of `Gauss`, whose spreads it
            measures once; "jacobian" that of `Gauss(covariance="jacobian")`, at 2 D evaluations more. The weights
            correct all, so that samples are as right, from more of the particles.
        last: what is observed ends at a "draw" of the clean sample, whose noise is that of the last noise level: right
            for intervals, and visible in images of few steps; "mean" ends at its mean, as without an observation.

    >>> from energycomp import Composer
    >>> from energycomp.testing import Gaussian
    >>> u = Gaussian(0.0, 1.0, name="u", unconditional="self")
    >>> a, b = Gaussian(1.0, 0.25, unconditional=u), Gaussian(-0.2, 0.25, unconditional=u)  # a b / u: N(0.457, 0.143)
    >>> x = Composer(a & b).sample(2000, sampler=SMC(), output_type="pt", generator=0, progress=False)
    >>> abs(x.mean() - 0.457) < 0.05, abs(x.var() - 0.143) < 0.02
    (tensor(True), tensor(True))
    """

    weights: Literal["rne", "fkc", "energy", "none"] = attrs.field(
        default="rne", validator=one_of(("rne", "fkc", "energy", "none"))
    )
    particles: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))
    resample_below: float = attrs.field(default=0.5, validator=number(most=1))
    resample_above: float | None = attrs.field(default=None, validator=number(least=0, or_none=True))
    clamp: float = attrs.field(default=10.0, validator=number())
    moves: Moves | None = attrs.field(default=None, validator=attrs.validators.optional(MOVES))
    constraint: Constraint | None = attrs.field(default=None, validator=attrs.validators.optional(CONSTRAINT))
    proposal: Literal["sum", "gauss", "jacobian"] = attrs.field(
        default="sum", validator=one_of(("sum", "gauss", "jacobian"))
    )
    last: Literal["draw", "mean"] = attrs.field(default="draw", validator=one_of(("draw", "mean")))
    max_spread: float = attrs.field(default=3.0, validator=number())
    depth: float = attrs.field(default=3.0, validator=number())

    def __attrs_post_init__(self) -> None:
        if self.weights == "none" and (self.particles or 1) > 1 and self.constraint is None:
            raise InputError(
                f"got particles={self.particles} with weights='none'; expected weights, by which one particle of each "
                "sample is drawn; leave particles= out"
            )
        if self.proposal != "sum" and (self.weights == "none" or self.moves is not None):
            raise InputError(
                f"got proposal={self.proposal!r} with weights={self.weights!r} and moves={self.moves!r}; expected "
                "weights, which correct it, and no moves, which follow another density; use sampler='gauss' without "
                "weights"
            )

    def start(self, run: Run, /) -> _Swarm:
        """Particles of noise. A list of n generators goes with `particles`, and with weights "none"."""
        # Observations weigh particles; they are no part of the product
        target, observations = without_observations(run.target)
        run = attrs.evolve(run, target=target)
        weighs = self.weights != "none" or self.constraint is not None or bool(observations)
        self._check(run, weighs)
        # One swarm; or a group of particles for each sample, which does not depend on the others
        groups = (1, run.n)
        if self.particles is not None or (isinstance(run.generator, list) and not weighs):
            groups = (run.n, self.particles or 1)
        # x ~ N(0, I / B), with equal weights
        total = sum(target.weights_at(run.levels[0].timestep))
        x = run.noise(groups) / total**0.5
        equal = torch.zeros(groups, dtype=torch.float64, device=x.device)
        swarm = _Swarm(self, run, x.flatten(0, 1), groups[0], weighs, Weighing(self, run, equal))
        swarm.leaving = total * sum_of_squares(x, x) / 2.0  # -log N(x; 0, I / B)
        # What weighs and moves them beside the product
        if self.proposal != "sum":
            kind: Literal["constant", "jacobian"] = "constant" if self.proposal == "gauss" else "jacobian"
            swarm.second_order = SecondOrderFactor(equal, target, kind)
        if self.constraint is not None:
            swarm.constraint = ConstraintFactor(equal, self.constraint, self.depth)
        if observations:
            swarm.observed = ObservationFactor.of(observations, run, equal, ends_at_draw=self.last == "draw")
        return swarm

    def _check(self, run: Run, weighs: bool) -> None:
        check_densities(run.target)
        total = least_sum(run.target)
        if total <= 0:
            raise CompositionError(
                f"got {run.target.composition!r} with weights that sum to {total:g}; expected a positive "
                "sum, because the product is no distribution otherwise; compose with `&`, or leave sampler= out"
            )
        if self.proposal != "sum" and bounds(run.target.composition.mass, run.target.noised_space.sample_shape) != ONE:
            raise CompositionError(
                f"got {run.target.composition!r} with proposal={self.proposal!r} and weights that sum to {total:g}; "
                "expected a sum of 1 at all noise levels; compose with `&`, or leave proposal= out"
            )
        if isinstance(run.generator, list) and self.particles is None and weighs:
            raise InputError(
                f"got {len(run.generator)} generators for one swarm of particles, whose samples depend on each other; "
                "expected one; give one generator, or particles of each sample: SMC(particles=4)"
            )


@attrs.define(eq=False)
class _Swarm(Steps):
    """The particles x of a run, (B, *shape), in groups of as many."""

    options: SMC
    run: Run
    x: Tensor
    groups: int
    weighs: bool
    weighing: Weighing
    leaving: Tensor = attrs.field(init=False)  # sum_i b_i E_i(x, t) + log L(x | y) - log p(y | x), (G, P)
    chain: Chain | None = attrs.field(init=False)
    second_order: SecondOrderFactor | None = None
    constraint: ConstraintFactor | None = None
    observed: ObservationFactor | None = None

    @chain.default
    def _chain(self) -> Chain | None:
        return None if self.options.moves is None else Chain(self.options.moves)

    @property
    def constraints(self) -> list[Factor]:
        """The factors that change which distribution samples have."""
        return [one for one in (self.constraint, self.observed) if one is not None]

    @property
    def factors(self) -> list[Factor]:
        """All factors, in the order in which they move the proposal."""
        return [*([] if self.second_order is None else [self.second_order]), *self.constraints]

    def step(self, level: Level, /) -> None:
        # Predict: x_0 from every particle, by all components in one batch.
        proposal = Proposal.at(level, self.run.target, self.options.weights)
        particles = self._predict(self.x.unflatten(0, (self.groups, -1)), proposal)

        # Weigh: by energies, for the step from the level before to this one.
        energy = self._energy(particles)
        increment = None if energy is None else self.leaving - energy

        # Move: within the density of this level, which leaves the weights as they are.
        if self.chain is not None:
            particles = self._move(self.chain, particles)
            energy = self._energy(particles)

        # Weigh: by the reverse kernels, for the step from this level to the next one.
        if increment is None:
            increment = self._kernel_weights(particles)

        # Weigh: by second order, no longer than by the product; by constraint and observations, to the end.
        if self.second_order is not None:
            overlap = self.second_order.weigh(particles)
            increment = None if increment is None else increment + overlap
        constrained = None
        for factor in self.constraints:
            of_factor = factor.weigh(particles)
            constrained = of_factor if constrained is None else constrained + of_factor

        # Resample: where few particles have the weight of their group.
        if self.weighs:
            places = self.weighing.resample(increment, level, constrained)
            particles = particles.take(places)
            energy = None if energy is None else take(energy, places)
            for factor in self.factors:
                factor.take(places)

        # Ask: the proposal and the factors that move it say where particles go.
        centre = particles.centre
        y = self._propose(centre, proposal)
        self.x = y.flatten(0, 1)

        # Keep what the weights of energies take from this level to the next one.
        if energy is not None:
            self.leaving = energy + proposal.log_ratio(particles.x, y, centre)

    def _predict(self, x: Tensor, proposal: Proposal) -> Particles:
        """Particles and their predictions, with gradients where a constraint follows them."""
        target = self.run.target
        if self.constraint is None or not self.constraint.follows(proposal.level):
            return Particles(x, predict_clean(target, x, proposal.level, self.weighing.copies), proposal, target)
        # The gradient of f(x0) with respect to x goes through the network
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return Particles(x, predict_clean(target, x, proposal.level), proposal, target)

    def _energy(self, particles: Particles) -> Tensor | None:
        """sum_i b_i E_i(x, t), (G, P), as long as particles are weighted by energies."""
        if self.options.weights != "energy" or not self.weighing.is_weighing:
            return None
        return total_energy(self.run.target, particles.x.detach(), particles.proposal.level, self.weighing.copies)

    def _move(self, chain: Chain, particles: Particles) -> Particles:
        level = particles.proposal.level
        density = Density(self.run.target, level, self._noise, self._uniform, copies=self.weighing.copies)
        x, x0 = chain.move(density, particles.x, particles.x0, self._longest(chain, particles))
        if self.constraint is not None and self.constraint.follows(level):
            return self._predict(x, particles.proposal)
        return attrs.evolve(particles, x=x, x0=x0)

    def _longest(self, chain: Chain, particles: Particles) -> Tensor:
        """The largest step size of moves at a level, (G,)."""
        # Where weights change no more, steps of the noise are enough, and longer ones follow errors of a network.
        x = particles.x.detach()
        changes = particles.proposal.change(x, particles.x0.detach()).abs().mean(dim=1)
        # The test of a move holds for steps that do not depend on where its particle is: few must not decide.
        few = self.weighing.copies if x.shape[1] >= SEVERAL else torch.ones_like(self.weighing.copies)
        enough = torch.where(few, NOTHING, CHANGES)
        return torch.where(changes > enough, torch.inf, chain.options.step_size)

    def _kernel_weights(self, particles: Particles) -> Tensor | None:
        """The log weights "rne" or "fkc" of a step, (G, P), as long as particles are weighted."""
        if not self.weighing.is_weighing:
            return None
        weigh = particles.proposal.rne if self.options.weights == "rne" else particles.proposal.fkc
        return weigh(particles.x, particles.x0)

    def _propose(self, centre: Tensor, proposal: Proposal) -> Tensor:
        """The particles at the next level; at the end the mean, or what is drawn of what was observed."""
        if not proposal.level.is_last:
            return propose(self.factors, centre, proposal.variance, self._noise(tuple(centre.shape[:2])))
        return centre if self.observed is None or self.observed.last is None else self.observed.last

    def _noise(self, rows: tuple[int, ...]) -> Tensor:
        """Normal noise (G, P, *shape). Copies share it, and are drawn as many, so that no sample depends on others."""
        return self._share(self.run.noise(rows))

    def _uniform(self, rows: tuple[int, ...]) -> Tensor:
        return self._share(self.run.uniform(rows))

    def _share(self, values: Tensor) -> Tensor:
        return torch.where(by_sample(self.weighing.copies, values.ndim), values[:, :1], values)

    def finish(self) -> Sampled:
        samples = self.x
        error = None if self.observed is None else self.weighing.share_error(samples)
        # One particle of each sample: they are copies, or a callback ended the run before they were.
        if len(samples) > self.run.n:
            samples = take(samples.unflatten(0, (self.groups, -1)), self.weighing.draw_one()).flatten(0, 1)
        # Shuffle: copies of one particle stand side by side.
        if self.options.particles is None and self.weighs:
            samples = samples[self.run.uniform((self.run.n,)).argsort()]
        # Report what the weights, the moves and the constraint say of the samples.
        is_drawn = self.observed is not None and self.options.last == "draw"
        report = attrs.evolve(self.weighing.report(self.chain, error), is_drawn=is_drawn)
        if self.constraint is not None:
            notes = (*report.notes, NONE_LEFT) if self.constraint.rules_out_all else report.notes
            report = attrs.evolve(report, constraint_calls=self.constraint.calls, notes=notes)
        return Sampled(samples, report)
