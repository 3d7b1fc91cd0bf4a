"""What the dimensions of a latent encode: images as one dimension changes, and how much each of them changes."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.decomposition.decomposer import Decomposer, Parts
from energycomp.decomposition.latents import traverse
from energycomp.errors import InputError
from energycomp.seeds import as_generator

CHUNK = 32  # images that are decoded at once


@attrs.frozen(eq=False)
class Traversal:
    """Images as one dimension of one part's latent takes several values.

    Args:
        dim: the dimension, from 0.
        parts: what the latents show at each of N values: images (N, K, 3, H, W), masks, whole (N, 3, H, W).
        changed: mean absolute change of brightness from the first value to the last, as a share of its range, over the
            pixels of the part; over all pixels where there are no masks, None where the part has no pixel.
        outside: the same over all other pixels; None where there are none.
    """

    dim: int
    parts: Parts
    changed: float | None
    outside: float | None


def traverse_dimension(
    decomposer: Decomposer, latents: Tensor, part: int, dim: int, values: Sequence[float], *, seed: int = 0
) -> Traversal:
    """Sets one dimension of one part to several values and decodes the latents at each of them, as one batch.

    All images start from the same noise, so that they differ in their latents alone.

    Args:
        decomposer: decodes the latents.
        latents: (1, K, D), of one image.
        part: which latent changes, from 0.
        dim: which of its dimensions, from 0.
        values: N values, at least two.
        seed: of the noise.

    Raises:
        InputError: no such part or dimension.

    >>> from energycomp.decomposition import DiffusionDecomposer
    >>> from energycomp.testing import stripes_model
    >>> stripes = DiffusionDecomposer(stripes_model(parts=2))
    >>> found = traverse_dimension(stripes, torch.full((1, 2, 4), 0.5), 0, 1, [0.0, 0.6])
    >>> found.parts.whole.shape, round(found.changed, 3), round(found.outside, 3)
    (torch.Size([2, 3, 16, 16]), 0.1, 0.0)
    """
    _check(latents, part, dim)
    parts = decomposer.parts(torch.cat(traverse(latents, part, dim, values)), generator=_noise(seed, len(values)))
    change = (parts.whole[-1] - parts.whole[0]).abs().mean(0) / 2  # (H, W)
    own = torch.ones_like(change, dtype=torch.bool) if parts.masks is None else parts.masks[:, part].any(0)
    changed, outside = (float(change[where].mean()) if bool(where.any()) else None for where in (own, ~own))
    return Traversal(dim, parts, changed, outside)


def strongest_dimensions(
    decomposer: Decomposer,
    latents: Tensor,
    part: int,
    ends: tuple[float, float],
    *,
    count: int = 6,
    seed: int = 0,
) -> list[int]:
    """The dimensions of a part that change the image most between two values, the strongest first.

    Decodes 2 D images.

    Args:
        decomposer: decodes the latents.
        latents: (1, K, D), of one image.
        part: which latent changes, from 0.
        ends: the two values.
        count: how many dimensions at most.
        seed: of the noise, the same for all images.

    Raises:
        InputError: no such part.
    """
    _check(latents, part)
    width = latents.shape[2]
    both = torch.cat([end for dim in range(width) for end in traverse(latents, part, dim, ends)])
    made = torch.cat([decomposer.decode(some, generator=_noise(seed, len(some))).cpu() for some in both.split(CHUNK)])
    moved = (made[1::2] - made[::2]).abs().flatten(1).mean(1)
    strongest: list[int] = moved.topk(min(count, width)).indices.tolist()
    return strongest


def _check(latents: Tensor, part: int, dim: int = 0) -> None:
    count, width = latents.shape[1:]
    if not 0 <= part < count:
        raise InputError(f"got part {part} of an image of {count} parts; expected 0 to {count - 1}")
    if not 0 <= dim < width:
        raise InputError(f"got dimension {dim} of latents of {width} numbers; expected 0 to {width - 1}")


def _noise(seed: int, count: int) -> list[torch.Generator]:
    """The same noise for each image."""
    return [as_generator(seed) for _ in range(count)]
