"""Moved to energycomp-batch; this forward stays for one release."""

from energycomp.imports import moved

__getattr__ = moved(__name__, "energycomp_batch")
