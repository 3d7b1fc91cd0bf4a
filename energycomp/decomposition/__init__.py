"""Decompose: images into latents of their parts, and back."""

from energycomp.decomposition.decomposer import (
    EXPLAINED as EXPLAINED,
    Decomposer as Decomposer,
    Decomposition as Decomposition,
    Parts as Parts,
    SceneDecomposer as SceneDecomposer,
    decompose as decompose,
    decompose_samples as decompose_samples,
    decomposer_of as decomposer_of,
    explained_variance as explained_variance,
    sampler_of as sampler_of,
    takes_apart as takes_apart,
)
from energycomp.decomposition.latents import (
    add as add,
    checked as checked,
    edit as edit,
    latents_for as latents_for,
    recombine as recombine,
    traverse as traverse,
)
from energycomp.imports import moved

TO_LAB = ("Traversal", "strongest_dimensions", "traverse_dimension")
_MOVED = {"DiffusionDecomposer": "energycomp_decomp", "search_latents": "energycomp_decomp.search"}
__getattr__ = moved(__name__, _MOVED | dict.fromkeys(TO_LAB, "energycomp_lab.evaluation"))
