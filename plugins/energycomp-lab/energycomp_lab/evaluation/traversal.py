"""What one dimension of a part's latent changes in the image."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.decomposition import Decomposer, Parts, traverse
from energycomp.seeds import as_generator

CHUNK = 32  # images that are decoded at once


@attrs.frozen(eq=False)
class Traversal:
    """Images as one dimension (from 0) of one part's latent takes N values: `parts` of N images.

    Args:
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
        latents: (1, K, D), of one image.
        values: at least two.
        seed: of the noise.

    Raises:
        InputError: no such part or dimension.
    """
    parts = decomposer.parts(torch.cat(traverse(latents, part, dim, values)), generator=_noise(seed, len(values)))
    change = (parts.whole[-1] - parts.whole[0]).abs().mean(0) / 2  # (H, W)
    own = torch.ones_like(change, dtype=torch.bool) if parts.masks is None else parts.masks[:, part].any(0)
    changed, outside = (float(change[where].mean()) if bool(where.any()) else None for where in (own, ~own))
    return Traversal(dim, parts, changed, outside)


def strongest_dimensions(
    decomposer: Decomposer, latents: Tensor, part: int, ends: tuple[float, float], *, count: int = 6, seed: int = 0
) -> list[int]:
    """Finds the dimensions, at most `count`, that change the image most between two values, the strongest first.

    Decodes 2 D images. Arguments and errors as of `traverse_dimension`.
    """
    width = latents.shape[2]
    both = torch.cat([end for dim in range(width) for end in traverse(latents, part, dim, ends)])
    made = torch.cat([decomposer.decode(some, generator=_noise(seed, len(some))).cpu() for some in both.split(CHUNK)])
    moved = (made[1::2] - made[::2]).abs().flatten(1).mean(1)
    strongest: list[int] = moved.topk(min(count, width)).indices.tolist()
    return strongest


def _noise(seed: int, count: int) -> list[torch.Generator]:
    return [as_generator(seed) for _ in range(count)]
