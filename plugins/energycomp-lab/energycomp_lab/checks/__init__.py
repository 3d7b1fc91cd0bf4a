"""Conformance checks, one file per kind of object. A check raises `ConformanceError` at the first fault."""

from energycomp_lab.checks.codec import check_codec, check_processor
from energycomp_lab.checks.component import check_component
from energycomp_lab.checks.conditioner import check_conditioner
from energycomp_lab.checks.dataset import check_dataset
from energycomp_lab.checks.decomposer import check_decomposer
from energycomp_lab.checks.expect import ConformanceError
from energycomp_lab.checks.guidance import check_guidance
from energycomp_lab.checks.model import check_model
from energycomp_lab.checks.network import check_encoder, check_network
from energycomp_lab.checks.plugin import Check, check_plugin
from energycomp_lab.checks.recipe import check_recipe
from energycomp_lab.checks.sampler import check_sampler
from energycomp_lab.checks.solver import check_solver

__all__ = [
    "Check",
    "ConformanceError",
    "check_codec",
    "check_component",
    "check_conditioner",
    "check_dataset",
    "check_decomposer",
    "check_encoder",
    "check_guidance",
    "check_model",
    "check_network",
    "check_plugin",
    "check_processor",
    "check_recipe",
    "check_sampler",
    "check_solver",
]
