"""`energycomp env`: versions and hardware for a bug report, read without importing the packages."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from energycomp.cli.options import AsJson
from energycomp.cli.output import print_json, print_table

BESIDE = ("transformers", "accelerate", "torchmetrics")  # of the plugins


def env(as_json: AsJson = False) -> None:
    """Show versions, cores, memory and plugins, for a bug report.

    ```sh
    energycomp env --json
    ```
    """
    report = _report()
    if as_json:
        print_json(report)
    else:
        print_table([], [(name, _cell(value)) for name, value in report.items()])


def _cell(value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name} {entry or 'not installed'}" for name, entry in value.items())
    if isinstance(value, list):
        return "\n".join(value)
    return "unknown" if value is None else str(value)


def _report() -> dict[str, Any]:
    import platform

    from energycomp.plugins import listing

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": _cores(),
        "memory_gib": _memory_gib(),
        "packages": {package: _version(package) for package in ["energycomp", *_required(), *BESIDE]},
        "plugins": [f"{info}{' failed' if info.error else ' off' if info.off else ''}" for info in listing(load=True)],
    }


def _required() -> list[str]:
    """The packages that energycomp needs."""
    return [re.split("[^A-Za-z0-9_-]", line)[0] for line in requires("energycomp") or [] if "extra ==" not in line]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cores() -> int | None:
    """The number of cores that this process may use, in a container fewer than those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # no sysconf on this platform, or not these names
        return None
