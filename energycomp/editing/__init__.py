"""Read an image, change its composition, and repaint what the change touches."""

from energycomp.editing.edit import Edit, difference, edit, repaint

__all__ = [
    "Edit",
    "difference",
    "edit",
    "repaint",
]
