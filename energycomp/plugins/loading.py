"""Importing a plugin and calling its hooks: in this process, to use it, or in one of its own, to list it.

What a plugin does when it is imported is its own affair only in a process of its own: there it may exit, hang or
crash, and is listed with that.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint
from typing import Any

import attrs
import pluggy

from energycomp.errors import PluginError
from energycomp.plugins import hookspecs
from energycomp.plugins.installed import CORE, DISABLE, GROUP, KINDS, Kind, PluginInfo

__all__ = ["Factory", "Plugin", "load_plugin", "try_plugins"]

Factory = Callable[..., Any]

SLOW = 1.0  # seconds; a top module that imports nothing heavy takes a hundredth
LIMIT = 30.0  # seconds after which a plugin that is only to be listed is given up; many, since the cores may be busy
HEAVY = frozenset({"accelerate", "diffusers", "matplotlib", "scipy", "torch", "torchvision", "transformers"})
# The host's path replaces the child's before anything is looked for on it.
CHILD = "import sys; sys.path[:] = sys.argv[2:]; from energycomp.plugins.loading import _answer; _answer(sys.argv[1])"

log = logging.getLogger("energycomp")


@attrs.frozen
class Plugin:
    """A plugin that was loaded: what is known of it, and its factories by kind and name."""

    info: PluginInfo
    factories: Mapping[Kind, Mapping[str, Factory]] = attrs.field(factory=dict)


def load_plugin(info: PluginInfo) -> Plugin:
    """Imports a plugin and calls its hooks; whatever goes wrong ends up in `info.error`.

    A plugin that its metadata rule out, or that is switched off, is not imported. What it prints goes to stderr, so
    that it never ends up in the middle of `--json` output.
    """
    if info.error or info.off:
        return Plugin(info)
    factories: dict[Kind, dict[str, Factory]] = {}
    reason, start, heavy = None, time.perf_counter(), HEAVY & sys.modules.keys()
    patience = threading.Timer(SLOW, _say_who_is_slow, (info,))
    patience.daemon = True
    patience.start()
    with contextlib.redirect_stdout(_Stderr()) as said:
        try:
            factories = _factories(EntryPoint(info.name, info.module, GROUP).load(), info.name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too, and what others derive from no Exception
            reason = _reason(error)
        finally:
            patience.cancel()
    warnings = _warnings(said.text, time.perf_counter() - start, (HEAVY & sys.modules.keys()) - heavy)
    registered = {kind: tuple(sorted(found)) for kind, found in factories.items()}
    return Plugin(attrs.evolve(info, registered=registered, error=reason, warnings=warnings), factories)


def try_plugins(infos: Iterable[PluginInfo]) -> tuple[PluginInfo, ...]:
    """What each plugin registers, or why it fails, found out in a process of its own: none is imported here.

    Costs 0.1 s of a core each; those that hang are given up after `LIMIT` seconds, all at once.
    """
    with ThreadPoolExecutor(max_workers=8) as pool:
        return tuple(pool.map(_try, infos))


def _try(info: PluginInfo) -> PluginInfo:
    if info.module == CORE:
        return load_plugin(info).info
    if info.error or info.off:
        return info
    command = [sys.executable, "-c", CHILD, json.dumps(attrs.asdict(info)), *sys.path]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=LIMIT, check=False)  # noqa: S603 - this interpreter
    except subprocess.TimeoutExpired:
        return attrs.evolve(info, error=f"Its import did not end within {LIMIT:g} s.")
    except OSError as error:
        return attrs.evolve(info, error=f"It could not be tried in a process of its own ({error}).")
    if not done.stdout:
        return attrs.evolve(info, error=f"Its import ended the process, with exit code {done.returncode}.")
    answer = json.loads(done.stdout)
    registered = {kind: tuple(names) for kind, names in answer["registered"].items()}
    return attrs.evolve(info, registered=registered, error=answer["error"], warnings=tuple(answer["warnings"]))


def _answer(question: str) -> None:
    """What the child of `_try` runs. Only the answer reaches its stdout, whatever the plugin writes there."""
    answer = os.dup(1)
    os.dup2(2, 1)
    plugin = load_plugin(PluginInfo(**json.loads(question)))
    os.write(answer, json.dumps(attrs.asdict(plugin.info)).encode())
    os._exit(0)  # no thread or exit handler of the plugin can hold the listing up


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


class _Stderr(io.TextIOBase):
    """Takes the place of stdout: passes on to stderr, and keeps the beginning."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text = (self.text + text)[:80]
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _say_who_is_slow(info: PluginInfo) -> None:
    log.warning(
        "energycomp: still importing the plugin %s after %g s; to do without it: %s=%s", info, SLOW, DISABLE, info.name
    )


def _reason(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # an exception of the plugin's own
        text = "(its message cannot be shown)"
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"


def _warnings(said: str, seconds: float, heavy: frozenset[str]) -> tuple[str, ...]:
    found = []
    if said:
        found.append(f"prints when it is imported: {said.strip()!r}")
    if seconds > SLOW:
        found.append(f"takes {seconds:.1f} s to import, and so does every command")
    if heavy:
        found.append(f"imports {', '.join(sorted(heavy))}; return lazy(...) from its hooks instead")
    return tuple(found)
