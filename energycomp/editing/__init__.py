"""Read an image, change its composition, and repaint what the change touches."""

from energycomp.editing.edit import Edit, edit
from energycomp.editing.repaint import difference, repaint

__all__ = [
    "Edit",
    "difference",
    "edit",
    "repaint",
]
