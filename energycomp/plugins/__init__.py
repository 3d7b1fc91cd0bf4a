"""Plugins: hooks, discovery through entry points, and look-up by name. Imports no torch."""

from energycomp.plugins.hookspecs import (
    energycomp_register_conditioners,
    energycomp_register_datasets,
    energycomp_register_encoders,
    energycomp_register_models,
    energycomp_register_networks,
    energycomp_register_recipes,
    energycomp_register_solvers,
    hookimpl,
    hookspec,
)
from energycomp.plugins.installed import (
    CORE,
    DISABLE,
    GROUP,
    KINDS,
    ONLY,
    Kind,
    PluginInfo,
    installed,
    normalized,
)
from energycomp.plugins.loading import Factory, Plugin, load_plugin, try_plugins
from energycomp.plugins.registry import find, lazy, listing, names, register, reload

__all__ = [
    "CORE",
    "DISABLE",
    "GROUP",
    "KINDS",
    "ONLY",
    "Factory",
    "Kind",
    "Plugin",
    "PluginInfo",
    "energycomp_register_conditioners",
    "energycomp_register_datasets",
    "energycomp_register_encoders",
    "energycomp_register_models",
    "energycomp_register_networks",
    "energycomp_register_recipes",
    "energycomp_register_solvers",
    "find",
    "hookimpl",
    "hookspec",
    "installed",
    "lazy",
    "listing",
    "load_plugin",
    "names",
    "normalized",
    "register",
    "reload",
    "try_plugins",
]
