"""Plugins: the listing, and lookup by name.

A plugin works whole or not at all: one that cannot be imported, or breaks the contract of a hook, is listed with its
reason and registers nothing, and the others work. A lookup imports the plugins' top modules but no factory behind
`lazy`, and so no torch; the listing imports nothing at all.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import operator
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from energycomp.errors import EnergycompError, InputError, NotFoundError, PluginError
from energycomp.plugins.installed import DISABLE, KINDS, Kind, PluginInfo, installed
from energycomp.plugins.loading import Factory, Plugin, load_plugin, try_plugins

__all__ = ["KINDS", "Kind", "PluginInfo", "find", "lazy", "listing", "names", "register", "reload"]

# Redirecting stdout is global to the process, so two threads that discover at once would restore the wrong stream.
_lock = threading.RLock()

# What `register` made known in this process.
_own: dict[Kind, dict[str, Factory]] = {}
_OWN = PluginInfo("register", "this process", "")

# What a plugin's object must have to be used. Networks and conditioners are not here: their arguments come from a
# file, and who reads it says which file is at fault.
PARTS: dict[Kind, tuple[str, ...]] = {
    "models": ("denoiser", "conditioner", "processor", "defaults", "to"),
    "solvers": ("needs", "solve"),
    "datasets": ("examples", "write", "metrics"),
    "recipes": ("model", "fit", "steps"),
}


@attrs.frozen(repr=False)
class _Lazy:
    target: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module, _, path = self.target.partition(":")
        try:
            factory = operator.attrgetter(path)(importlib.import_module(module))
        except (Exception, SystemExit) as error:
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


@attrs.frozen(repr=False)
class _Registered:
    """A plugin's factory; whatever goes wrong in it is laid to the plugin."""

    kind: Kind
    name: str
    info: PluginInfo
    factory: Factory

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        source = f"the {_singular(self.kind)} {self.name!r} of the plugin {self.info}"
        try:
            made = self.factory(*args, **kwargs)
        except PluginError as error:
            raise PluginError(f"{source}: {error}") from error
        except EnergycompError:  # it says what is wrong with the arguments
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"Got {type(error).__name__} from {source}: {error}. Expected a {_singular(self.kind)}. Check the "
                f"options that were given to it, or report it to the authors of {self.info.distribution}."
            ) from error
        missing = [part for part in PARTS[self.kind] if not hasattr(made, part)]
        if missing:
            raise PluginError(
                f"Got a {type(made).__name__} without {', '.join(missing)} from {source}. Expected "
                f"a {_singular(self.kind)}. Report it to the authors of {self.info.distribution}."
            )
        return made

    def __repr__(self) -> str:
        return repr(self.factory)


def find(kind: Kind, name: str) -> Factory:
    """The factory that a plugin registers under this name.

    Raises NotFoundError for a name that no working plugin registers, PluginError for one that several register, and
    InputError for a kind that is none of the hooks'. The factory of a model, solver, dataset or recipe raises
    PluginError, naming the plugin, where it fails or makes something else.

    >>> find("networks", "two_stage")
    lazy('energycomp.denoisers.two_stage:TwoStageUNet')
    """
    claims = _claims(kind).get(name, [])
    if len(claims) > 1:
        raise PluginError(_conflict(kind, name, [info for info, _ in claims]))
    if not claims:
        raise NotFoundError(_not_found(kind, name))
    info, factory = claims[0]
    return _Registered(kind, name, info, factory) if kind in PARTS else factory


def names(kind: Kind) -> tuple[str, ...]:
    """The names that `find` resolves, sorted; a name that several plugins register is not among them.

    >>> [name for name in names("networks") if name.startswith("unet")]
    ['unet2d', 'unet2d_condition']
    """
    return tuple(sorted(name for name, claims in _claims(kind).items() if len(claims) == 1))


def register(kind: Kind, name: str, factory: Factory) -> None:
    """Makes a name known in this process only: for a script or a notebook, before there is a plugin.

    A name that was registered so before is replaced; one of an installed plugin raises PluginError.

    >>> register("conditioners", "shades", dict)
    >>> find("conditioners", "shades")
    <class 'dict'>
    """
    if any(info is not _OWN for info, _ in _claims(kind).get(name, [])):
        raise PluginError(f"Got the {_singular(kind)} {name!r}, which a plugin registers. Expected another name.")
    if not name or not callable(factory):
        raise InputError(f"Got {name!r}: {factory!r}. Expected a name and a callable, such as a class.")
    _own.setdefault(kind, {})[name] = factory


def listing() -> tuple[PluginInfo, ...]:
    """All installed plugins, the core first: those that work, those that failed, those that are switched off.

    None is imported into this process: each is tried in one of its own, where it may exit, hang or crash.

    >>> listing()[0].name
    'core'
    """
    return _with_conflicts(try_plugins(installed()))


def reload() -> None:
    """Forget what was loaded, after an installation or a change of the environment in this process."""
    importlib.invalidate_caches()
    _discover.cache_clear()


@functools.cache
def _discover() -> tuple[Plugin, ...]:
    return tuple(load_plugin(info) for info in installed())


def _claims(kind: Kind) -> dict[str, list[tuple[PluginInfo, Factory]]]:
    if kind not in KINDS:
        raise InputError(f"Got the kind {kind!r}. Expected one of {', '.join(KINDS)}.")
    with _lock:
        plugins = _discover()
    claims: dict[str, list[tuple[PluginInfo, Factory]]] = {}
    for plugin in (*plugins, Plugin(_OWN, _own)):
        for name, factory in plugin.factories.get(kind, {}).items():
            claims.setdefault(name, []).append((plugin.info, factory))
    return claims


def _with_conflicts(infos: Sequence[PluginInfo]) -> tuple[PluginInfo, ...]:
    def conflicts(info: PluginInfo) -> Iterable[str]:
        for kind, registered in info.registered.items():
            for name in registered:
                claimants = [other for other in infos if name in other.registered.get(kind, ())]
                if len(claimants) > 1:
                    yield _conflict(kind, name, claimants)

    return tuple(attrs.evolve(info, conflicts=tuple(conflicts(info))) for info in infos)


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
    infos = [plugin.info for plugin in _discover()]
    failed = [f"  {info}: {info.error}" for info in infos if info.error]
    if failed:
        message += "\nThese plugins failed, the name may be theirs:\n" + "\n".join(failed)
    switched_off = [f"  {info}: {info.off}" for info in infos if info.off]
    if switched_off:
        message += "\nThese plugins are switched off by an environment variable:\n" + "\n".join(switched_off)
    return message


def _singular(kind: Kind) -> str:
    return kind.removesuffix("s")
