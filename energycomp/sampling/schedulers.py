"""Which diffusers schedulers sample from a composition; one is trusted once it samples a Gaussian."""

from __future__ import annotations

import difflib
import functools
import inspect
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from energycomp.denoisers.denoiser import signal_noise
from energycomp.errors import CompositionError, InputError
from energycomp.sampling.sampler import Scheduler, sample

__all__ = ["compatible_schedulers", "make_scheduler"]

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
DEFAULT_SCHEDULER = "DDIMScheduler"
MAX_SIGMA = 80.0
MAX_START_ALPHA = 1e-3
MIN_ALPHA = 1e-9  # where diffusers' own cosine schedule ends


def make_scheduler(
    scheduler: str | type | Scheduler | None, alphas_cumprod: Tensor, *, prediction_type: str, clip: bool
) -> Scheduler:
    """The scheduler that samples from a composition with the noise schedule `alphas_cumprod (T,)`.

    A name or a class is built: trailing timesteps, a last step that ends at x0, and the first prediction type of the
    composition's own, "v_prediction" and "epsilon" that the class supports (v is stable at both ends of the schedule;
    epsilon divides by sqrt(alpha_bar)). An instance is used as it is configured.

    Args:
        scheduler: a diffusers class name in any case, "Scheduler" may be missing; a class; an instance; None for DDIM.
        alphas_cumprod: (T,), falling, in [0, 1).
        prediction_type: what the composition predicts: "epsilon", "sample" or "v_prediction".
        clip: clip x0 to [-1, 1] in every step, where the class has `clip_sample`.

    Raises:
        InputError: an unknown name, or a class that is built for another process than this one.
        CompositionError: an instance whose `alphas_cumprod` are not the composition's.

    >>> alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)
    >>> make_scheduler("ddim", alphas_cumprod, prediction_type="sample", clip=False).config.prediction_type
    'sample'
    """
    if prediction_type not in PREDICTION_TYPES:
        raise InputError(f"prediction_type: got {prediction_type!r}, expected one of {', '.join(PREDICTION_TYPES)}.")
    falling = alphas_cumprod.ndim == 1 and len(alphas_cumprod) > 0 and bool((alphas_cumprod.diff() <= 0).all())
    if not falling or not 0 <= float(alphas_cumprod[-1]) <= float(alphas_cumprod[0]) < 1:
        raise InputError(f"alphas_cumprod: got shape {tuple(alphas_cumprod.shape)}, expected (T,) falling in [0, 1).")
    if scheduler is None or isinstance(scheduler, str):
        scheduler = _find(scheduler or DEFAULT_SCHEDULER)
    if not isinstance(scheduler, type):
        _check_instance(scheduler, alphas_cumprod)
        return scheduler
    for kind in dict.fromkeys((prediction_type, "v_prediction", "epsilon")):
        if _supports(scheduler, kind):
            return _build(scheduler, alphas_cumprod, kind, clip)
    raise _incompatible(scheduler)


@functools.cache
def compatible_schedulers() -> tuple[str, ...]:
    """Names of the diffusers schedulers that sample from a composition: those that sample a Gaussian correctly.

    Each scheduler of the installed diffusers is tried once per process, about 2 s in all.

    >>> "DDIMScheduler" in compatible_schedulers(), "FlowMatchEulerDiscreteScheduler" in compatible_schedulers()
    (True, False)
    """
    import diffusers

    classes = {name: getattr(diffusers, name, None) for name in _names()}
    return tuple(name for name, cls in classes.items() if any(_supports(cls, kind) for kind in PREDICTION_TYPES))


def _names() -> list[str]:
    import diffusers

    return sorted(name for name in dir(diffusers) if name.endswith("Scheduler"))


def _find(name: str) -> type:
    import diffusers

    known = {full.lower(): full for full in _names()}
    full = known.get(name.lower()) or known.get(name.lower() + "scheduler")
    if full is not None:
        return getattr(diffusers, full)
    near = [n for n in compatible_schedulers() if n.lower().startswith(name.lower())]
    near = near or [known[n] for n in difflib.get_close_matches(name.lower(), known, n=3)]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise InputError(f"scheduler: got {name!r}, expected one of {', '.join(compatible_schedulers())}.{hint}")


def _incompatible(cls: type) -> InputError:
    return InputError(
        f"scheduler: {cls.__name__} does not sample from a composition: it is built for another process (flow "
        "matching, EDM, score SDE, consistency or distilled models, inversion), or what it needs is not installed. "
        f"Use one of {', '.join(compatible_schedulers())}."
    )


def _check_instance(scheduler: Scheduler, alphas_cumprod: Tensor) -> None:
    if not _is_plain(scheduler):
        raise _incompatible(type(scheduler))
    if not _has_schedule(scheduler, alphas_cumprod):
        raise CompositionError(
            f"scheduler: got a {type(scheduler).__name__} whose alphas_cumprod {_describe(scheduler.alphas_cumprod)}, "
            f"expected the composition's, which {_describe(alphas_cumprod)}. Give the class or its name to have it "
            "built with the composition's schedule."
        )


def _has_schedule(scheduler: Scheduler, alphas_cumprod: Tensor) -> bool:
    got = scheduler.alphas_cumprod
    expected = alphas_cumprod.to(got)
    both = min(len(got), len(expected))  # one may go on further into what is nothing but noise
    rest = torch.cat([got[both:], expected[both:]])
    return torch.allclose(got[:both], expected[:both], rtol=0, atol=1e-4) and bool((rest < 2e-4).all())


def _describe(alphas_cumprod: Tensor) -> str:
    T = len(alphas_cumprod)
    first, middle, last = (float(alphas_cumprod[i]) for i in (0, T // 2, -1))
    return f"fall from {first:.5g} over {middle:.5g} to {last:.5g} in {T} timesteps"


def _is_plain(scheduler: Scheduler) -> bool:
    """Whether it has an `alphas_cumprod`, a prediction type of ours, and steps by prediction, timestep and sample."""
    if not hasattr(scheduler, "step"):
        return False
    parameters = inspect.signature(scheduler.step).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    return (
        isinstance(getattr(scheduler, "alphas_cumprod", None), Tensor)
        and scheduler.config.get("prediction_type") in PREDICTION_TYPES
        and set(needed) <= {"model_output", "timestep", "sample"}
    )


def _build(cls: Any, alphas_cumprod: Tensor, prediction_type: str, clip: bool) -> Scheduler:
    wanted = {
        "prediction_type": prediction_type,
        "clip_sample": clip,
        "timestep_spacing": "trailing",
        "set_alpha_to_one": True,
        "final_sigmas_type": "zero",
        "lower_order_final": True,
        "skip_prk_steps": True,  # the Runge-Kutta warm-up of PNDM asks for timesteps beyond T
    }
    taken = inspect.signature(cls.__init__).parameters
    options = {key: value for key, value in wanted.items() if key in taken}
    alphas = alphas_cumprod.detach().to("cpu", torch.float64).clamp(min=MIN_ALPHA)
    scheduler = cls(num_train_timesteps=len(alphas), trained_betas=_betas(alphas), **options)
    # Solvers that work in sigma = sqrt(1 / alpha_bar - 1) start at its maximum, 20000 for a cosine schedule: Heun's
    # first step is then off by orders of magnitude, and ancestral ones lose the difference of two squares to rounding.
    # They get the schedule without its end, as Karras et al. (2022, table 1) start the cosine schedule at sigma 80.
    start = alphas[alphas >= 1 / (1 + MAX_SIGMA**2)]
    if float(scheduler.init_noise_sigma) > MAX_SIGMA and (start < MAX_START_ALPHA).any():
        scheduler = cls(num_train_timesteps=len(start), trained_betas=_betas(start), **options)
    return scheduler


def _betas(alphas: Tensor) -> NDArray[np.float64]:
    betas: NDArray[np.float64] = (1 - alphas / torch.cat([torch.ones_like(alphas[:1]), alphas[:-1]])).numpy()
    return betas


@functools.cache
def _supports(cls: Any, prediction_type: str) -> bool:
    """Whether `cls` samples N(m, s^2) from its exact prediction, in 100 steps, without the global random state.

    Judging by the outcome also finds classes that ignore their prediction type, replace the schedule (CogVideoX), are
    for distilled models (LCM, TCD), go the other way (the inverse ones), or seed a Brownian tree from the global random
    state (DPMSolverSDE), so that no generator makes them repeatable.
    """
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    m, s = 0.3, 0.5
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = torch.get_rng_state()
        try:
            if not issubclass(cls, SchedulerMixin):
                return False
            scheduler = _build(cls, alphas_cumprod, prediction_type, clip=False)
            if not (_is_plain(scheduler) and _has_schedule(scheduler, alphas_cumprod)):
                return False
            predict = functools.partial(_predict_gaussian, alphas_cumprod, m, s)
            noise = torch.Generator().manual_seed(0)
            x = sample(predict, (1024, 1, 1, 1), scheduler, num_inference_steps=100, generator=noise, progress=False)
        except Exception:  # a class that fails in any way, a missing dependency included, is one that does not work
            return False
        repeatable = torch.equal(before, torch.get_rng_state())
    return repeatable and abs(float(x.mean()) - m) < 0.1 * s and abs(float(x.std()) - s) < 0.1 * s


def _predict_gaussian(
    alphas_cumprod: Tensor, m: float, s: float, x: Tensor, timestep: Tensor, prediction_type: str
) -> Tensor:
    # Notation: signal, noise -> sqrt(a), sqrt(1 - a), a = alpha_bar_t; x0 -> E[x_0 | x_t]; m, s -> mean, deviation.
    signal, noise = signal_noise(alphas_cumprod, timestep, torch.float64)
    residual = (x - signal * m) / ((signal * s) ** 2 + noise**2)
    x0, eps = m + s**2 * signal * residual, noise * residual
    return {"sample": x0, "epsilon": eps, "v_prediction": signal * eps - noise * x0}[prediction_type].to(x)
