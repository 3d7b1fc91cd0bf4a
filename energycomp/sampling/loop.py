"""The loop of a diffusers scheduler: over any prediction, and as the default sampler of compositions."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import attrs
import torch
from torch import Tensor

from energycomp.components.prediction import PredictionType
from energycomp.errors import InputError, NonFiniteError
from energycomp.imports import without_compiler
from energycomp.progress import progress as shown
from energycomp.sampling.sampler import Sampled, StepCallback, Target
from energycomp.sampling.schedulers import Scheduler, make_scheduler
from energycomp.seeds import Generator, as_generators

Predict: TypeAlias = Callable[[Tensor, Tensor, str], Tensor]
"""`(sample (B, C, H, W), timestep (B,), prediction_type) -> (B, C, H, W)`; the sample is variance preserving."""

MAX_STRIDE_ERROR = 0.05


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
        callback_on_step_end: as of `Sampler.sample`; x is in the scheduler's scaling. A
            mapping whose "stop" is true ends the run.
        progress: whether to show a bar.
        device, dtype: of the result; `initial`'s device, else the CPU, where `device` is None. Timesteps are float32.

    Raises:
        NonFiniteError: a prediction or a step is NaN or infinite; names the step.
        InputError: a wrong shape, number of generators or number of steps.

    >>> from energycomp.sampling import make_scheduler
    >>> alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    >>> ddim = make_scheduler("ddim", alphas_cumprod, prediction_type="sample")
    >>> sample(lambda x, t, kind: torch.full_like(x, 0.25), (1, 1, 1, 2), ddim, num_inference_steps=5)
    tensor([[[[0.2500, 0.2500]]]])
    """
    if len(shape) < 2 or min(shape) < 1:
        raise InputError(f"shape: got {tuple(shape)}, expected (B, C, H, W) or another (B, ...), each at least 1.")
    scheduler = copy.deepcopy(scheduler)
    kind = str(scheduler.config.prediction_type)
    device = torch.device(device) if device is not None else initial.device if initial is not None else None
    if initial is not None and initial.shape != tuple(shape):
        raise InputError(f"initial: got shape {tuple(initial.shape)}, expected {tuple(shape)}.")
    generator = _generators(generator, shape[0])
    _set_timesteps(scheduler, num_inference_steps, device)
    x = draw_noise(shape, generator=generator, device=device, dtype=dtype) if initial is None else initial
    x = x.to(device, dtype) * scheduler.init_noise_sigma
    accepted = inspect.signature(scheduler.step).parameters
    options = {"generator": generator} if "generator" in accepted else {}
    count = len(scheduler.timesteps)
    for step, t in enumerate(shown(scheduler.timesteps, "sampling", show=progress)):
        where = f"in step {step + 1} of {count} (timestep {float(t):g})"
        scaled = scheduler.scale_model_input(x, t).to(dtype)
        timestep = t.to(scaled.device, torch.float32).expand(len(x))
        try:
            prediction = predict(scaled, timestep, kind)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error} It happened {where}.") from error
        if prediction.shape != x.shape:
            raise InputError(f"predict: got {tuple(prediction.shape)} {where}, expected {tuple(x.shape)}.")
        _check_finite(prediction, f"The prediction {where}")
        x = scheduler.step(prediction, t, x, **options, return_dict=False)[0].to(dtype)
        _check_finite(x, f"The sample that {type(scheduler).__name__} made {where}")
        if callback_on_step_end is not None:
            returned = callback_on_step_end(step, float(t), {"sample": x}) or {}
            x = returned.get("sample", x)
            if returned.get("stop"):
                break
    return x


@attrs.frozen
class SchedulerSampler:
    """Follows the sum of the scores with a diffusers scheduler, DDIM when left out. This is the default sampler.

    Costs one evaluation per leaf, sample and step. Samples do not follow the product in general (`docs/algebra.md`).
    """

    scheduler: Any = None

    def sample(self, target: Target, n: int, **options: Any) -> Sampled:
        """n samples; options are those of `energycomp.sampling.sample`, see `Sampler.sample`."""
        space = target.noised_space
        kind, clipped = target.prediction_type, space.value_range
        made = make_scheduler(self.scheduler, space.alphas_cumprod, prediction_type=kind, value_range=clipped)

        def predicted(x: Tensor, timestep: Tensor, kind: str) -> Tensor:
            return target.compose(x, timestep, prediction_type=cast("PredictionType", kind))

        return Sampled(sample(predicted, (n, *space.sample_shape), made, device=target.device, **options))


def _generators(generator: Generator, batch: int) -> torch.Generator | list[torch.Generator]:
    generator = as_generators(generator)
    if generator is None:
        generator = torch.Generator()
        generator.seed()
    if isinstance(generator, torch.Generator):
        return generator
    if len(generator) != batch:
        raise InputError(
            f"generator: got a list of {len(generator)}, expected one generator or {batch}, one per sample"
        )
    return generator


def _set_timesteps(scheduler: Scheduler, num_inference_steps: int, device: torch.device | None) -> None:
    T, name = int(scheduler.config.num_train_timesteps), type(scheduler).__name__
    if not 1 <= num_inference_steps <= T:
        raise InputError(f"num_inference_steps: got {num_inference_steps}, expected 1 to {T}, the timesteps of {name}.")
    # DDIM and PNDM, told by set_alpha_to_one, step by T // n where their timesteps are T / n apart: noise is left over.
    strides = "set_alpha_to_one" in scheduler.config
    stride, exact = T // num_inference_steps, T / num_inference_steps
    if strides and exact / stride - 1 > MAX_STRIDE_ERROR:
        got = f"got {num_inference_steps}, and {name} then steps by {stride} instead of {exact:.2f} timesteps"
        raise InputError(
            f"num_inference_steps: {got}; use {T // (stride + 1)}, a divisor of {T}, or dpmsolvermultistep"
        )
    try:
        scheduler.set_timesteps(num_inference_steps, device=device)
        # np.arange(T, 0, -T / n) is rounded to n + 1 values for some n, 61 of 1000 say, and the last timestep is -1.
        if scheduler.timesteps.min() < 0 and scheduler.config.get("timestep_spacing") == "trailing":
            if strides:
                scheduler.timesteps = scheduler.timesteps[scheduler.timesteps >= 0]
            else:
                scheduler.register_to_config(timestep_spacing="linspace")
                scheduler.set_timesteps(num_inference_steps, device=device)
    except (ValueError, IndexError) as error:
        raise InputError(f"num_inference_steps: {name} does not take {num_inference_steps}: {error}") from error
    first, last = float(scheduler.timesteps.max()), float(scheduler.timesteps.min())
    if not 0 <= last <= first <= T:
        got = f"{name} as configured has timesteps from {last:g} to {first:g}"
        raise InputError(f"scheduler: {got}, expected them in [0, {T}]; give its class to have it configured")


def draw_noise(
    shape: Sequence[int],
    *,
    generator: Generator = None,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Standard normal noise (B, ...).

    Args:
        generator: one, or a seed; or one for each of the B samples, which makes a sample independent of its batch; None
            draws a fresh seed and leaves the global one alone. `InputError` for another number of them.

    >>> both = draw_noise((2, 3), generator=[torch.Generator().manual_seed(seed) for seed in (0, 0)])
    >>> torch.equal(both[0], both[1])
    True
    """
    with without_compiler():
        from diffusers.utils.torch_utils import randn_tensor

    noise: Tensor = randn_tensor(tuple(shape), generator=_generators(generator, shape[0]), device=device, dtype=dtype)
    return noise


def _check_finite(x: Tensor, what: str) -> None:
    if not torch.isfinite(x.sum()) and (bad := int((~torch.isfinite(x)).sum())):  # the sum alone may overflow
        why = "lower the weights or the guidance, or use dtype=torch.float32"
        raise NonFiniteError(f"{what} holds {bad} values that are not finite, of {x.numel()}; {why}.")
