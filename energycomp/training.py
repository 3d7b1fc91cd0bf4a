"""Moved to energycomp-lab; this forward stays for one release."""

from energycomp.imports import moved

__getattr__ = moved(__name__, "energycomp_lab.training")
