"""The diffusers schedulers that sample from a composition, built with its noise schedule."""

from __future__ import annotations

import difflib
import inspect
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from energycomp.components.prediction import PREDICTION_TYPES, PredictionType, scheduled_as
from energycomp.components.space import LEAST_ALPHA, ValueRange
from energycomp.errors import CompositionError, InputError
from energycomp.imports import light_diffusers
from energycomp.sampling.flow import FLOW_SCHEDULERS, FlowScheduler, check_flow_instance

Scheduler: TypeAlias = Any  # a diffusers SchedulerMixin, which declares neither step nor timesteps

VARIANCE_PRESERVING = tuple(kind for kind in PREDICTION_TYPES if scheduled_as(kind) == kind)
# Those that sample a Gaussian correctly and repeatably from its exact prediction, on linear and cosine schedules.
# tests/sampling compares this list with a trial of every scheduler of diffusers. Those of the second list have no
# prediction type "sample".
SCHEDULERS = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
    "SASolverScheduler",
    "UniPCMultistepScheduler",
)
WITHOUT_SAMPLE = (
    "EulerAncestralDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "PNDMScheduler",
)
DEFAULT_SCHEDULER = "DDIMScheduler"
PNDM = "PNDMScheduler"
MAX_SIGMA = 80.0
MAX_START_ALPHA = 1e-3
MIN_PNDM_ALPHA = 1e-5


def make_scheduler(
    scheduler: str | type | Scheduler | None,
    alphas_cumprod: Tensor,
    *,
    prediction_type: PredictionType,
    value_range: ValueRange | None = None,
) -> Scheduler:
    """The scheduler that samples from a composition with the noise schedule `alphas_cumprod (T,)`.

    A class is built with trailing timesteps and a last step that ends at x0. It gets the prediction type of the
    composition; where the class does not support that, "v_prediction", which is stable at both ends of the schedule. An
    instance is used as it is configured. The flow-matching schedulers come as a `FlowScheduler`, and do not clip.

    Args:
        scheduler: name of a diffusers class, in any case, with or without "Scheduler"; a class; an instance; None for
            DDIM.
        alphas_cumprod: (T,), decreasing, in [0, 1).
        prediction_type: what the composition predicts: "epsilon", "sample", "v_prediction" or "flow".
        value_range: (-r, r), to which x0 is clipped in every step, for classes with `clip_sample` (DDIM, DDPM, Heun);
            None for no clipping.

    Raises:
        InputError: an unknown name, or a class or an instance for another process than these.
        CompositionError: an instance whose `alphas_cumprod` are not the composition's.

    >>> alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    >>> make_scheduler("ddim", alphas_cumprod, prediction_type="sample").config.prediction_type
    'sample'
    """
    if prediction_type not in PREDICTION_TYPES:
        raise InputError(f"prediction_type: got {prediction_type!r}, expected one of {', '.join(PREDICTION_TYPES)}.")
    falling = alphas_cumprod.ndim == 1 and len(alphas_cumprod) > 0 and bool((alphas_cumprod.diff() <= 0).all())
    if not falling or not 0 <= float(alphas_cumprod[-1]) <= float(alphas_cumprod[0]) < 1:
        raise InputError(f"alphas_cumprod: got shape {tuple(alphas_cumprod.shape)}, expected (T,) falling in [0, 1).")
    # A name is a class.
    if scheduler is None or isinstance(scheduler, str):
        scheduler = _find(scheduler or DEFAULT_SCHEDULER)
    # Flow matching, over the samples of the composition.
    if isinstance(scheduler, FlowScheduler):
        _check_schedule(scheduler, alphas_cumprod)
        return scheduler
    if _names(scheduler if isinstance(scheduler, type) else type(scheduler)) & {*FLOW_SCHEDULERS}:
        return _flow(scheduler, alphas_cumprod)
    # An instance is used as it is configured.
    if not isinstance(scheduler, type):
        _check_instance(scheduler, alphas_cumprod)
        return scheduler
    # A class is built for the composition.
    names = _names(scheduler)
    # It is asked for what the composition predicts, where it takes that, so that nothing is converted.
    prediction_type = scheduled_as(prediction_type)
    if names & {PNDM}:
        prediction_type = "v_prediction" if _averages_noise(scheduler, alphas_cumprod) else "epsilon"
    elif names & {*WITHOUT_SAMPLE} and prediction_type == "sample":
        prediction_type = "v_prediction"
    if names & {*SCHEDULERS, *WITHOUT_SAMPLE}:
        return _build(scheduler, alphas_cumprod, prediction_type, value_range)
    raise _incompatible(scheduler)


def compatible_schedulers() -> tuple[str, ...]:
    """Names of the diffusers schedulers that sample from a composition.

    >>> "DDIMScheduler" in compatible_schedulers(), "LCMScheduler" in compatible_schedulers()
    (True, False)
    """
    return tuple(sorted((*SCHEDULERS, *WITHOUT_SAMPLE, *FLOW_SCHEDULERS)))


def _names(cls: type) -> set[str]:
    """The classes of diffusers that it is or derives from."""
    return {base.__name__ for base in cls.__mro__ if base.__module__.startswith("diffusers.")}


def _averages_noise(cls: type, alphas_cumprod: Tensor) -> bool:
    """Whether it is PNDM, which averages predictions over sqrt(alpha_bar), on a schedule that ends in noise."""
    return PNDM in _names(cls) and float(alphas_cumprod[-1]) < MIN_PNDM_ALPHA


def _find(name: str) -> type:
    with light_diffusers():
        import diffusers

    # In any case, with or without "Scheduler".
    known = {full.lower(): full for full in dir(diffusers) if full.endswith("Scheduler")}
    low = name.lower()
    full = known.get(low) or known.get(low + "scheduler")
    if full is not None:
        return getattr(diffusers, full)
    # An unknown name: those that begin like it, or look like it.
    near = [n for n in compatible_schedulers() if n.lower().startswith(low)]
    near = near or [known[n] for n in difflib.get_close_matches(low, known, n=3)]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InputError(f"scheduler: got {name!r}, expected one of {', '.join(compatible_schedulers())}.{hint}")


def _incompatible(cls: type) -> InputError:
    return InputError(
        f"scheduler: {cls.__name__} does not sample from a composition: it is built for another process "
        "(EDM, score SDE, consistency or distilled models, inversion), or what it needs is not installed. "
        f"Use one of {', '.join(compatible_schedulers())}."
    )


def _flow(scheduler: Any, alphas_cumprod: Tensor) -> FlowScheduler:
    """A flow-matching scheduler, given as a class or an instance, over the samples of the composition."""
    alphas = alphas_cumprod.detach().clamp(min=LEAST_ALPHA)
    if isinstance(scheduler, type):
        return FlowScheduler(scheduler(num_train_timesteps=len(alphas)), alphas, own_levels=True)
    check_flow_instance(scheduler, alphas)
    return FlowScheduler(scheduler, alphas, own_levels=False)


def _check_instance(scheduler: Scheduler, alphas_cumprod: Tensor) -> None:
    if not _is_plain(scheduler):
        raise _incompatible(type(scheduler))
    _check_schedule(scheduler, alphas_cumprod)
    if scheduler.config.prediction_type == "epsilon" and _averages_noise(type(scheduler), alphas_cumprod):
        raise InputError(
            f"scheduler: got a {type(scheduler).__name__} with the prediction type 'epsilon' on a schedule that ends "
            "in noise: samples would be far too wide; expected 'v_prediction'; give the class or its name"
        )


def _has_schedule(scheduler: Scheduler, alphas_cumprod: Tensor) -> bool:
    got = scheduler.alphas_cumprod
    expected = alphas_cumprod.to(got)
    # Equal at the timesteps that both have
    both = min(len(got), len(expected))
    if not torch.allclose(got[:both], expected[:both], rtol=0, atol=1e-4):
        return False
    # The longer one may have further timesteps of pure noise
    rest = torch.cat([got[both:], expected[both:]])
    return bool((rest < 2e-4).all())


def _check_schedule(scheduler: Scheduler, alphas_cumprod: Tensor) -> None:
    if not _has_schedule(scheduler, alphas_cumprod):
        raise CompositionError(
            f"scheduler: got a {type(scheduler).__name__} whose alphas_cumprod {_describe(scheduler.alphas_cumprod)}, "
            f"expected the composition's, which {_describe(alphas_cumprod)}; give the class or its name"
        )


def _describe(alphas_cumprod: Tensor) -> str:
    T = len(alphas_cumprod)
    middle = float(alphas_cumprod[T // 2])
    return f"fall from {alphas_cumprod[0]:.5g} over {middle:.5g} to {alphas_cumprod[-1]:.5g} in {T} timesteps"


def _is_plain(scheduler: Scheduler) -> bool:
    """Whether it has an `alphas_cumprod`, a prediction type of ours, and steps by prediction, timestep and sample."""
    # A step by prediction, timestep and sample, without anything else that a caller has to know
    if not (hasattr(scheduler, "step") and hasattr(scheduler, "config")):
        return False
    parameters = inspect.signature(scheduler.step).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    has_step = set(needed) <= {"model_output", "timestep", "sample"}
    # A variance-preserving schedule, and a type of prediction that a composition has
    has_schedule = isinstance(vars(scheduler).get("alphas_cumprod"), Tensor)
    return has_step and has_schedule and scheduler.config.get("prediction_type") in VARIANCE_PRESERVING


def _build(cls: Any, alphas_cumprod: Tensor, prediction_type: str, value_range: ValueRange | None) -> Scheduler:
    wanted = {
        "prediction_type": prediction_type,
        "clip_sample": value_range is not None,
        "clip_sample_range": 1.0 if value_range is None else value_range[1],
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
        "final_sigmas_type": "zero",
        "lower_order_final": True,
        "skip_prk_steps": True,  # the Runge-Kutta warm-up of PNDM asks for timesteps beyond T
    }
    # Of these options, those that the class takes.
    taken = inspect.signature(cls.__init__).parameters
    options = {key: value for key, value in wanted.items() if key in taken}
    # The schedule of the composition, as betas.
    alphas = alphas_cumprod.detach().to("cpu", torch.float64).clamp(min=LEAST_ALPHA)
    scheduler = cls(num_train_timesteps=len(alphas), trained_betas=_betas(alphas), **options)
    # Solvers in sigma = sqrt(1 / alpha_bar - 1) start at its maximum, which is 20000 for a cosine schedule. The first
    # step of Heun is then wrong by orders of magnitude, and ancestral solvers lose the difference of two squares to
    # rounding. They get the schedule without its end, as Karras et al. (2022, table 1) start cosine at sigma 80.
    start = alphas[alphas >= 1 / (1 + MAX_SIGMA**2)]
    if float(scheduler.init_noise_sigma) > MAX_SIGMA and (start < MAX_START_ALPHA).any():
        scheduler = cls(num_train_timesteps=len(start), trained_betas=_betas(start), **options)
    return scheduler


def _betas(alphas: Tensor) -> NDArray[np.float64]:
    # beta_t = 1 - alpha_bar_t / alpha_bar_(t-1), with alpha_bar = 1 before the first timestep
    before = torch.cat([torch.ones_like(alphas[:1]), alphas[:-1]])
    betas: NDArray[np.float64] = (1 - alphas / before).numpy()
    return betas
