"""Whether a network was adopted as it was trained; see `check_adoption`."""

from energycomp_lab.checks.adoption.case import Finding
from energycomp_lab.checks.adoption.check import Adoption, check_adoption
from energycomp_lab.checks.adoption.near_misses import NearMiss

__all__ = ["Adoption", "Finding", "NearMiss", "check_adoption"]
