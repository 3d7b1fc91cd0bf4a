"""Conformance checks, one file per kind of object. A check raises `ConformanceError` at the first fault."""

from energycomp_lab.checks.codec import check_codec as check_codec, check_processor as check_processor
from energycomp_lab.checks.component import check_component as check_component
from energycomp_lab.checks.conditioner import check_conditioner as check_conditioner
from energycomp_lab.checks.dataset import check_dataset as check_dataset
from energycomp_lab.checks.decomposer import check_decomposer as check_decomposer
from energycomp_lab.checks.expect import ConformanceError as ConformanceError
from energycomp_lab.checks.guidance import check_guidance as check_guidance
from energycomp_lab.checks.model import check_model as check_model
from energycomp_lab.checks.network import check_encoder as check_encoder, check_network as check_network
from energycomp_lab.checks.plugin import Check as Check, check_plugin as check_plugin
from energycomp_lab.checks.recipe import check_recipe as check_recipe
from energycomp_lab.checks.sampler import check_sampler as check_sampler
from energycomp_lab.checks.solver import check_solver as check_solver
