"""What is installed, read from the metadata of distributions: nothing of a plugin is imported here.

A plugin is an entry point of the group `energycomp`. Its distribution says in `Requires-Dist`, as every package does,
which versions of energycomp it is made for.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from typing import Literal, get_args

import attrs

__all__ = ["CORE", "DISABLE", "GROUP", "KINDS", "ONLY", "Kind", "PluginInfo", "installed", "normalized"]

Kind = Literal["models", "networks", "conditioners", "encoders", "solvers", "datasets", "recipes"]

KINDS: tuple[Kind, ...] = get_args(Kind)
GROUP = "energycomp"
CORE = "energycomp.plugins.builtins"
ONLY = "ENERGYCOMP_PLUGINS"
DISABLE = "ENERGYCOMP_DISABLE_PLUGINS"


@attrs.frozen
class PluginInfo:
    """One installed plugin: what it registers, or why it does not work.

    `registered` maps a kind to names. `conflicts` has one sentence for each name that another plugin registers too;
    using such a name raises PluginError. `error` says why the plugin failed, `off` which environment variable switched
    it off; both are None for a plugin that works. `warnings` says what it should not do: print, take long to import,
    import torch. `module` is its entry point.
    """

    name: str
    distribution: str
    version: str
    registered: Mapping[Kind, tuple[str, ...]] = attrs.field(factory=dict)
    conflicts: tuple[str, ...] = ()
    error: str | None = None
    off: str | None = None
    warnings: tuple[str, ...] = ()
    module: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


def installed() -> tuple[PluginInfo, ...]:
    """All plugins by their metadata, the core first; what they register takes an import to know.

    >>> core = installed()[0]
    >>> core.name, core.module, dict(core.registered)
    ('core', 'energycomp.plugins.builtins', {})
    """
    from energycomp import __version__

    core = PluginInfo("core", "energycomp", __version__, module=CORE)
    seen: set[str] = set()
    others: list[PluginInfo] = []
    for distribution in distributions():
        folder = _folder(distribution)
        if folder in seen:  # a copy further down sys.path, which is never imported
            continue
        seen.add(folder)
        others += [info for info in _plugins_of(distribution) if info.module != CORE]
    return (core, *sorted(others, key=lambda info: (info.distribution, info.version, info.name)))


def normalized(name: str) -> str:
    """A distribution's name as the package index compares it: case, `-`, `_` and `.` do not count.

    >>> normalized("Energycomp_CLEVR")
    'energycomp-clevr'
    """
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _plugins_of(distribution: Distribution) -> Iterator[PluginInfo]:
    """The entry points of one distribution, each with what is wrong about it or its distribution."""
    points, unreadable = _entry_points(distribution)
    if not points:
        return
    name, version, fault = _metadata(distribution)
    for point, module in points.items():
        info = PluginInfo(point, name, version, module=module, off=_switched_off(point, name))
        error = unreadable or fault or _malformed(point, module)
        yield attrs.evolve(info, error=None if info.off else error)


def _entry_points(distribution: Distribution) -> tuple[dict[str, str], str | None]:
    """The plugins {name: module} of a distribution, and why its entry points could not be read.

    Those that cannot be read and hold the group's name stand for one plugin, called as the distribution is.
    """
    fault, text = "", ""
    # Read here and not by `entry_points()`, which one broken distribution, of whatever project, stops for all.
    parser = configparser.ConfigParser(delimiters="=", interpolation=None, allow_no_value=True, strict=False)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names keep their case
    try:
        text = distribution.read_text("entry_points.txt") or ""
        if f"[{GROUP}]" in text:
            parser.read_string(text)
    except UnicodeDecodeError as error:
        fault, text = str(error), error.object.decode("latin-1")
    except (configparser.Error, OSError) as error:
        fault = " ".join(str(error).split())
    if fault:
        ours = {_folder(distribution): ""} if f"[{GROUP}]" in text else {}
        return ours, f"Got an entry_points.txt that cannot be read ({fault}). {_reinstall(_folder(distribution))}"
    return ({name: value or "" for name, value in parser[GROUP].items()} if GROUP in parser else {}), None


def _metadata(distribution: Distribution) -> tuple[str, str, str | None]:
    """Name and version of a distribution, and why its plugins cannot be used."""
    name, version = _folder(distribution), "?"
    try:
        metadata = distribution.metadata
        missing = [field for field in ("Name", "Version") if not metadata.get_all(field)]
        name, version = ((metadata.get_all(f) or [old])[0] for f, old in (("Name", name), ("Version", version)))
        if missing:
            return name, version, f"Got metadata without {' and '.join(missing)}. {_reinstall(name)}"
        return name, version, _misfit(name, metadata.get_all("Requires-Dist") or [])
    except Exception as error:  # metadata of strangers: bytes that are no text, requirements that do not parse
        return name, version, f"Got metadata that cannot be read ({type(error).__name__}: {error}). {_reinstall(name)}"


def _misfit(name: str, requirements: list[str]) -> str | None:
    """Why a distribution is made for another energycomp than the one that runs."""
    from packaging.requirements import Requirement

    from energycomp import __version__

    for requirement in map(Requirement, requirements):
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ours = applies and normalized(requirement.name) == GROUP
        if ours and not requirement.specifier.contains(__version__, prereleases=True):
            return (
                f"It is made for energycomp {requirement.specifier}, this is energycomp {__version__}. "
                f"Install versions that fit each other: pip install -U energycomp {name}"
            )
    return None


def _malformed(point: str, module: str) -> str | None:
    if re.fullmatch(r"[^\W\d][\w.]*(\s*:\s*[^\W\d][\w.]*)?", module):
        return None
    return (
        f"Got the entry point {point!r} = {module!r}. Expected the plugin's module, such as 'energycomp_random'. "
        "Correct [project.entry-points.energycomp] in its pyproject.toml, and install it again."
    )


def _reinstall(name: str) -> str:
    return f"Expected what an installer writes. Install it again: pip install --force-reinstall --no-deps {name}"


def _folder(distribution: Distribution) -> str:
    """The name in `energycomp_random-0.1.0.dist-info`, which is there even where the metadata are damaged."""
    path = getattr(distribution, "_path", None)
    stem, _, suffix = ("" if path is None else path.name).rpartition(".")
    if suffix in ("dist-info", "egg-info"):
        return normalized(stem.partition("-")[0])
    try:
        return normalized(distribution.name)
    except Exception:  # an egg, or another finder's distribution, whose metadata are damaged
        return f"unknown {path}"


def _switched_off(name: str, distribution: str) -> str | None:
    """The environment variable that keeps this plugin from being loaded."""
    own = {normalized(name), normalized(distribution)}
    if ONLY in os.environ and not own & _listed(ONLY):
        return ONLY
    return DISABLE if own & _listed(DISABLE) else None


def _listed(variable: str) -> set[str]:
    return {normalized(part) for part in os.environ.get(variable, "").split(",") if part.strip()}
