"""Look-up of plugins' objects by name.

A plugin works as a whole or not at all: one that fails is listed with its error and registers nothing. A look-up
imports the top module of each plugin once per process, and no factory, so no torch.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import re
import sys
import threading
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

import attrs

from energycomp.errors import EnergycompError, InputError, NotFoundError, PluginError
from energycomp.plugins.discovery import DISABLE, Plugin, PluginInfo, list_installed, load_plugin
from energycomp.plugins.factories import KINDS, Factory, Kind
from energycomp.plugins.hooks import Add

_lock = threading.RLock()  # loading redirects stdout, which is global to the process
_own: dict[Kind, dict[str, Factory]] = {}  # what `register` made known in this process
_OWN = PluginInfo("register", "this process", "")

# Attributes that an object must have. What a config.json names is not listed: its arguments come from
# that file, and the code that reads the file reports errors together with its path. "a or b": one of them.
PARTS: dict[Kind, tuple[str, ...]] = {
    "models": ("denoiser", "conditioner", "processor", "defaults", "to"),
    "loaders": ("denoiser", "conditioner", "processor", "defaults", "to"),
    "decomposers": ("encode", "decode", "parts"),
    "solvers": ("needs", "solve"),
    "samplers": ("start",),
    "guidances": ("guide or weighted",),
    "datasets": ("examples", "write", "metrics"),
    "recipes": ("model", "config", "run"),
    "writers": ("__enter__", "__exit__"),
    "engines": ("accepts", "compile"),
    "commands": ("__call__",),
}


@attrs.frozen(repr=False)
class _Registered:
    """The factory of a plugin. An error in it, or an incomplete object, raises PluginError that names the plugin."""

    kind: Kind
    name: str
    info: PluginInfo
    __wrapped__: Factory

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        singular, authors = singular_of(self.kind), f"report it to the authors of {self.info.distribution}."
        source = f"the {singular} {self.name!r} of the plugin {self.info}"
        try:
            made = self.__wrapped__(*args, **kwargs)
        except PluginError as error:
            raise PluginError(f"{source}: {error}") from error
        except EnergycompError:  # its message is about the arguments
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"Got {type(error).__name__} from {source}: {error}. Expected a {singular}. Check the options that "
                f"were given to it, or {authors}"
            ) from error
        if missing := _missing(self.kind, made):
            raise PluginError(
                f"Got a {type(made).__name__} without {missing} from {source}. Expected a {singular}; {authors}"
            )
        return made

    def __repr__(self) -> str:
        return repr(self.__wrapped__)


def find(kind: Kind, name: str) -> Factory:
    """The factory that a plugin registers under this name, or under "DISTRIBUTION:NAME" where several do.

    The factory of a model, solver, dataset, recipe or command raises PluginError, naming the plugin, if it fails or
    makes something else.

    Raises:
        NotFoundError: no working plugin registers the name.
        PluginError: several plugins register it.
        InputError: an unknown kind.

    >>> find("networks", "two_stage")
    energycomp.denoisers.two_stage:TwoStageUNet
    """
    claims = _find_claims(kind, name)
    if len(claims) > 1:
        raise PluginError(_conflict(kind, name, [info for info, _ in claims]))
    if not claims:
        raise not_found(kind, name, names(kind))
    info, factory = claims[0]
    return _Registered(kind, name, info, factory) if kind in PARTS else factory


def registers(kind: Kind, name: str) -> bool:
    """Whether `find` has something of this name."""
    return len(_find_claims(kind, name)) == 1


def _find_claims(kind: Kind, name: str) -> list[tuple[PluginInfo, Factory]]:
    distribution, colon, short = name.rpartition(":")
    return [claim for claim in _claims(kind).get(short, []) if not colon or claim[0].distribution == distribution]


def object_of(kind: Kind, given: Any) -> Any:
    """The object that a public function was given; for a registered name, or a class, what it makes by default.

    Raises:
        NotFoundError: no working plugin registers the name.
        InputError: a class that needs arguments, or an object that lacks what its kind needs.

    >>> object_of("solvers", "beam").needs
    'finite'
    """
    if isinstance(given, str):
        return find(kind, given)()
    singular = singular_of(kind)
    try:
        made = given() if isinstance(given, type) else given
    except TypeError as error:
        raise InputError(f"Got the class {given.__name__}: {error}. Expected an object: call the class.") from error
    if missing := _missing(kind, made):
        raise InputError(
            f"Got an object of {type(made).__name__} without {missing}. Expected a {singular}: an object, "
            f"or one of the registered names {', '.join(names(kind))}."
        )
    return made


def _missing(kind: Kind, made: Any) -> str:
    known = {*dir(made)}
    return ", ".join(part for part in PARTS[kind] if not known.intersection(part.split(" or ")))


def names(kind: Kind) -> tuple[str, ...]:
    """The names that `find` resolves, sorted. A name that several plugins register is left out.

    >>> [name for name in names("networks") if name.startswith("unet")]
    ['unet2d', 'unet2d_condition']
    """
    return tuple(sorted(name for name, claims in _claims(kind).items() if len(claims) == 1))


def list_models() -> list[str]:
    """The names of the models that `energycomp.load` finds without a folder or the hub. Imports no torch."""
    return list(names("models"))


def homes_of(name: str) -> tuple[str, ...]:
    """The modules of plugins that export a name. Imports their top modules, and so no torch."""
    modules = {info.module for info in listing(load=True) if not info.error}
    return tuple(sorted(one for one in modules if name in getattr(sys.modules.get(one), "__all__", ())))


def register(kind: Kind, name: str, factory: Factory | str) -> None:
    """Registers a name in this process only: for a script or a notebook, before there is a plugin.

    Replaces a name that was registered in this way before; a name of an installed plugin raises PluginError.

    >>> register("conditioners", "shades", dict)
    >>> find("conditioners", "shades")
    <class 'dict'>
    """
    if any(info is not _OWN for info, _ in _claims(kind).get(name, [])):
        raise PluginError(f"Got the {singular_of(kind)} {name!r}, which a plugin registers. Expected another name.")
    getattr(Add(_own), singular_of(kind))(name, factory)


def listing(*, load: bool = False) -> tuple[PluginInfo, ...]:
    """All installed plugins, the core first, those that are switched off included.

    Args:
        load: whether to import each plugin, within `try`, to see what it registers or why it fails. Otherwise only the
            metadata of distributions are read and nothing is imported.

    >>> listing()[0].registered
    {}
    >>> listing(load=True)[0].registered["conditioners"]
    ('classes', 'latents')
    """
    return tuple(_with_conflicts(plugin.info) for plugin in _load_all()) if load else list_installed()


def reload() -> None:
    """Forgets what was loaded, for a change of the installed packages or of the environment; `register` stays."""
    importlib.invalidate_caches()
    _discover.cache_clear()


@functools.cache
def _discover() -> tuple[Plugin, ...]:
    return tuple(load_plugin(info) for info in list_installed())


def _load_all() -> tuple[Plugin, ...]:
    with _lock:
        return _discover()


def _claims(kind: Kind) -> dict[str, list[tuple[PluginInfo, Factory]]]:
    if kind not in KINDS:
        raise InputError(f"Got the kind {kind!r}. Expected one of {', '.join(KINDS)}.")
    claims: dict[str, list[tuple[PluginInfo, Factory]]] = {}
    for plugin in (*_load_all(), Plugin(_OWN, _own)):
        for name, factory in plugin.factories.get(kind, {}).items():
            claims.setdefault(name, []).append((plugin.info, factory))
    return claims


def _with_conflicts(info: PluginInfo) -> PluginInfo:
    found = []
    for kind, registered in info.registered.items():
        for name in registered:
            infos = [other for other, _ in _claims(kind)[name]]
            if len(infos) > 1:
                found.append(_conflict(kind, name, infos))
    return attrs.evolve(info, conflicts=tuple(found))


def singular_of(kind: Kind) -> str:
    """The word for one object of a kind."""
    return kind.removesuffix("s")


def _conflict(kind: Kind, name: str, infos: list[PluginInfo]) -> str:
    return (
        f"{len(infos)} plugins register the {singular_of(kind)} {name!r}: {' and '.join(map(str, infos))}. "
        f"Say which, such as '{infos[0].distribution}:{name}', or switch one off: {DISABLE}={infos[-1].name}"
    )


def not_found(kind: Kind, name: str, known: Collection[str]) -> NotFoundError:
    """The error for a name that is not among the known ones; it also says which plugins do not work here.

    >>> print(str(not_found("solvers", "beem", ["beam", "sgd"])).partition(" Not installed")[0])
    No solver is named 'beem'. Did you mean 'beam'? Known solvers: beam, sgd.
    """
    message = f"No {singular_of(kind)} is named {name!r}."
    if close := difflib.get_close_matches(name, known, n=3):
        message += f" Did you mean {' or '.join(map(repr, close))}?"
    message += f" Known {kind}: {', '.join(known) or 'none'}."
    infos = listing(load=True)
    if missing := [one for one in first_party() if not any(info.is_named(one) for info in infos)]:
        one = missing[0] if len(missing) == 1 else "one of them"
        message += f" Not installed: {', '.join(missing)}; pip install {one}, or 'energycomp[all]'"
    if failed := [f"  {info}: {info.error}" for info in infos if info.error]:
        message += "\nThese plugins failed, the name may be theirs:\n" + "\n".join(failed)
    if off := [f"  {info}: {info.off}" for info in infos if info.off]:
        message += "\nThese plugins are switched off by an environment variable:\n" + "\n".join(off)
    return NotFoundError(message)


def first_party() -> tuple[str, ...]:
    """The packages that are developed together with energycomp: those of its extra `all`.

    >>> "energycomp-solvers" in first_party()
    True
    """
    try:
        needed = requires("energycomp") or ()
    except PackageNotFoundError:  # run from its sources
        return ()
    return tuple(re.split(r"[^\w-]", one)[0] for one in needed if re.search("extra == .all.", one))
