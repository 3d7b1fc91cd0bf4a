"""Decompose: images into latents of their parts, and back."""

from energycomp.decomposition.decomposer import (
    EXPLAINED as EXPLAINED,
    Decomposer as Decomposer,
    Decomposition as Decomposition,
    Parts as Parts,
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
