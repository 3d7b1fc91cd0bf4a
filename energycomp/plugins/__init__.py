"""Plugins: hooks, discovery through entry points, and look-up by name. Imports no torch."""

from energycomp.plugins.discovery import PluginInfo
from energycomp.plugins.hookspecs import KINDS, Factory, Kind, hookimpl, hookspec
from energycomp.plugins.registry import (
    find,
    first_party,
    lazy,
    listing,
    names,
    not_found,
    object_of,
    register,
    reload,
    singular_of,
)

__all__ = [
    "KINDS",
    "Factory",
    "Kind",
    "PluginInfo",
    "find",
    "first_party",
    "hookimpl",
    "hookspec",
    "lazy",
    "listing",
    "names",
    "not_found",
    "object_of",
    "register",
    "reload",
    "singular_of",
]
