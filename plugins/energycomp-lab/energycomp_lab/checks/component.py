"""The conformance check of energy components, leaves and compositions."""

from __future__ import annotations

from typing import Any

import torch

from energycomp.components import Composition, EnergyComponent, HasEnergy, NoisedSpace
from energycomp.denoisers import Conditional
from energycomp_lab.checks.expect import expect, expect_close, expect_same_state, expect_tensor


def check_component(component: Any, *, tolerance: float = 1e-4) -> None:
    """Checks `noised_space` and eps of a component, leaf or composition on random samples.

    eps must have the shape of the sample, be finite, be the same in a second call and for single samples, and draw no
    global random numbers. The gradient of an energy, where there is one, must be eps / sigma.

    Args:
        tolerance: relative; of batched against looped predictions, and of the gradient.

    >>> from energycomp.testing import Gaussian
    >>> check_component(Gaussian(0.3, variance=0.5))
    """
    name = repr(component)
    complete = isinstance(component, EnergyComponent) and isinstance(component.noised_space, NoisedSpace)
    expect(complete, f"{name} without noised_space or eps", "the members of `EnergyComponent`", "add them")
    composition = Composition.of(component)
    space = component.noised_space
    schedule = space.alphas_cumprod
    shape = tuple(space.sample_shape)
    falling = schedule.ndim == 1 and bool((schedule.diff() <= 0).all())
    expect(
        falling and bool(((schedule > 0) & (schedule < 1)).all()),
        f"alphas_cumprod {tuple(schedule.shape)}",
        "(T,), falling, inside (0, 1)",
        "take it from a diffusers scheduler",
    )
    expect(
        len(shape) > 0 and isinstance(space.identity, str),
        f"sample_shape {shape} and identity {space.identity!r}",
        "sizes, such as (C, H, W), and a string",
        "say which space the samples are in",
    )
    eps = component.eps
    generator = torch.Generator().manual_seed(0)
    sample = torch.randn(3, *shape, generator=generator).to(schedule.device)
    timestep = torch.tensor([0.1, 0.45, 0.9], device=schedule.device) * (len(schedule) - 1)
    before = sample.clone()
    state = torch.get_rng_state()
    batched = eps(sample, timestep)
    expect_tensor(batched, tuple(sample.shape), "eps", "predict one noise per sample")
    expect(torch.equal(sample, before), "a sample that was changed in place", "unchanged inputs", "copy first")
    looped = torch.cat([eps(sample[i : i + 1], timestep[i : i + 1]) for i in range(3)])
    if not torch.equal(torch.get_rng_state(), state):
        training = any(isinstance(leaf, Conditional) and leaf.denoiser.network.training for leaf in composition.terms)
        expect(not training, f"{name} with a network in train mode", "eval mode", "call its `eval()`")
    expect_same_state(state)
    expect_close(batched, eps(sample, timestep), tolerance, "eps that differs in a second call", "the same, a function")
    expect_close(batched, looped, tolerance, "eps of a batch", "that of its samples one by one")
    if isinstance(component, HasEnergy) and all(isinstance(leaf, HasEnergy) for leaf in composition.terms):
        free = sample.clone().requires_grad_()
        energy = component.energy(free, timestep)
        expect(energy.shape == (3,), f"energies of shape {tuple(energy.shape)}", "(3,), one per sample", "sum the rest")
        (gradient,) = torch.autograd.grad(energy.sum(), free)
        _, sigma = space.levels(timestep, sample.dtype)
        expect_close(gradient * sigma, batched, tolerance, "sigma times the gradient of the energy", "eps")
