"""Photos that people marked: read from, and written to, the formats of tools for labels."""

from energycomp_objects.formats.convert import has_labels, read_marks, write_marks
from energycomp_objects.formats.marks import Mark, MarkedPhoto, MarkedPhotos

__all__ = ["Mark", "MarkedPhoto", "MarkedPhotos", "has_labels", "read_marks", "write_marks"]
