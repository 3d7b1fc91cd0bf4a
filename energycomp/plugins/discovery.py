"""Finds the installed plugins by their entry points, and loads one: imports its module and calls its hook."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

import attrs
import pluggy

from energycomp.errors import PluginError
from energycomp.plugins import hooks
from energycomp.plugins.factories import KINDS, Factory, Kind
from energycomp.plugins.hooks import Add

GROUP = "energycomp"
HOOK = "energycomp_register"
EXAMPLE = f"@energycomp.hookimpl def {HOOK}(add): add.solver('name', 'package.module:Class')"
CORE = "energycomp.plugins.builtins"
ONLY = "ENERGYCOMP_PLUGINS"
DISABLE = "ENERGYCOMP_DISABLE_PLUGINS"
SLOW = 1.0  # seconds; a top module that imports nothing heavy takes a hundredth of that
HEAVY = frozenset({"accelerate", "diffusers", "matplotlib", "scipy", "torch", "torchvision", "transformers"})


@attrs.frozen
class PluginInfo:
    """What is known about one plugin; what it registers is known once it is loaded.

    >>> from energycomp.plugins import listing
    >>> info = next(one for one in listing() if one.name == "solvers")
    >>> info.distribution, info.error
    ('energycomp-solvers', None)
    """

    name: str
    distribution: str
    version: str
    registered: Mapping[Kind, tuple[str, ...]] = attrs.field(factory=dict)
    conflicts: tuple[str, ...] = ()  # one sentence per name that another plugin registers too
    error: str | None = None  # why it failed
    off: str | None = None  # the environment variable that switches it off
    warnings: tuple[str, ...] = ()  # a slow import, an import of torch
    module: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"

    def is_named(self, name: str) -> bool:
        """Whether this is the name of the entry point or of the distribution, as package indexes compare names.

        >>> PluginInfo("clevr", "energycomp-clevr", "1.0").is_named("Energycomp_CLEVR")
        True
        """
        return _normalize(name) in (_normalize(self.name), _normalize(self.distribution))


@attrs.frozen
class Plugin:
    """A plugin that was loaded: its description, and its factories by kind and name."""

    info: PluginInfo
    factories: Mapping[Kind, Mapping[str, Factory]] = attrs.field(factory=dict)


def list_installed() -> tuple[PluginInfo, ...]:
    """All plugins by the metadata of their distributions, the core first. Imports no plugin.

    Raises:
        PluginError: the entry points of a package, of whatever project, cannot be read.
    """
    from energycomp import __version__

    try:
        points = entry_points(group=GROUP)
    except Exception as error:
        raise PluginError(
            f"Got {type(error).__name__} from the entry points of the installed packages: {error}. Expected every "
            "entry_points.txt to be readable. Reinstall the package whose file is damaged; it stops torch, too."
        ) from error
    core = PluginInfo("core", "energycomp", __version__, module=CORE)
    others = (_describe(point) for point in points if point.value != CORE)
    return (core, *sorted(others, key=lambda info: (info.distribution, info.version, info.name)))


def load_plugin(info: PluginInfo) -> Plugin:
    """Imports a plugin, unless it is switched off, and calls its hook; the reason of a failure goes to `info.error`."""
    if info.error or info.off:
        return Plugin(info)
    factories: Mapping[Kind, Mapping[str, Factory]] = {}
    reason = None
    start = time.perf_counter()
    before = HEAVY & sys.modules.keys()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            factories = _factories(_import(info), info.name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit, and exceptions that derive from no Exception
        reason = _reason(error)
    warnings = _warnings(time.perf_counter() - start, (HEAVY & sys.modules.keys()) - before)
    registered = {kind: tuple(sorted(factories[kind])) for kind in KINDS if kind in factories}
    return Plugin(attrs.evolve(info, registered=registered, error=reason, warnings=warnings), factories)


def _describe(point: EntryPoint) -> PluginInfo:
    name, version, error = "", "", None
    try:
        if point.dist is not None:
            name, version = point.dist.name, point.dist.version
    except Exception as fault:  # metadata of any package: missing, or bytes that are not text
        error = f"Got metadata that cannot be read ({type(fault).__name__}: {fault}). Reinstall the package."
    info = PluginInfo(point.name, name or point.name, version or "?", error=error, module=point.value)
    return attrs.evolve(info, off=_find_switch(info))


def _find_switch(info: PluginInfo) -> str | None:
    """The environment variable that keeps this plugin from being loaded."""

    def listed(variable: str) -> bool:
        return any(info.is_named(part) for part in os.environ.get(variable, "").split(","))

    if ONLY in os.environ and not listed(ONLY):
        return ONLY
    return DISABLE if listed(DISABLE) else None


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _import(info: PluginInfo) -> object:
    if EntryPoint.pattern.match(info.module) is None:
        raise PluginError(
            f"Got the entry point {info.name!r} = {info.module!r}. Expected a module, such as 'energycomp_random'. "
            "Correct [project.entry-points.energycomp] in its pyproject.toml and reinstall it."
        )
    return EntryPoint(info.name, info.module, GROUP).load()


def _factories(plugin: object, name: str) -> Mapping[Kind, Mapping[str, Factory]]:
    """Everything that one plugin registers."""
    if old := [attribute for attribute in dir(plugin) if attribute.startswith(f"{HOOK}_")]:
        raise PluginError(
            f"Got the hook {old[0]}, of an earlier energycomp. Expected one hook for all kinds: {EXAMPLE}"
        )
    # A manager for this plugin alone, so that an error names no other.
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hooks)
    if manager.parse_hookimpl_opts(plugin, HOOK) is None:
        fault = f"lacks the decorator of {HOOK}" if hasattr(plugin, HOOK) else "implements no hook"
        raise PluginError(f"{plugin!r} {fault}. Expected {EXAMPLE}")
    try:
        manager.register(plugin, name)
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{error}. Expected {EXAMPLE}") from error
    factories: dict[Kind, dict[str, Factory]] = {}
    if returned := manager.hook.energycomp_register(add=Add(factories)):
        raise PluginError(f"{HOOK} returned {returned[0]!r}, and registers nothing by it. Expected {EXAMPLE}")
    return factories


def _reason(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # raised by an exception class of the plugin
        text = "(its message cannot be shown)"
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


def _warnings(seconds: float, heavy: frozenset[str]) -> tuple[str, ...]:
    slow = f"takes {seconds:.1f} s to import, in every command that looks up a name" if seconds > SLOW else ""
    large = f"imports {', '.join(sorted(heavy))}; give add 'package.module:attribute' instead" if heavy else ""
    return tuple(filter(None, (slow, large)))
