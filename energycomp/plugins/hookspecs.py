"""The hooks that a plugin may implement, one sentence each; the plugin guide is `docs/plugins.md`.

A hook takes no argument and returns `{name: factory}`. Return `energycomp.plugins.lazy("package.module:attribute")`
as the factory, so that listing the plugins imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "energycomp_register_conditioners",
    "energycomp_register_datasets",
    "energycomp_register_encoders",
    "energycomp_register_models",
    "energycomp_register_networks",
    "energycomp_register_recipes",
    "energycomp_register_solvers",
    "hookimpl",
    "hookspec",
]

hookspec = pluggy.HookspecMarker("energycomp")
hookimpl = pluggy.HookimplMarker("energycomp")


@hookspec
def energycomp_register_models() -> Mapping[str, Callable[..., object]]:
    """Models that `energycomp.load` finds by name: `factory(*, preset="default", pretrained=True) -> Model`."""


@hookspec
def energycomp_register_networks() -> Mapping[str, Callable[..., object]]:
    """Networks that a `config.json` names: `factory(**config) -> torch.nn.Module`."""


@hookspec
def energycomp_register_conditioners() -> Mapping[str, Callable[..., object]]:
    """Conditioners that a `config.json` names: `factory(**config) -> Conditioner`."""


@hookspec
def energycomp_register_encoders() -> Mapping[str, Callable[..., object]]:
    """Encoders, samples to latents (B, K, D), that a `config.json` names: `factory(**config) -> torch.nn.Module`."""


@hookspec
def energycomp_register_solvers() -> Mapping[str, Callable[..., object]]:
    """Solvers that `energycomp infer --solver` names: `factory(**options) -> Solver`."""


@hookspec
def energycomp_register_datasets() -> Mapping[str, Callable[..., object]]:
    """Data that `energycomp data` writes and `energycomp evaluate` reads: `factory() -> DataSource`."""


@hookspec
def energycomp_register_recipes() -> Mapping[str, Callable[..., object]]:
    """What `energycomp train` runs: `factory(*, data, init, preset, cache) -> Recipe`."""
