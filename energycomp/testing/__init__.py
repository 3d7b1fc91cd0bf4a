"""Conformance checks for any package, and models in closed form to test against."""

from energycomp.testing.checks import (
    ConformanceError,
    check_component,
    check_conditioner,
    check_encoder,
    check_solver,
)
from energycomp.testing.models import (
    Gaussian,
    Labels,
    StripesEncoder,
    UnitSquare,
    attributes_model,
    bumps_model,
    cosine_schedule,
    labels_model,
    planted,
    stripes_model,
    tiny_model,
)
from energycomp.testing.plugin import (
    Check,
    check_dataset,
    check_model,
    check_network,
    check_plugin,
    check_recipe,
)

__all__ = [
    "Check",
    "ConformanceError",
    "Gaussian",
    "Labels",
    "StripesEncoder",
    "UnitSquare",
    "attributes_model",
    "bumps_model",
    "check_component",
    "check_conditioner",
    "check_dataset",
    "check_encoder",
    "check_model",
    "check_network",
    "check_plugin",
    "check_recipe",
    "check_solver",
    "cosine_schedule",
    "labels_model",
    "planted",
    "stripes_model",
    "tiny_model",
]
