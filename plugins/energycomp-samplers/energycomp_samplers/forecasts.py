"""What to expect of a composition before it is sampled: how much its components contradict, and which sampler helps.

A few particles follow the sum of the scores in a few steps. At each noise level, second order says how much the
components contradict at each particle, and the log of what the sum leaves out of the noised product, log Z: see
`energycomp_samplers.second_order`. Where log Z is the same at all particles, plain sampling is right.

Notation: variable -> symbol
    d               the number of numbers of a sample
    disagreement    the standard deviation of log Z over particles, the mean over noise levels, divided by sqrt(d)
    plain           1 / (1 + (disagreement / middle)^slope), the probability that plain samples are right
    ess             exp(-V), V the variance of the log weights of a whole run of `SMC`
    farthest        b_i (m_i - m)' C_i^-1 (m_i - m), the most of all leaves: about d, or less, where the product is
                    typical of each, and above d + 3 sqrt(2 d) where it is not
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.components import EnergyComponent, bounds
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError
from energycomp.sampling import Composer, Generator, Run, Target
from energycomp_samplers.gauss import NO_GAUSSIAN
from energycomp_samplers.kernels import check_densities, clip
from energycomp_samplers.observation import without_observations
from energycomp_samplers.proposal import Proposal
from energycomp_samplers.second_order import SecondOrder
from energycomp_samplers.spread import MOST, Spread, measure_spreads

# Fitted to random products of mixtures, whose exact samples are known: benchmarks/sampling/forecast.py
MIDDLE = 0.100
SLOPE = 10.06
LIKELY = 0.5
SAME = 0.25  # of the disagreement of images: objects apart have 0.08 to 0.17, and near ones 0.38 to 1.6
OUTSIDE = 3.0  # standard deviations of chi-square, by which a leaf is outside of what is typical of it
CURE = "use SMC(particles=64)"
MOST_LOG = 700.0  # of an overlap, in float64
CLOSE = 1e-6  # of the sum of the weights


@attrs.frozen
class LevelForecast:
    """What a forecast says of one noise level: means over particles.

    Args:
        timestep: t.
        contradiction: D, in squared standard deviations.
        spread: the standard deviation of log Z.
        of_leaves: what each leaf adds to D, by its name.
    """

    timestep: float
    contradiction: float
    spread: float
    of_leaves: tuple[tuple[str, float], ...]

    @property
    def farthest(self) -> tuple[str, float]:
        """The leaf that adds most to D, and how much."""
        return max(self.of_leaves, key=lambda leaf: leaf[1])

    def subject(self, several: str, alone: str) -> str:
        """The two leaves that add most, and a verb; one and its verb where the other adds less than a tenth of it."""
        names = [name for name, _ in self.of_leaves]
        apart = [one for _, one in self.of_leaves]
        first, *rest = sorted(range(len(apart)), key=lambda k: -apart[k])
        if not rest or apart[rest[0]] < apart[first] / 10.0:
            return f"{names[first]} {alone}"
        # The two of them, in the order of the composition
        one, other = sorted([first, rest[0]])
        return f"{names[one]} and {names[other]} {several}"


@attrs.frozen
class Forecast:
    """What to expect of a composition. `str` of it is the verdict.

    Args:
        verdict: "works", or the cheapest cure, or which components contradict each other, and where.
        plain: the probability that samples of the default sampler are right; None for more than 32 numbers, of which it
            is not known.
        disagreement: what `plain` follows from, see `energycomp_samplers.forecasts`.
        ess: the share of its particles from which the samples of `SMC` descend.
        overlap: the integral of the product of the densities, of two components over u their agreement: 1 where they
            are independent under u, above 1 where they say the same, near 0 where they contradict each other.
        levels: by noise level, from noise to clean samples.
        evaluations: network evaluations that it cost.
        problem: why nothing can be said; empty otherwise.

    >>> str(Forecast("works", 0.99, 0.01, 0.9, 1.0, levels=(), evaluations=300))
    'works'
    """

    verdict: str
    plain: float | None
    disagreement: float
    ess: float
    overlap: float
    levels: tuple[LevelForecast, ...]
    evaluations: int
    problem: str = ""

    def __str__(self) -> str:
        return self.verdict


@torch.no_grad()
def forecast(
    components: EnergyComponent | Sequence[EnergyComponent],
    *,
    particles: int = 16,
    num_inference_steps: int = 10,
    generator: Generator = 0,
) -> Forecast:
    """Whether the samples of a composition will be right, before it is sampled, and what to do if not.

    Costs 160 evaluations of each leaf, and those that measure its covariance once: 8 D for samples of D <= 32 numbers,
    else 16. `docs/beyond.md` says how sure it is. Of more than 32 numbers, such as images, it only says which
    components change the same ones.

    Args:
        components: one composition, or a list, as `Composer` takes them; weights sum to 1 at each noise level.
        particles, num_inference_steps: of the run that is followed; more cost more, and the probability was fitted for
            these (`benchmarks/sampling/forecast.py`).
        generator: one, or a seed.

    Raises:
        CompositionError: weights that sum to another number than 1, or components that were trained together.
        InputError: observations, which are not forecast.

    >>> from energycomp.components import Gaussian
    >>> u = Gaussian(0.0, 1.0, name="u", unconditional="self")
    >>> a, b = (Gaussian(mean, 0.1, name=name, unconditional=u) for mean, name in ((1.5, "a"), (-1.5, "b")))
    >>> forecast(a & u).verdict
    'works'
    >>> forecast(a & b).verdict.partition(" at ")[0]
    'a and b contradict each other'
    """
    target = Target(Composer(components).composition)
    _check(target)
    size = math.prod(target.noised_space.sample_shape)
    # Measure each component alone, then follow particles of the product
    with count_rows() as spent:
        spreads = measure_spreads(target)
        if size > MOST:
            spreads = _share_spread(spreads)
        steps, log_weights = _follow(target, spreads, Run(target, particles, num_inference_steps, generator))
    # How much the components contradict at each level, and in all
    names = [repr(leaf) for leaf in target.composition.terms]
    levels = tuple(_summarise(one, names) for one in steps)
    disagreement = sum(one.spread for one in levels) / len(levels) / size**0.5
    # The probability that plain samples are right, and the verdict; of images only the latter is known
    plain = None
    if size <= MOST:
        plain = 1.0 / (1.0 + (disagreement / MIDDLE) ** SLOPE)
        verdict = _judge(levels, plain, size)
    else:
        verdict = _judge_images(levels, disagreement)
    # Without covariances that make a Gaussian there is no verdict
    problems = [one.problem for one in spreads if one.problem]
    if not all(one.is_gaussian for one in steps):
        problems.append(NO_GAUSSIAN)
    if problems:
        verdict = f"nothing can be said: {problems[0]}"
    # What is left of the particles of a whole run, and the agreement at the noisiest level
    ess = math.exp(-float(log_weights.var()))
    overlap = math.exp(min(float(steps[0].log_overlap.mean()), MOST_LOG))
    return Forecast(verdict, plain, disagreement, ess, overlap, levels, spent.rows, "".join(problems[:1]))


def _check(target: Target) -> None:
    if without_observations(target)[1]:
        got = f"got {target.composition!r}, which is observed"
        raise InputError(f"{got}; expected components; forecast them without the observation")
    check_densities(target)
    sums = bounds(target.composition.mass, target.noised_space.sample_shape)
    if max(abs(one - 1.0) for one in sums) > CLOSE:
        got = f"got {target.composition!r} with weights that sum to {sums[0]:g}"
        raise CompositionError(f"{got}; expected a sum of 1; compose with `&`")


def _share_spread(spreads: list[Spread]) -> list[Spread]:
    """One spread for all leaves of many numbers: one variance each says too little of how they differ.

    D of a & b is then -2 (m_a - m_u)' C^-1 (m_b - m_u): 0 where they change different numbers.
    """
    shared = Spread(torch.stack([one.values.mean() for one in spreads]).log().mean().exp()[None])
    return [attrs.evolve(shared, problem=one.problem) for one in spreads]


def _follow(target: Target, spreads: list[Spread], run: Run) -> tuple[list[SecondOrder], Tensor]:
    """Second order at each level of a short run, and the log weights of its particles, (P,)."""
    x = run.noise()
    total = torch.zeros(run.n, dtype=torch.float64, device=x.device)
    steps = []
    for level in run.levels:
        # Predict, and compare the predictions.
        proposal = Proposal.at(level, target, "rne")
        x0 = target.predict(x, level.rows(x), prediction_type="sample")
        steps.append(SecondOrder.of(x, x0, level, proposal.b, spreads))
        # Weigh, without resampling, since `ess` is that of the whole run.
        total = total + proposal.rne(x[None], x0[:, None])[0]
        # Step to a draw of the proposal.
        x = proposal.centre(x, clip(proposal.mean(x0), target))
        if not level.is_last:
            x = x + proposal.variance**0.5 * run.noise()
    return steps, total


def _summarise(step: SecondOrder, names: list[str]) -> LevelForecast:
    parts = [float(one.mean()) for one in step.contradictions]
    spread = float(step.log_overlap.std())
    return LevelForecast(step.level.timestep, sum(parts), spread, tuple(zip(names, parts, strict=False)))


def _judge(levels: Sequence[LevelForecast], plain: float, size: int) -> str:
    """What to do about samples of `size` numbers."""
    cure = "works" if plain >= LIKELY else CURE
    # Which component is outside of what is typical of it, and at which levels.
    usual = size + OUTSIDE * (2.0 * size) ** 0.5
    worst = max(levels, key=lambda one: one.farthest[1])
    if worst.farthest[1] <= usual:
        return cure
    # No sampler helps there: samples are where that component hardly has any.
    where = [level.timestep for level in levels if level.farthest[1] > usual]
    verdict = worst.subject("contradict each other", "contradicts the others")
    verdict += f" at timesteps {max(where):g} to {min(where):g}: samples are not typical of {worst.farthest[0]}"
    return verdict if plain >= LIKELY else f"{verdict}; {cure} or leave one out"


def _judge_images(levels: Sequence[LevelForecast], disagreement: float) -> str:
    """Of many numbers: whether components change the same ones."""
    if disagreement <= SAME:
        return "works"
    worst = max(levels, key=lambda one: one.spread)
    verdict = worst.subject("change the same numbers", "changes the same numbers as the others")
    return f"{verdict}, most at timestep {worst.timestep:g}: rank the samples, or take the best of several"
