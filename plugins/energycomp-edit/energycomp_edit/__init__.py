"""Editing: read an image, change its composition, and repaint only what the change touches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from energycomp.imports import first_use
from energycomp.plugins import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from energycomp_edit.editing import Edit as Edit, edit as edit
    from energycomp_edit.painting import difference as difference, redraw as redraw, repaint as repaint

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register_commands() -> Mapping[str, Callable[[], Any]]:
    """The command `edit`, imported when it is run or shown by `--help`."""
    return {"edit": lambda: import_module("energycomp_edit.command").edit}
