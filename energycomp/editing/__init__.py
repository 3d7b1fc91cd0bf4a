"""Read an image, change its composition, and repaint what the change touches."""

from energycomp.editing.edit import Edit as Edit, edit as edit
from energycomp.editing.repaint import difference as difference, repaint as repaint
