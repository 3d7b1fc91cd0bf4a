"""Decompose: images into latents of their parts, and back."""

from energycomp.decomposition.decomposer import (
    Decomposer,
    Decomposition,
    Parts,
    SceneDecomposer,
    decompose,
    decompose_samples,
    decomposer_of,
    sampler_of,
    takes_apart,
)
from energycomp.decomposition.diffusion import MASK_THRESHOLD, DiffusionDecomposer
from energycomp.decomposition.explained import EXPLAINED, explained_variance
from energycomp.decomposition.latents import (
    add,
    add_one_at_a_time,
    checked,
    edit,
    interpolate,
    latents_for,
    recombine,
    swap,
    traverse,
)
from energycomp.decomposition.traversal import Traversal, strongest_dimensions, traverse_dimension
from energycomp.decomposition.views import search_latents

__all__ = [
    "EXPLAINED",
    "MASK_THRESHOLD",
    "Decomposer",
    "Decomposition",
    "DiffusionDecomposer",
    "Parts",
    "SceneDecomposer",
    "Traversal",
    "add",
    "add_one_at_a_time",
    "checked",
    "decompose",
    "decompose_samples",
    "decomposer_of",
    "edit",
    "explained_variance",
    "interpolate",
    "latents_for",
    "recombine",
    "sampler_of",
    "search_latents",
    "strongest_dimensions",
    "swap",
    "takes_apart",
    "traverse",
    "traverse_dimension",
]
