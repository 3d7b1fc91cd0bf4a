"""Plugins: the hook, discovery through entry points, and look-up by name. Imports no torch."""

from energycomp.plugins.discovery import PluginInfo as PluginInfo
from energycomp.plugins.factories import (
    KINDS as KINDS,
    Factory as Factory,
    Imported as Imported,
    Kind as Kind,
)
from energycomp.plugins.hooks import Add as Add, hookimpl as hookimpl
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
