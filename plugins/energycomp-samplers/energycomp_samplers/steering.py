"""Steering: sequential Monte Carlo over a bare function denoise(x, t), by the samplers of this package.

Everything is a composition: denoisers are components, their weights those of a product, a reward or a constraint is
`energycomp_samplers.constraint`, what was observed `observe`, and the particles are those of `SMC`. A set on which
samples must lie is `energycomp_samplers.projection`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import NoisedSpace, evaluate_energies
from energycomp.denoisers import count_rows
from energycomp.errors import EnergycompWarning, InputError
from energycomp.fields import is_whole
from energycomp.sampling import Run, SamplingReport, StepCallback, Steps, Target, draw_samples
from energycomp_samplers.callables import CallableComponent, CallableGroup, Convention, Denoise, Predicts, amplitudes
from energycomp_samplers.chain import Chain, Density
from energycomp_samplers.constraints import Constraint
from energycomp_samplers.kernels import predict_clean
from energycomp_samplers.observation import Observation, evidence_of, given_variance, spread_of, without_observations
from energycomp_samplers.operators import Linear
from energycomp_samplers.projection import Project, ProjectedEvidence, ProjectedMALA, check_projection, has_inside
from energycomp_samplers.smc import SMC
from energycomp_samplers.twist import ObservationFactor

NOISE = (0.5, 2.0)  # the deviation of x_T in that of noise, outside of which it is not noise of the first level
SEVERAL = 32  # numbers of which a deviation is known
STEPS = 50  # of a table of more timesteps
AROUND = 8  # points around each sample, which say whether a set has an inside
SIGNAL = 0.02  # alpha_bar of the first level, above which x_T is no noise alone


def steer(
    denoise: Denoise | Sequence[Denoise],
    x_T: Tensor,
    alphas: Any = None,
    *,
    sigmas: Any = None,
    times: Any = None,
    predicts: Predicts = "x0",
    weights: Sequence[float] | None = None,
    reward: Callable[[Tensor], Tensor] | None = None,
    constraint: Constraint | Callable[[Tensor], Tensor] | None = None,
    observation: Observation | Sequence[Observation] = (),
    project: Project | None = None,
    particles: int = 8,
    steps: int | None = None,
    space: tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor] | None] | None = None,
    scale: float = 1.0,
    gradient: bool = False,
    moves: int = 20,
    batch: int | None = None,
    smc: SMC | None = None,
    generator: int | torch.Generator | None = None,
) -> tuple[Tensor, SamplingReport]:
    """Samples of prod_i p_i(z)^b_i exp(reward(z)), of a set and under observations, from functions denoise(x, t).

    Weighted particles (`SMC`) of all samples are one swarm, of which n remain. It costs `particles` evaluations of each
    denoiser per sample and step. A composition of this library needs none of it: use `Composer`.

    Args:
        denoise: a function of noised samples x (B, *shape), and of the noise t (B,), or several of them, whose product
            is drawn. It returns what it predicts, (B, *shape).
        x_T: noise (n, *shape) of the first level, which says shape, type and device. It is that of one particle of each
            sample; the others are drawn.
        alphas: alphas_cumprod (T,) of diffusers. x is sqrt(alphas) z + sqrt(1 - alphas) eps, and t a timestep.
        sigmas: noise levels (N,), of EDM or a score network. x is z + sigma eps, and t is sigma.
        times: noise levels (N,) of a flow in (0, 1]. x is (1 - t) z + t eps.
        predicts: "x0", "eps", "v", "score", or "flow", the velocity eps - z; -"flow" is one to the data.
        weights: b_i of each denoiser, 1 when left out; their sum is above 0. (w, 1 - w) guides.
        reward: of clean samples (B, *shape), (B,): what is larger is drawn more often.
        constraint: an energy of clean samples, such as inf where they are ruled out; `constraint(f, ...)` has options.
        observation: `observe(operator, y, std)`, one or several.
        project: the nearest point of a set for each clean sample, (B, *shape). Samples lie on it, and follow the
            density along it.
        particles: of each sample.
        steps: of the timesteps of alphas, 50 when left out; all of sigmas and times.
        space: (symmetrise, align) of samples with symmetries, such as sets of points. symmetrise(x) is what noise is
            like, such as centred; align(x0, x) moves what is predicted onto the sample, or is None.
        scale: the deviation of the data, if it is far from 1.
        gradient: whether the gradient of reward and constraint, through the network, moves the particles.
        moves: along the set of `project`, at the end.
        batch: particles of one call at most.
        smc: more options of `SMC`, such as `SMC(weights="fkc")`.
        generator: one, or a seed.

    Returns:
        Samples (n, *shape), and a report: `print(report)` says whether to trust them. Its `warnings` are Python
        warnings, too.

    Raises:
        InputError: noise levels that are none, noise of another size, a function that returns another shape.

    >>> def denoise(x, sigma):  # of N(0, 1)
    ...     return x / (1 + sigma[:, None] ** 2)
    >>> sigmas = torch.logspace(1.5, -2, 30)
    >>> noise = sigmas[0] * torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    >>> x, report = steer(denoise, noise, sigmas=sigmas, reward=lambda z: z[:, 0], generator=0)
    >>> x.shape, abs(x.mean() - 1) < 0.1, report.warnings  # N(1, 1)
    (torch.Size([500, 1]), tensor(True), ())
    """
    for name, count in (("particles", particles), ("steps", steps), ("batch", batch), ("moves", moves)):
        least = 0 if name == "moves" else 1
        if count is not None and not (is_whole(count) and count >= least):
            raise InputError(f"got {name}={count!r}; expected a whole number of at least {least}; change it")
    convention = Convention.of(predicts, scale, alphas=alphas, sigmas=sigmas, times=times)
    size = float(amplitudes(convention.clock, convention.sigmas[-1])[1])
    _check_noise(x_T, size)
    symmetrise, align = space or (None, None)
    # Functions as components, and all that steers them
    functions = denoise if isinstance(denoise, Sequence) else [denoise]
    noised = NoisedSpace(convention.alphas_cumprod, tuple(x_T.shape[1:]), "data")
    group = CallableGroup(convention, noised, x_T[:0], align, batch)
    b = [1.0] * len(functions) if weights is None else list(weights)
    if len(b) != len(functions):
        raise InputError(f"got {len(b)} weights for {len(functions)} denoisers; expected one of each")
    composition: Any = sum((w * CallableComponent(f, group) for w, f in zip(b, functions, strict=True)))
    seen = [observation] if isinstance(observation, Observation) else observation
    for one in seen:
        composition = composition & _scale_observation(one, scale)
    options = attrs.evolve(smc or SMC(), constraint=_energies(reward, constraint, scale, gradient))
    onto = None if project is None else check_projection(lambda z: project(z * scale) / scale, x_T / scale)
    # Draw: one swarm, in which x_T are the first particles
    n = len(x_T)
    T = len(convention.sigmas)
    is_table = convention.clock == "timestep"
    run = Run(Target(composition), n * particles, steps or (min(T, STEPS) if is_table else T), generator)
    sampler = _From(options, x_T, size, onto)
    follow = None if symmetrise is None else _after_steps(symmetrise)
    with count_rows() as spent:
        sampled = draw_samples(sampler, run, callback_on_step_end=follow, progress=False)
        report = sampled.report
        samples = sampled.samples[:n]
        if onto is not None:
            samples, chain = sampler.move(run, samples, moves)
            report = attrs.evolve(report, acceptance={**report.acceptance, **chain.acceptance})
    # What neither the particles nor the observations know
    notes = report.notes
    first = run.levels[0].alpha
    if first > SIGNAL:
        noisier = {"timestep": "a longer schedule", "sigma": "a larger first sigma", "time": "times up to 1"}
        got = f"the first level has {first:.2g} of the variance of data of deviation {scale:g}, and x_T is noise"
        notes = (*notes, f"{got}; use {noisier[convention.clock]}, or correct scale=")
    report = attrs.evolve(report, evaluations=spent.rows, notes=notes)
    for warning in report.warnings:
        warnings.warn(warning, EnergycompWarning, stacklevel=2)
    return (samples * scale).to(x_T), report


def _check_noise(x_T: Any, size: float) -> None:
    """Raises `InputError` where x_T is not noise of the first level, whose deviation is `size`."""
    if not isinstance(x_T, Tensor) or x_T.ndim < 2 or not len(x_T) or not x_T.is_floating_point():
        got = f"{x_T.dtype} {tuple(x_T.shape)}" if isinstance(x_T, Tensor) else type(x_T).__name__
        raise InputError(f"got x_T: {got}; expected noise (n, *shape) of floats; give torch.randn(n, *shape)")
    deviation = float(x_T.double().std()) / size if x_T.numel() >= SEVERAL else 1.0
    if not NOISE[0] < deviation < NOISE[1]:
        got = f"got x_T with a deviation {deviation:.2g} times that of noise at the first level, {size:.3g}"
        raise InputError(f"{got}; expected noise of this level; give {size:.3g} * torch.randn(n, *shape)")


def _after_steps(f: Callable[[Tensor], Tensor]) -> StepCallback:
    return lambda *arguments: {"sample": f(arguments[-1]["sample"])}


def _scale_observation(observation: Observation, scale: float) -> Observation:
    """The observation of data that are divided by a number."""
    if scale == 1.0:
        return observation
    operator = observation.operator
    variance = None if observation.variance is None else observation.variance / scale**2
    if isinstance(operator, Linear):
        return Observation(operator, observation.y / scale, observation.std / scale, variance)
    return Observation(lambda z: operator(z * scale), observation.y, observation.std, variance)


def _energies(
    reward: Callable[[Tensor], Tensor] | None, constraint: Any, scale: float, gradient: bool
) -> Constraint | None:
    """What `SMC` takes for a reward and a constraint; None without them."""
    if reward is None and constraint is None:
        return None
    own = constraint if constraint is None or isinstance(constraint, Constraint) else Constraint(constraint)

    def energy(u: Tensor) -> Tensor:
        z = u * scale
        total = torch.zeros(len(z), dtype=torch.float64, device=z.device) if own is None else own(z)
        if reward is None:
            return total
        return total + evaluate_energies("reward", wraps(reward)(lambda z: -reward(z)), len(z), z)

    return Constraint(energy, gradient=gradient or (own is not None and own.gradient))


@attrs.frozen(eq=False)
class _From:
    """`SMC` from given noise, whose samples lie on a set in the end."""

    smc: SMC
    first: Tensor
    size: float
    project: Project | None

    def start(self, run: Run, /) -> Steps:
        swarm = self.smc.start(run)
        target, observations = without_observations(run.target)
        # The first particles: the given noise as that of variance-preserving samples
        level = run.levels[0]
        total = sum(target.weights_at(level.timestep))
        swarm.x[: len(self.first)] = self.first.to(swarm.x) * ((1.0 - level.alpha) / total) ** 0.5 / self.size
        if self.project is not None:
            evidence = ProjectedEvidence(self.project, evidence_of(observations, target) if observations else None)
            spread = spread_of(target, given_variance(observations))
            swarm.observed = ObservationFactor(swarm.weighing.log_weights, run, evidence, spread, ends_at_draw=True)
        return swarm

    def move(self, run: Run, samples: Tensor, moves: int) -> tuple[Tensor, Chain]:
        """Samples (B, *shape) after moves along the set, which leave their density on it as it is."""
        project: Any = self.project
        target, observations = without_observations(run.target)
        evidence = evidence_of(observations, target) if observations else None
        level = run.levels[-1]
        root = level.alpha**0.5  # of the last level, where a sample is x / root without its noise

        def tilt(x: Tensor) -> Tensor:
            z = x / root
            log_density = torch.zeros(len(z), dtype=torch.float64, device=z.device)
            if self.smc.constraint is not None:
                log_density = self.smc.constraint.log_density(target, z[None])[0]
            if evidence is not None:
                left = (evidence.y.to(z) - evidence.f(z)).double().square() / evidence.noise.double()
                log_density = log_density - 0.5 * left.flatten(1).sum(1)
            return log_density

        noise = run.noise((len(samples),))
        around = torch.cat([samples] * AROUND)
        solid = has_inside(project, around, run.noise((len(around),)))
        kernel = ProjectedMALA(lambda x: project(x / root) * root, tilt, solid, moves)
        density = Density(target, level, run.noise, run.uniform)
        # Begin with a step of half the inverse Fisher information along the set, or half the variance of the data
        x = root * samples[None]
        x0 = predict_clean(target, x, level)
        slope = kernel.tangent(x, density.state(x, x0).score).square().mean()
        free = kernel.tangent(x, noise[None]).square().mean()
        first = float(0.5 * free / torch.maximum(slope, free)) / density.noise
        chain = Chain(attrs.evolve(kernel, step_size=first), first)
        return project(chain.move(density, x, x0)[0][0] / root), chain
