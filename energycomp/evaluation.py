"""Moved to energycomp-lab, and `parse_range` to `energycomp.fields`; this forward stays for one release."""

from energycomp.fields import parse_range  # noqa: F401
from energycomp.imports import moved

__getattr__ = moved(__name__, "energycomp_lab.evaluation")
