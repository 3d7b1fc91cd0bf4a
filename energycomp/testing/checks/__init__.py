"""Conformance checks, one file per kind of object. A check raises `ConformanceError` at the first fault."""

from energycomp.testing.checks.component import check_component
from energycomp.testing.checks.conditioner import check_conditioner
from energycomp.testing.checks.dataset import check_dataset
from energycomp.testing.checks.decomposer import check_decomposer
from energycomp.testing.checks.expect import ConformanceError
from energycomp.testing.checks.guidance import check_guidance
from energycomp.testing.checks.model import check_model
from energycomp.testing.checks.network import check_encoder, check_network
from energycomp.testing.checks.recipe import check_recipe
from energycomp.testing.checks.sampler import check_sampler
from energycomp.testing.checks.solver import check_solver

__all__ = [
    "ConformanceError",
    "check_component",
    "check_conditioner",
    "check_dataset",
    "check_decomposer",
    "check_encoder",
    "check_guidance",
    "check_model",
    "check_network",
    "check_recipe",
    "check_sampler",
    "check_solver",
]
