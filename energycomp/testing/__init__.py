"""Models and conditioners in closed form to test samplers and solvers against."""

from energycomp.components.gaussian import Gaussian
from energycomp.components.space import cosine_schedule
from energycomp.imports import moved
from energycomp.testing.conditioners import Labels, TintedSquare, UnitSquare
from energycomp.testing.models import (
    attributes_model,
    bumps_model,
    labels_model,
    planted,
    tinted_model,
    tiny_model,
)
from energycomp.testing.stripes import StripesEncoder, stripes_model

__all__ = [
    "Gaussian",
    "Labels",
    "StripesEncoder",
    "TintedSquare",
    "UnitSquare",
    "attributes_model",
    "bumps_model",
    "cosine_schedule",
    "labels_model",
    "planted",
    "stripes_model",
    "tinted_model",
    "tiny_model",
]

__getattr__ = moved(__name__, "energycomp_lab.checks")
