"""`energycomp plugins` and `energycomp env`: what is installed, for a bug report, read without importing torch."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.plugins import PluginInfo, listing
from energycomp_cli.options import AsJson
from energycomp_cli.output import print_json, print_table

if TYPE_CHECKING:
    from rich.text import Text

BESIDE = ("typer", "transformers", "accelerate", "torchmetrics")  # of the plugins


def plugins(as_json: AsJson = False) -> None:
    """List the plugins and what each registers.

    ```sh
    energycomp plugins
    ```

    A plugin that fails is listed with the reason, and the others still work. To switch one off, set
    ENERGYCOMP_DISABLE_PLUGINS=NAME. `energycomp check NAME`, of the package energycomp-lab, checks one.
    """
    infos = listing(load=True)
    if as_json:
        print_json([attrs.asdict(info) for info in infos])
    else:
        rows = [(info.name, f"{info.distribution} {info.version}", _list_registered(info)) for info in infos]
        print_table(["plugin", "distribution", "registers"], rows)


def _list_registered(info: PluginInfo) -> Text:
    from rich.text import Text

    lines = [Text(f"{kind}: {', '.join(names)}") for kind, names in info.registered.items()]
    lines += [Text(f"conflict: {conflict}", style="yellow") for conflict in info.conflicts]
    lines += [Text(f"failed: {info.error}", style="red")] if info.error else []
    lines += [Text(f"switched off by {info.off}", style="dim")] if info.off else []
    lines += [Text(f"warning: {warning}", style="yellow") for warning in info.warnings]
    return Text("\n").join(lines)


def env(as_json: AsJson = False) -> None:
    """Show versions, cores, memory and plugins, for a bug report.

    ```sh
    energycomp env --json
    ```
    """
    needed = [re.split("[^A-Za-z0-9_-]", line)[0] for line in requires("energycomp") or [] if "extra ==" not in line]
    report = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        # in a container fewer than those of the machine
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "packages": {package: _version(package) for package in ["energycomp", *needed, *BESIDE]},
        "plugins": [f"{info}{' failed' if info.error else ' off' if info.off else ''}" for info in listing(load=True)],
    }
    if as_json:
        print_json(report)
    else:
        print_table([], [(name, _cell(value)) for name, value in report.items()])


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        value = [f"{name} {entry or 'not installed'}" for name, entry in value.items()]
    if value is None:
        return "unknown"
    return "\n".join(value) if isinstance(value, list) else str(value)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # no sysconf on this platform, or not these names
        return None
