"""Conformance checks for plugins, and models in closed form to test samplers and solvers against."""

from energycomp.components.gaussian import Gaussian
from energycomp.components.space import cosine_schedule
from energycomp.testing.checks import (
    ConformanceError,
    check_component,
    check_conditioner,
    check_dataset,
    check_decomposer,
    check_encoder,
    check_guidance,
    check_model,
    check_network,
    check_recipe,
    check_sampler,
    check_solver,
)
from energycomp.testing.conditioners import Labels, TintedSquare, UnitSquare
from energycomp.testing.models import (
    attributes_model,
    bumps_model,
    labels_model,
    planted,
    tinted_model,
    tiny_model,
)
from energycomp.testing.plugin import Check, check_plugin
from energycomp.testing.stripes import StripesEncoder, stripes_model

__all__ = [
    "Check",
    "ConformanceError",
    "Gaussian",
    "Labels",
    "StripesEncoder",
    "TintedSquare",
    "UnitSquare",
    "attributes_model",
    "bumps_model",
    "check_component",
    "check_conditioner",
    "check_dataset",
    "check_decomposer",
    "check_encoder",
    "check_guidance",
    "check_model",
    "check_network",
    "check_plugin",
    "check_recipe",
    "check_sampler",
    "check_solver",
    "cosine_schedule",
    "labels_model",
    "planted",
    "stripes_model",
    "tinted_model",
    "tiny_model",
]
