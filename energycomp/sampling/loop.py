"""The loop over noise levels: of every sampler, and of the schedulers of diffusers, which are the default one."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, TypeAlias, TypeVar, cast

import attrs
import torch
from torch import Tensor

from energycomp.components import Composition
from energycomp.components.prediction import PredictionType
from energycomp.components.space import LEAST_ALPHA
from energycomp.errors import InputError, NonFiniteError
from energycomp.fields import is_whole
from energycomp.progress import progress as shown
from energycomp.sampling.sampler import Run, Sampled, Sampler, Steps
from energycomp.sampling.schedulers import Scheduler, make_scheduler
from energycomp.sampling.target import Level, levels_at, shown_by
from energycomp.seeds import Generator, draw_noise, seeded

Predict: TypeAlias = Callable[[Tensor, Tensor, str], Tensor]
"""`(sample (B, C, H, W), timestep (B,), prediction_type) -> (B, C, H, W)`; the sample is variance preserving."""

StepCallback: TypeAlias = Callable[[int, Any, dict[str, Tensor]], Mapping[str, Any] | None]
"""`callback(step, timestep, {"sample": x_t})`. In a mapping that it returns, "sample" replaces the sample, and a true
"stop" ends the run."""

AnySteps = TypeVar("AnySteps", bound=Steps)

MAX_STRIDE_ERROR = 0.05


@torch.no_grad()
def draw_samples(
    sampler: Sampler, run: Run, *, callback_on_step_end: StepCallback | None = None, progress: bool = True
) -> Sampled:
    """Samples of a run, and the report of the sampler.

    Args:
        sampler: an object, such as `SchedulerSampler()`.
        run: what is drawn.
        callback_on_step_end: called after every step, see `StepCallback`.
        progress: whether to show a bar.

    Raises:
        NonFiniteError: a prediction is NaN or infinite; names the component and the step.
    """
    steps, level = _follow(sampler.start(run), callback_on_step_end, progress)
    sampled = steps.finish()
    if level is None or not level.is_last:
        return sampled
    # What the components themselves doubt of clean samples, such as what is observed
    notes = (*sampled.report.notes, *_doubts(run.target.composition, sampled, level))
    return attrs.evolve(sampled, report=attrs.evolve(sampled.report, notes=notes))


def _doubts(composition: Composition, sampled: Sampled, level: Level) -> list[str]:
    """What the leaves of a composition doubt of the samples that show them."""
    report = sampled.report
    notes: list[str] = []
    for leaf, weight in composition.terms.items():
        if (doubts := getattr(leaf, "doubts", None)) is None:
            continue
        shown_in = shown_by(weight, len(sampled.samples)).bool().to(sampled.samples.device)
        samples = sampled.samples[shown_in]
        if len(samples):
            how = {"is_drawn": report.is_drawn, "is_weighed": bool(report.ess)}
            notes += doubts(samples, level.timestep, **how)
    return notes


def _follow(steps: AnySteps, callback: StepCallback | None, progress: bool) -> tuple[AnySteps, Level | None]:
    """The loop: all steps are taken, or those until a callback stops them. The steps, and the last level."""
    level: Level | None = None
    levels = steps.levels
    total = f" of {len(levels)}" if isinstance(levels, Sized) else ""
    for level in shown(levels, "sampling", show=progress):
        # Take x to the next level; an error says in which step it happened.
        try:
            steps.step(level)
        except NonFiniteError as error:
            where = f"in step {level.step + 1}{total} (timestep {level.timestep:g})"
            raise NonFiniteError(f"{error} It happened {where}.") from error
        if callback is None:
            continue
        # Call back: it may replace the samples, or end the run.
        returned = callback(level.step, level.timestep, {"sample": steps.x}) or {}
        steps.x = returned.get("sample", steps.x)
        if returned.get("stop"):
            break
    return steps, level


@torch.no_grad()
def sample(
    predict: Predict,
    shape: Sequence[int],
    scheduler: Scheduler,
    *,
    num_inference_steps: int = 50,
    generator: Generator = None,
    initial: Tensor | None = None,
    callback_on_step_end: StepCallback | None = None,
    progress: bool = True,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A batch of samples `(B, C, H, W)`: one `predict` call of B rows per timestep of the scheduler.

    Second order schedulers (Heun, KDPM2) have about twice as many timesteps as `num_inference_steps`. The scheduler is
    copied, so that one instance serves many runs. Gradients are off; an energy turns them on for itself.

    Args:
        predict: called with the variance-preserving sample, timesteps in [0, T] that may be fractions, and the
            scheduler's prediction type.
        shape: (B, C, H, W), or (B, ...) of another rank.
        scheduler: an instance, from `make_scheduler`.
        num_inference_steps: 1 to T.
        generator: as of `draw_noise`.
        initial: (B, C, H, W) of unit variance at the first timestep, instead of noise (diffusers' `latents`).
        callback_on_step_end: as of `draw_samples`; x is in the scheduler's scaling.
        device, dtype: of the result; `initial`'s device, else the CPU, where `device` is None.

    Raises:
        NonFiniteError: a prediction or a step is NaN or infinite; names the step.
        InputError: a wrong shape, number of generators or number of steps.

    >>> from energycomp.sampling import make_scheduler
    >>> alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    >>> ddim = make_scheduler("ddim", alphas_cumprod, prediction_type="sample")
    >>> sample(lambda x, t, kind: torch.full_like(x, 0.25), (1, 1, 1, 2), ddim, num_inference_steps=5)
    tensor([[[[0.2500, 0.2500]]]])
    """
    # Check what is asked for.
    if len(shape) < 2 or not all(is_whole(side) and side >= 1 for side in shape):
        raise InputError(f"shape: got {tuple(shape)}, expected (B, C, H, W) or another (B, ...), each at least 1.")
    # Where, and by which random numbers.
    if device is None and initial is not None:
        device = initial.device
    device = None if device is None else torch.device(device)
    if initial is not None and initial.shape != tuple(shape):
        raise InputError(f"initial: got shape {tuple(initial.shape)}, expected {tuple(shape)}.")
    random = seeded(generator, shape[0])
    # Start: at noise, of the scheduler's scaling.
    made = _prepare(scheduler, num_inference_steps, device)
    if initial is None:
        initial = draw_noise(shape, generator=random, device=device, dtype=dtype)
    # Follow the scheduler from there.
    steps = _Scheduled(predict, made, random, initial.to(device, dtype) * made.init_noise_sigma)
    return _follow(steps, callback_on_step_end, progress)[0].x


@attrs.frozen
class SchedulerSampler:
    """Follows the sum of the scores with a diffusers scheduler, DDIM when left out. This is the default sampler.

    Costs one evaluation per leaf, sample and step. Samples do not follow the product in general (`docs/algebra.md`).

    Args:
        scheduler: name, class or instance of a diffusers scheduler, see `make_scheduler`.

    >>> from energycomp import Composer
    >>> from energycomp.components import Gaussian
    >>> sampler = SchedulerSampler("EulerDiscreteScheduler")
    >>> far = Composer([Gaussian(3.0, 0.01)])  # near 3, with the variance 0.01
    >>> far.sample(2, sampler=sampler, generator=0, num_inference_steps=20, output_type="pt", progress=False).flatten()
    tensor([3.1043, 2.9766])
    """

    scheduler: Any = None

    def start(self, run: Run, /) -> _Scheduled:
        """Noise at the first timestep of the scheduler."""
        # The scheduler, for the schedule and the prediction type of the composition.
        target = run.target
        space = target.noised_space
        scheduler = make_scheduler(
            self.scheduler,
            space.alphas_cumprod,
            prediction_type=target.prediction_type,
            value_range=space.value_range,
        )
        made = _prepare(scheduler, run.num_inference_steps, target.device)

        def predict(x: Tensor, timestep: Tensor, kind: str) -> Tensor:
            return target.compose(x, timestep, prediction_type=cast("PredictionType", kind))

        # Noise, of the scheduler's scaling.
        return _Scheduled(predict, made, run.generator, run.noise() * made.init_noise_sigma)


@attrs.define(eq=False)
class _Scheduled(Steps):
    """The steps of a scheduler, at its own timesteps. `x` is in its scaling."""

    predict: Predict
    scheduler: Scheduler
    generator: torch.Generator | list[torch.Generator]
    x: Tensor
    dtype: torch.dtype = attrs.field(init=False)
    options: dict[str, Any] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.dtype = self.x.dtype  # a callback may return another one
        takes = inspect.signature(self.scheduler.step).parameters
        self.options = {"generator": self.generator} if "generator" in takes else {}

    @property
    def levels(self) -> list[Level]:
        return levels_at(self.scheduler.alphas_cumprod.clamp(min=LEAST_ALPHA), self.scheduler.timesteps)

    def step(self, level: Level, /) -> None:
        timestep = self.scheduler.timesteps[level.step]
        # Predict at the variance-preserving sample.
        scaled = self.scheduler.scale_model_input(self.x, timestep).to(self.dtype)
        rows = timestep.to(scaled.device, torch.float32).expand(len(scaled))
        prediction = self.predict(scaled, rows, str(self.scheduler.config.prediction_type))
        if prediction.shape != self.x.shape:
            raise InputError(f"predict: got {tuple(prediction.shape)}, expected {tuple(self.x.shape)}.")
        _check_finite(prediction, "The prediction")
        # Step, as the scheduler does.
        y = self.scheduler.step(prediction, timestep, self.x, **self.options, return_dict=False)[0]
        self.x = y.to(self.dtype)
        _check_finite(self.x, f"The sample that {type(self.scheduler).__name__} made")


def _prepare(scheduler: Scheduler, num_inference_steps: int, device: torch.device | None) -> Scheduler:
    """A copy of a scheduler with the timesteps of a run; raises `InputError` for steps that it does not take."""
    scheduler = copy.deepcopy(scheduler)
    # As many steps as it has timesteps, at most.
    T = int(scheduler.config.num_train_timesteps)
    name = type(scheduler).__name__
    if not is_whole(num_inference_steps) or not 1 <= num_inference_steps <= T:
        got = f"got {num_inference_steps!r}"
        raise InputError(f"num_inference_steps: {got}, expected 1 to {T}, the timesteps of {name}.")
    # DDIM and PNDM, told by set_alpha_to_one, step by T // n where their timesteps are T / n apart: noise is left over.
    strides = "set_alpha_to_one" in scheduler.config
    stride = T // num_inference_steps
    exact = T / num_inference_steps
    if strides and exact / stride - 1 > MAX_STRIDE_ERROR:
        got = f"got {num_inference_steps}, and {name} then steps by {stride} instead of {exact:.2f} timesteps"
        raise InputError(
            f"num_inference_steps: {got}; use {T // (stride + 1)}, a divisor of {T}, or dpmsolvermultistep"
        )
    # Timesteps of this run.
    try:
        scheduler.set_timesteps(num_inference_steps, device=device)
        # np.arange(T, 0, -T / n) is rounded to n + 1 values for some n, 61 of 1000 say, and the last timestep is -1:
        # it is left out where steps have strides, and the others are spaced anew.
        if scheduler.timesteps.min() < 0 and scheduler.config.get("timestep_spacing") == "trailing":
            if strides:
                scheduler.timesteps = scheduler.timesteps[scheduler.timesteps >= 0]
            else:
                scheduler.register_to_config(timestep_spacing="linspace")
                scheduler.set_timesteps(num_inference_steps, device=device)
    except (ValueError, IndexError) as error:
        raise InputError(f"num_inference_steps: {name} does not take {num_inference_steps}: {error}") from error
    # Some configurations, such as Karras sigmas, have timesteps that the composition does not know.
    first = float(scheduler.timesteps.max())
    last = float(scheduler.timesteps.min())
    if not 0 <= last <= first <= T:
        got = f"{name} as configured has timesteps from {last:g} to {first:g}"
        raise InputError(f"scheduler: {got}, expected them in [0, {T}]; give its class to have it configured")
    return scheduler


def _check_finite(x: Tensor, what: str) -> None:
    if bool(torch.isfinite(x.sum())):
        return
    bad = int((~torch.isfinite(x)).sum())
    if bad:  # the sum alone may overflow
        why = "lower the weights or the guidance, or use dtype=torch.float32"
        raise NonFiniteError(f"{what} holds {bad} values that are not finite, of {x.numel()}; {why}.")
