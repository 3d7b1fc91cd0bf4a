"""The conformance check of decomposers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from energycomp.decomposition import Decomposer, Parts
from energycomp.seeds import as_generator
from energycomp_lab.checks.expect import expect, expect_close, expect_latents, expect_refusal, expect_same_state

STEPS = 2  # of a chain: shapes and repeatability do not depend on more


def check_decomposer(decomposer: Decomposer, *, images: Any = None) -> None:
    """Checks a decomposer on two images.

    `encode` must give finite latents (B, K, D). `decode` must give images (B, 3, H, W) in [-1, 1] of any number of
    latents, and `parts` each of them alone, with masks or None, and all together. A generator must repeat every result,
    the global random state and the latents must stay unchanged, and latents of another width, or none, must be refused.

    Args:
        images: two images in any form that `ImageProcessor` takes; noise if left out.

    >>> from energycomp_decomp import DiffusionDecomposer
    >>> from energycomp.testing import stripes_model
    >>> check_decomposer(DiffusionDecomposer(stripes_model()))
    """
    name = type(decomposer).__name__
    state = torch.get_rng_state()
    expect(isinstance(decomposer, Decomposer), f"a {name}", "encode, decode and parts", "see `energycomp.Decomposer`")
    if images is None:
        images = torch.rand(2, 3, 64, 64, generator=as_generator(0)) * 2 - 1
    latents = decomposer.encode(images, generator=as_generator(0))
    expect_latents(latents, 2, "images")
    expect_close(
        decomposer.encode(images, generator=as_generator(0)), latents, 1e-4, "latents of a second call", "the same"
    )
    before = latents.clone()
    for chosen in (latents, latents[:, :1], torch.cat([latents, latents[:, :1]], dim=1)):
        _check_decoded(decomposer, chosen)
    if (sample := getattr(decomposer, "sample", None)) is not None:
        scenes, again = (sample(2, generator=as_generator(0)) for _ in range(2))
        expect(
            scenes.ndim == 4 and scenes.shape[:2] == (2, 3),
            f"scenes {tuple(scenes.shape)}",
            "(2, 3, H, W)",
            "see `sample`",
        )
        _check_range(scenes, f"scenes of {name}")
        expect_close(again, scenes, 1e-4, f"scenes of {name} for one seed", "the same; pass the generator on")
    expect(torch.equal(latents, before), "latents that were changed in place", "unchanged inputs", "copy first")
    expect_same_state(state, f" by {name}")
    for what, bad in (("no parts", latents[:, :0]), ("another width", torch.cat([latents, latents], dim=2))):
        expect_refusal(f"{name}.decode of latents with {what}", decomposer.decode, bad, num_inference_steps=STEPS)


def _check_decoded(decomposer: Decomposer, latents: Tensor) -> None:
    batch, count = latents.shape[:2]
    what = f"{latents.shape[1]} latents"
    first, again = (
        decomposer.decode(latents, generator=as_generator(0), num_inference_steps=STEPS).detach() for _ in range(2)
    )
    shaped = first.ndim == 4 and first.shape[:2] == (batch, 3)
    expect(shaped, f"images {tuple(first.shape)} of {what}", f"({batch}, 3, H, W)", "one image per row of the batch")
    _check_range(first, f"images of {what}")
    expect_close(again, first, 1e-4, f"images of {what} in a second call", "the same; pass the generator on")
    parts = decomposer.parts(latents, generator=as_generator(0), num_inference_steps=STEPS)
    expect(isinstance(parts, Parts), f"parts {type(parts).__name__}", "Parts", "see `energycomp.decomposition.Parts`")
    size = tuple(first.shape[2:])
    shapes = [("images", parts.images, (batch, count, 3, *size)), ("whole", parts.whole, (batch, 3, *size))]
    shapes += [] if parts.masks is None else [("masks", parts.masks, (batch, count, *size))]
    for part, tensor, shape in shapes:
        expect(tuple(tensor.shape) == shape, f"{part} {tuple(tensor.shape)} of {what}", f"{shape}", "see `Parts`")
    _check_range(parts.images, f"parts of {what}")
    if parts.masks is not None:
        expect(parts.masks.dtype == torch.bool, f"masks of {parts.masks.dtype}", "bool", "compare with a threshold")


def _check_range(images: Tensor, what: str) -> None:
    legal = bool((images.abs() <= 1).all())  # False for NaN
    expect(legal, f"{what} outside [-1, 1], or NaN", "values in [-1, 1]", "clamp them")
