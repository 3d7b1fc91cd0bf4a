"""Moved to energycomp-edit; this forward stays for one release."""

from energycomp.imports import moved

__getattr__ = moved(__name__, "energycomp_edit")
