"""Decompose: images into latents of their parts, and back."""

from energycomp.decomposition.decomposer import (
    Decomposer,
    Decomposition,
    DiffusionDecomposer,
    Parts,
    decompose,
    decomposer_of,
    sampler_of,
    takes_apart,
)
from energycomp.decomposition.latents import (
    add,
    add_one_at_a_time,
    checked,
    edit,
    interpolate,
    recombine,
    swap,
    traverse,
)
from energycomp.decomposition.part_weights import PartWeights, part_weights

__all__ = [
    "Decomposer",
    "Decomposition",
    "DiffusionDecomposer",
    "PartWeights",
    "Parts",
    "add",
    "add_one_at_a_time",
    "checked",
    "decompose",
    "decomposer_of",
    "edit",
    "interpolate",
    "part_weights",
    "recombine",
    "sampler_of",
    "swap",
    "takes_apart",
    "traverse",
]
