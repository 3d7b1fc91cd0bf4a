"""Families of text-to-image pipelines: one file for each, over what diffusers has."""

from energycomp_text.families.family import Family, Opened, Settings
from energycomp_text.families.prompted import Prompted

__all__ = ["Family", "Opened", "Prompted", "Settings"]
