"""The conformance checks of modules that a `config.json` names: networks and encoders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from energycomp.denoisers import TwoStage
from energycomp.models import on_meta
from energycomp.plugins import Factory
from energycomp_lab.checks.expect import expect, expect_close, expect_latents, expect_same_state, expect_same_weights


def check_network(factory: Factory, **config: Any) -> None:
    """Checks that a network is built from its arguments, and once more from its `config`. Allocates no memory.

    >>> from energycomp.plugins import find
    >>> check_network(find("networks", "two_stage"), sample_size=16, channels=[8, 16], head_channels=8)
    """
    with on_meta():
        network = factory(**config)
        name = type(network).__name__
        expect(isinstance(network, nn.Module), f"a {name}", "a torch.nn.Module", "derive it from one")
        stages = isinstance(network, TwoStage) or type(network).forward is not nn.Module.forward
        hint = "see `energycomp.denoisers.TwoStage`"
        expect(stages, f"{name} without forward", "features and head, or forward", hint)
        check_rebuilt(network, factory)


def check_rebuilt(network: nn.Module, factory: Factory) -> None:
    """Checks that `factory(**network.config)` has weights of the same names and shapes."""
    name = type(network).__name__
    again = factory(**json.loads(json.dumps(_read_config(network))))
    expect_same_weights(network, again, f"{name}(**config)")


def _read_config(network: nn.Module) -> dict[str, Any]:
    name = type(network).__name__
    given: Mapping[str, Any] | None = getattr(network, "config", None)
    hint = "decorate the class with `energycomp.denoisers.configured`"
    expect(given is not None, f"a {name} without config", "the arguments that it was made with", hint)
    return {} if given is None else dict(given)


@torch.no_grad()
def check_encoder(encoder: nn.Module, *, sample_shape: tuple[int, int, int] | None = None) -> None:
    """Checks an encoder on random samples, in evaluation mode.

    Latents must have the shape (B, K, D), be finite, be the same for a batch as for single samples, and draw no global
    random numbers. `config` must hold the arguments of the constructor.

    Args:
        sample_shape: (C, H, W) of the input; from `sample_channels` and `sample_size` of its config if left out.

    >>> from energycomp.testing import StripesEncoder
    >>> check_encoder(StripesEncoder())
    """
    name = type(encoder).__name__
    config = _read_config(encoder)
    if sample_shape is None:
        known = {"sample_channels", "sample_size"} <= config.keys()
        expect(known, f"a config of {name} without sample_channels and sample_size", "both", "pass sample_shape=")
        sample_shape = (config["sample_channels"], config["sample_size"], config["sample_size"])
    mode = encoder.training
    state = torch.get_rng_state()
    samples = torch.randn(3, *sample_shape, generator=torch.Generator().manual_seed(0))
    try:
        encoder.eval()
        latents = encoder(samples)
        looped = torch.cat([encoder(samples[i : i + 1]) for i in range(3)])
    finally:
        encoder.train(mode)
    expect_latents(latents, 3, "samples")
    expect_same_state(state)
    expect_close(latents, looped, 1e-3, "latents of a batch", "those of its samples one by one")
