"""Plugins: discovery through entry points, the listing, and lookup by name.

A plugin works whole or not at all: one that cannot be imported, or breaks the contract of a hook, is listed with its
reason and registers nothing, and the others work. Discovery imports the plugins' top modules but no factory behind
`lazy`, and so no torch.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import operator
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, get_args

import attrs
import pluggy

from energycomp import hookspecs
from energycomp.errors import InputError, NotFoundError, PluginError

__all__ = ["Kind", "PluginInfo", "find", "lazy", "listing", "names", "reload"]

Kind = Literal["models", "networks", "conditioners", "solvers", "datasets", "recipes"]

KINDS: tuple[Kind, ...] = get_args(Kind)
GROUP = "energycomp"
ONLY = "ENERGYCOMP_PLUGINS"
DISABLE = "ENERGYCOMP_DISABLE_PLUGINS"
CORE = EntryPoint(name="core", value="energycomp.builtins", group=GROUP)

# Redirecting stdout is global to the process, so two threads that discover at once would restore the wrong stream.
_lock = threading.RLock()

Factory = Callable[..., Any]


@attrs.frozen
class PluginInfo:
    """One installed plugin: what it registers, or why it does not work.

    `registered` maps a kind to names. `conflicts` has one sentence for each name that another plugin registers too;
    using such a name raises PluginError. `error` says why the plugin failed, `off` which environment variable switched
    it off; both are None for a plugin that works.
    """

    name: str
    distribution: str
    version: str
    registered: Mapping[Kind, tuple[str, ...]] = attrs.field(factory=dict)
    conflicts: tuple[str, ...] = ()
    error: str | None = None
    off: str | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


@attrs.frozen(repr=False)
class _Lazy:
    target: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module, _, path = self.target.partition(":")
        try:
            factory = operator.attrgetter(path)(importlib.import_module(module))
        except Exception as error:
            raise PluginError(
                f"Got {type(error).__name__} from {self.target!r}: {error}. Expected a module that imports and holds "
                f"{path!r}. Report it to the authors of {module.partition('.')[0]}, or install what it needs."
            ) from error
        return factory(*args, **kwargs)

    def __repr__(self) -> str:
        return f"lazy({self.target!r})"


def lazy(target: str) -> Factory:
    """A callable that imports `"package.module:attribute"` at its first call and passes its arguments on.

    Hooks return these, so that listing the plugins imports nothing heavy. Calling one raises PluginError if the
    module does not import or has no such attribute.

    >>> fraction = lazy("fractions:Fraction")
    >>> fraction
    lazy('fractions:Fraction')
    >>> fraction(1, 3)
    Fraction(1, 3)
    """
    if not re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", target):
        raise PluginError(f"Got {target!r} for lazy(). Expected 'package.module:attribute'.")
    return _Lazy(target)


def find(kind: Kind, name: str) -> Factory:
    """The factory that a plugin registers under this name.

    Raises NotFoundError for a name that no working plugin registers, PluginError for one that several register, and
    InputError for a kind that is none of the hooks'.

    >>> find("networks", "two_stage")
    lazy('energycomp.networks:TwoStageUNet')
    """
    claims = _claims(kind).get(name, [])
    if len(claims) > 1:
        raise PluginError(_conflict(kind, name, [info for info, _ in claims]))
    if not claims:
        raise NotFoundError(_not_found(kind, name))
    return claims[0][1]


def names(kind: Kind) -> tuple[str, ...]:
    """The names that `find` resolves, sorted; a name that several plugins register is not among them.

    >>> names("networks")
    ('two_stage', 'unet2d_condition')
    """
    return tuple(sorted(name for name, claims in _claims(kind).items() if len(claims) == 1))


def listing() -> tuple[PluginInfo, ...]:
    """All installed plugins, the core first: those that work, those that failed, those that are switched off.

    >>> listing()[0].name
    'core'
    """
    with _lock:
        plugins = _discover()
    return tuple(attrs.evolve(plugin.info, conflicts=_conflicts_of(plugin.info)) for plugin in plugins)


def reload() -> tuple[PluginInfo, ...]:
    """Discover again, after an installation or a change of the environment in this process; returns the listing."""
    importlib.invalidate_caches()
    _discover.cache_clear()
    return listing()


@attrs.frozen
class _Plugin:
    info: PluginInfo
    factories: Mapping[Kind, Mapping[str, Factory]] = attrs.field(factory=dict)


@functools.cache
def _discover() -> tuple[_Plugin, ...]:
    others = [point for point in entry_points(group=GROUP) if point.value != CORE.value]
    points = [CORE, *sorted(others, key=lambda point: (_distribution(point), point.name))]
    return tuple(_load(point) for point in points)


def _load(point: EntryPoint) -> _Plugin:
    distribution, version = _distribution(point)
    info = PluginInfo(point.name, distribution, version, off=_switched_off(point.name, distribution))
    if info.off:
        return _Plugin(info)
    try:
        # A plugin that prints must not end up in the middle of `--json` output.
        with contextlib.redirect_stdout(sys.stderr):
            factories = _factories(point.load(), point.name)
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"
        return _Plugin(attrs.evolve(info, error=reason))
    registered = {kind: tuple(sorted(found)) for kind, found in factories.items()}
    return _Plugin(attrs.evolve(info, registered=registered), factories)


def _factories(plugin: object, name: str) -> dict[Kind, dict[str, Factory]]:
    """Everything that one plugin registers; raises if it breaks the contract of a hook."""
    manager = _validated(plugin, name)
    factories: dict[Kind, dict[str, Factory]] = {}
    for kind in KINDS:
        hook = f"energycomp_register_{kind}"
        # Called one by one rather than through pluggy's relay, which drops a result of None: a forgotten `return`.
        for implementation in getattr(manager.hook, hook).get_hookimpls():
            result = implementation.function()
            if not isinstance(result, Mapping):
                raise PluginError(f"{hook} returned {result!r}. Expected a mapping of names to factories.")
            for key, factory in result.items():
                if not (isinstance(key, str) and key and callable(factory)):
                    raise PluginError(f"{hook} returned {key!r}: {factory!r}. Expected a name and a callable.")
            factories.setdefault(kind, {}).update(result)
    if not factories:
        raise PluginError(f"{plugin!r} implements no hook. Expected at least one of {_hook_names()}.")
    return factories


def _validated(plugin: object, name: str) -> pluggy.PluginManager:
    """A manager that holds this plugin alone, so that whatever it gets wrong is laid to it and to nobody else."""
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    forgotten = [
        attribute
        for attribute in dir(plugin)
        if attribute.startswith("energycomp_register_") and manager.parse_hookimpl_opts(plugin, attribute) is None
    ]
    if forgotten:
        raise PluginError(f"{', '.join(forgotten)} lacks the decorator @energycomp.hookimpl.")
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"{error}. Expected hooks without arguments, out of {_hook_names()}.") from error
    return manager


def _hook_names() -> str:
    return ", ".join(f"energycomp_register_{kind}" for kind in KINDS)


def _distribution(point: EntryPoint) -> tuple[str, str]:
    if point == CORE:
        from energycomp import __version__

        return "energycomp", __version__
    try:
        return (point.dist.name, point.dist.version) if point.dist else ("unknown", "?")
    except Exception:  # metadata that cannot be read must not hide the other plugins
        return "unknown", "?"


def _switched_off(name: str, distribution: str) -> str | None:
    """The environment variable that keeps this plugin from being loaded; the core's own is always loaded."""
    own = {_normalized(name), _normalized(distribution)}
    if (name, distribution) == (CORE.name, "energycomp"):
        return None
    if ONLY in os.environ and not own & _listed(ONLY):
        return ONLY
    return DISABLE if own & _listed(DISABLE) else None


def _listed(variable: str) -> set[str]:
    return {_normalized(part) for part in os.environ.get(variable, "").split(",") if part.strip()}


def _normalized(name: str) -> str:
    """A distribution's name as the package index compares it: case, `-`, `_` and `.` do not count."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _claims(kind: Kind) -> dict[str, list[tuple[PluginInfo, Factory]]]:
    if kind not in KINDS:
        raise InputError(f"Got the kind {kind!r}. Expected one of {', '.join(KINDS)}.")
    with _lock:
        plugins = _discover()
    claims: dict[str, list[tuple[PluginInfo, Factory]]] = {}
    for plugin in plugins:
        for name, factory in plugin.factories.get(kind, {}).items():
            claims.setdefault(name, []).append((plugin.info, factory))
    return claims


def _conflicts_of(info: PluginInfo) -> tuple[str, ...]:
    return tuple(
        _conflict(kind, name, [claimant for claimant, _ in claims])
        for kind, registered in info.registered.items()
        for name, claims in sorted(_claims(kind).items())
        if name in registered and len(claims) > 1
    )


def _conflict(kind: Kind, name: str, infos: list[PluginInfo]) -> str:
    return (
        f"{len(infos)} plugins register the {_singular(kind)} {name!r}: {' and '.join(map(str, infos))}. "
        f"Uninstall one, or switch it off: {DISABLE}={infos[-1].name}"
    )


def _not_found(kind: Kind, name: str) -> str:
    known = names(kind)
    close = difflib.get_close_matches(name, known, n=3)
    message = f"No {_singular(kind)} is named {name!r}."
    if close:
        message += f" Did you mean {' or '.join(map(repr, close))}?"
    message += f" Known {kind}: {', '.join(known) or 'none'}."
    failed = [f"  {info}: {info.error}" for info in listing() if info.error]
    if failed:
        message += "\nThese plugins failed, the name may be theirs:\n" + "\n".join(failed)
    switched_off = [f"  {info}: {info.off}" for info in listing() if info.off]
    if switched_off:
        message += "\nThese plugins are switched off by an environment variable:\n" + "\n".join(switched_off)
    return message


def _singular(kind: Kind) -> str:
    return kind.removesuffix("s")
