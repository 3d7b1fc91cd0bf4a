"""The conformance check of samplers, on products of Gaussians whose mean and variance are known."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import Composition, Gaussian, flow_schedule
from energycomp.errors import NonFiniteError
from energycomp.sampling import Run, Sampled, Sampler, StepCallback, Target, draw_samples
from energycomp_lab.checks.expect import ConformanceError, expect, expect_same_state, expect_tensor

SHAPE = (1, 1, 2)
ROW = (2,)
SAMPLES = 1000
STEPS = 50


@attrs.frozen(eq=False, repr=False)
class _Breaking(Gaussian):
    broken_below: float = -1.0

    def eps(self, sample: Tensor, timestep: Tensor) -> Tensor:
        broken = bool((timestep < self.broken_below).any())
        return super().eps(sample, timestep) + (torch.nan if broken else 0.0)


def check_sampler(sampler: Sampler, *, exact: bool = False) -> None:
    """Checks a sampler on Gaussians and their products, whose mean and variance are known.

    Samples must have these for one Gaussian, under the cosine schedule, as rows of numbers, and under the schedule of
    a rectified flow, and for a product whose scores are exact at every noise level (all factors as wide as u). The
    sampler must repeat samples for the same generator seed, leave the global random state unchanged, draw one sample,
    go on with what a callback makes of it after any step, and name a component whose prediction is NaN in a
    `NonFiniteError`. It may choose the number of its steps.

    Args:
        exact: whether a product of other widths must be right, too. The sum of scores is not its score.

    >>> from energycomp.sampling import SchedulerSampler
    >>> check_sampler(SchedulerSampler())
    >>> check_sampler(SchedulerSampler(), exact=True)
    Traceback (most recent call last):
    energycomp_lab.checks.expect.ConformanceError: got variance 0.0... from SchedulerSampler for a + b - u; ...
    """
    name = type(sampler).__name__
    state = torch.get_rng_state()
    for options in ({}, {"sample_shape": ROW}, {"alphas_cumprod": flow_schedule()}):
        _check_moments(sampler, Composition.of(_gaussian(0.4, 0.25, **options)), 0.4, 0.25)
    _check_moments(sampler, _product(0.5, -0.2, 0.25, u=0.25), 0.3, 0.25)
    if exact:
        # precisions 4 + 4 - 1, and precisions times means 4 - 0.8
        _check_moments(sampler, _product(1.0, -0.2, 0.25, u=1.0), 3.2 / 7, 1 / 7)
    expect_same_state(state, f" by {name}")
    _check_repeats(sampler)
    _check_callback(sampler)
    _check_broken(sampler)


def _gaussian(mean: float, variance: float, name: str = "a", **options: Any) -> _Breaking:
    return _Breaking(mean, variance, name, **{"sample_shape": SHAPE, **options})


def _product(first: float, second: float, variance: float, *, u: float) -> Composition:
    none = _gaussian(0.0, u, "u", unconditional="self")
    a, b = (_gaussian(m, variance, name, unconditional=none) for m, name in ((first, "a"), (second, "b")))
    return a + b - none


def _run(
    sampler: Sampler, target: Target, n: int, seed: int = 0, *, steps: int = 10, callback: StepCallback | None = None
) -> Sampled:
    run = Run(target, n, steps, torch.Generator().manual_seed(seed))
    sampled = draw_samples(sampler, run, callback_on_step_end=callback, progress=False)
    what = f"samples of {type(sampler).__name__}"
    shape = target.noised_space.sample_shape
    expect_tensor(sampled.samples, (n, *shape), what, "return n samples (n, *sample_shape)")
    return sampled


def _check_moments(sampler: Sampler, composition: Composition, mean: float, variance: float) -> None:
    x = _run(sampler, Target(composition), SAMPLES, steps=STEPS).samples.double()
    what = f"from {type(sampler).__name__} for {composition!r}"
    found = float(x.var())
    # The bounds allow for an effective sample size of half the samples, and for the error of 50 steps.
    expect(abs(found / variance - 1) < 0.15, f"variance {found:.3f} {what}", f"{variance:.3f}", "check the noise added")
    off = abs(float(x.mean()) - mean)
    expect(off < 0.15 * variance**0.5, f"mean {float(x.mean()):.3f} {what}", f"{mean:.3f}", "check the kernels")


def _check_repeats(sampler: Sampler) -> None:
    target = Target(_product(0.5, -0.2, 0.25, u=0.5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = _run(sampler, target, 8, seed=3).samples
        torch.manual_seed(2)
        again, other = (_run(sampler, target, 8, seed=seed).samples for seed in (3, 4))
    name = type(sampler).__name__
    same = torch.equal(first, again)
    expect(same, f"two results of {name} for one generator seed", "the same samples", "draw all noise from generator=")
    expect(not torch.equal(first, other), f"the same samples of {name} for two seeds", "others", "use generator=")


def _check_callback(sampler: Sampler) -> None:
    """Checks that each step starts, and the last one ends, with what a callback returned."""
    seen: list[tuple[int, ...]] = []

    def callback(_: int, __: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append(tuple(tensors["sample"].shape))
        return {"sample": torch.full_like(tensors["sample"], 0.25)}

    name = type(sampler).__name__
    samples = _run(sampler, Target(_product(0.5, -0.2, 0.25, u=0.5)), 1, callback=callback).samples
    expect(bool(seen), f"no step of {name}", "one or more `levels`", "yield `run.levels`, or others")
    shaped = all(shape[1:] == SHAPE for shape in seen)
    expect(shaped, f"`x` of the shapes {seen} in {name}", f"(B, {', '.join(map(str, SHAPE))})", "flatten particles")
    kept = bool((samples == 0.25).all())
    expect(kept, f"other samples of {name} than a callback returned", "the same", "take and end each step with `x`")


def _check_broken(sampler: Sampler) -> None:
    none = _gaussian(0.0, 1.0, "u", unconditional="self")
    broken = _gaussian(0.0, 1.0, "broken", broken_below=500.0, unconditional=none)
    what = f"{type(sampler).__name__} for a component that predicts NaN"
    try:
        _run(sampler, Target(_gaussian(0.0, 1.0, unconditional=none) & broken), 2)
    except NonFiniteError as error:
        named = "broken" in str(error)
        expect(named, f"{error} from {what}", "the name of the component", "predict with `target.predict`")
    except Exception as error:
        raise ConformanceError(
            f"got {type(error).__name__} from {what}; expected NonFiniteError; check first"
        ) from error
    else:
        raise ConformanceError(f"got samples from {what}; expected NonFiniteError; predict with `target.predict`")
