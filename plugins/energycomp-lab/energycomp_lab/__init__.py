"""The laboratory: training, evaluation, conformance checks, and commands for each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from energycomp.imports import first_use
from energycomp.plugins import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from energycomp_lab.training import denoising_loss as denoising_loss
    from energycomp_lab.training.fit import fit as fit

__getattr__, __all__ = first_use(__name__, __file__)


def _command(name: str) -> Callable[[], Any]:
    return lambda: getattr(import_module(f"energycomp_lab.commands.{name}"), name)


@hookimpl
def energycomp_register_commands() -> Mapping[str, Callable[[], Any]]:
    """One module per command, imported when it is run or shown by `--help`."""
    return {name: _command(name) for name in ("train", "evaluate", "data", "check", "traverse")}
