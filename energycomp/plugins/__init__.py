"""Plugins: hooks, discovery through entry points, and look-up by name. Imports no torch."""

from energycomp.plugins.deferred import lazy as lazy
from energycomp.plugins.discovery import PluginInfo as PluginInfo
from energycomp.plugins.hookspecs import (
    KINDS as KINDS,
    Factory as Factory,
    Kind as Kind,
    hookimpl as hookimpl,
    hookspec as hookspec,
)
from energycomp.plugins.registry import (
    find as find,
    first_party as first_party,
    homes_of as homes_of,
    list_models as list_models,
    listing as listing,
    names as names,
    not_found as not_found,
    object_of as object_of,
    register as register,
    reload as reload,
    singular_of as singular_of,
)
