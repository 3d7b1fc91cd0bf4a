"""Plugins: hooks, discovery through entry points, and look-up by name. Imports no torch."""

from energycomp.plugins.discovery import PluginInfo
from energycomp.plugins.hookspecs import KINDS, Factory, Kind, hookimpl, hookspec
from energycomp.plugins.registry import find, lazy, listing, names, object_of, register, reload, singular_of

__all__ = [
    "KINDS",
    "Factory",
    "Kind",
    "PluginInfo",
    "find",
    "hookimpl",
    "hookspec",
    "lazy",
    "listing",
    "names",
    "object_of",
    "register",
    "reload",
    "singular_of",
]
