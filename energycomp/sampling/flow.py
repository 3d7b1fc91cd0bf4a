"""The flow-matching schedulers of diffusers over variance-preserving samples.

Notation: variable -> symbol
    level           t, the share of noise in a sample of the rectified flow x_f = (1 - t) x0 + t eps
    length          r = sqrt((1 - t)^2 + t^2): x_f / r is the variance-preserving sample with
                    alpha_bar = (1 - t)^2 / r^2
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components.precision import wide_type
from energycomp.components.space import flow_time, timestep_of, trailing_timesteps
from energycomp.errors import InputError
from energycomp.imports import light_diffusers
from energycomp.seeds import Generator

# tests/sampling compares this list with a trial of every scheduler of diffusers.
FLOW_SCHEDULERS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "LTXEulerAncestralRFScheduler",
)
LEVEL_TOLERANCE = 1e-3
NOISE_ENDS = 2e-4  # alpha_bar of a schedule that ends in noise


@attrs.define(eq=False)
class FlowScheduler:
    """A flow-matching scheduler of diffusers, with the members by which `energycomp.sampling.sample` runs a scheduler.

    It asks for the prediction type "flow" at variance-preserving samples, at timesteps of the composition's schedule.

    Args:
        inner: of one of the classes `FLOW_SCHEDULERS`.
        alphas_cumprod: noise schedule (T,) of the composition.
        own_levels: whether the noise levels are those of the composition's schedule, at trailing timesteps; otherwise
            they are those that the scheduler is configured for.

    >>> from diffusers import FlowMatchEulerDiscreteScheduler
    >>> from energycomp.components import flow_schedule
    >>> scheduler = FlowScheduler(FlowMatchEulerDiscreteScheduler(), flow_schedule(), own_levels=True)
    >>> scheduler.set_timesteps(4)
    >>> scheduler.timesteps.round()
    tensor([999., 749., 499., 249.])
    """

    inner: Any
    alphas_cumprod: Tensor
    own_levels: bool
    timesteps: Tensor = attrs.field(init=False, factory=lambda: torch.empty(0))
    step_index: int = attrs.field(init=False, default=0)

    @property
    def config(self) -> Any:
        """The prediction type and the number of timesteps of the composition, as in the config of a scheduler."""
        with light_diffusers():
            from diffusers.configuration_utils import FrozenDict

        T = len(self.alphas_cumprod)
        return FrozenDict({"prediction_type": "flow", "num_train_timesteps": T, "clip_sample": False})

    def set_timesteps(self, num_inference_steps: int, device: torch.device | str | None = None) -> None:
        """Sets the noise levels of a run, and the timesteps of the composition with their log-SNR."""
        self.inner.set_timesteps(num_inference_steps, device=device)
        if self.own_levels:
            # The levels of the composition, at its trailing timesteps.
            trailing = trailing_timesteps(len(self.alphas_cumprod), num_inference_steps)
            levels = flow_time(self.alphas_cumprod.cpu(), trailing).to(self.inner.sigmas)
            # A solver of second order is asked twice at every level but the first.
            levels = torch.cat([levels[:1], levels[1:].repeat_interleave(self.inner.order)])
            self.inner.timesteps = levels * self.inner.config.num_train_timesteps
            self.inner.sigmas = torch.cat([levels, levels.new_zeros(1)])
        # The timesteps of the composition at these levels, by their log-SNR.
        home = self.alphas_cumprod.device
        levels = self.inner.sigmas[: len(self.inner.timesteps)].to(home, wide_type(home))
        self.timesteps = timestep_of(self.alphas_cumprod, -2 * torch.logit(levels)).float().to(self.inner.sigmas.device)
        self.step_index = 0

    @property
    def init_noise_sigma(self) -> float:
        """The length of the flow's samples at the current level, for variance-preserving ones of unit variance."""
        # r = sqrt((1 - t)^2 + t^2)
        level = float(self.inner.sigmas[self.step_index])
        return ((1 - level) ** 2 + level**2) ** 0.5

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:  # noqa: ARG002 - the current one
        """The variance-preserving samples of samples of the flow, (B, C, H, W)."""
        return sample / self.init_noise_sigma

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor,  # noqa: ARG002 - the current one
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = False,  # noqa: ARG002 - always a tuple
    ) -> tuple[Tensor]:
        """A tuple of one: the flow's samples (B, C, H, W) at the next level."""
        # At its own timestep, which is another than that of the composition
        own = self.inner.timesteps[self.step_index]
        moved: tuple[Tensor] = self.inner.step(model_output, own, sample, generator=generator, return_dict=False)
        self.step_index += 1
        return moved


def check_flow_instance(scheduler: Any, alphas_cumprod: Tensor) -> None:
    """Raises `InputError` for an instance that runs the flow backwards, or has no levels of its own, or noisier ones
    than the composition, whose schedule (T,) may end before pure noise.
    """
    name = type(scheduler).__name__
    config = scheduler.config
    # What it is configured for.
    if config.get("use_dynamic_shifting"):
        got = f"scheduler: got a {name} with use_dynamic_shifting=True, whose shift depends on the resolution"
        raise InputError(f"{got}; expected False, and shift=exp(mu); build it so, or give the class or its name")
    if config.get("invert_sigmas"):
        raise InputError(f"scheduler: got a {name} with invert_sigmas=True; expected False; give the class or its name")
    # Whether it starts at noise that the composition does not know.
    last = float(alphas_cumprod[-1])
    noisiest = float(flow_time(alphas_cumprod, torch.tensor([len(alphas_cumprod) - 1.0])))
    start = float(vars(scheduler).get("sigma_max", 1.0))
    if last > NOISE_ENDS and start > noisiest + LEVEL_TOLERANCE:
        got = f"scheduler: got a {name} that starts at the noise level {start:.3g}"
        raise InputError(f"{got}, and a composition that ends at {noisiest:.3g}; give the class or its name")
