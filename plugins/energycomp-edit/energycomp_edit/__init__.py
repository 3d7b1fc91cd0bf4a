"""Editing: read an image, change its composition, and repaint only what the change touches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use
from energycomp.plugins import Add, hookimpl

if TYPE_CHECKING:
    from energycomp_edit.editing import Edit as Edit, edit as edit
    from energycomp_edit.painting import differences as differences, redraw as redraw, repaint as repaint

__getattr__, __all__ = first_use(__name__, __file__)


@hookimpl
def energycomp_register(add: Add) -> None:
    """The command `edit`."""
    add.command("edit", "energycomp_edit.command:edit")
