"""Select, interpolate and edit latents (B, K, D), one row for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.models.model import Model


def recombine(sources: Sequence[Tensor], take: Sequence[Sequence[int]]) -> Tensor:
    """Selected rows of several images as the latents of one image.

    Args:
        sources: latents (B, K, D) of each image; K may differ.
        take: the rows to take from each, counted from 0.

    Returns:
        (B, K', D), where K' is the number of selected rows.

    >>> a, b = torch.zeros(1, 3, 2), torch.ones(1, 3, 2)
    >>> recombine([a, b], [[0, 1], [2]])[0, :, 0]
    tensor([0., 0., 1.])
    """
    if not sources or len(sources) != len(take):
        raise InputError(f"got {len(sources)} images and rows of {len(take)}; expected rows of each, at least one")
    legal = [checked(latents) for latents in sources]
    if len({(latents.shape[0], latents.shape[2]) for latents in legal}) != 1:
        shapes = [tuple(latents.shape) for latents in legal]
        raise InputError(f"got latents of shapes {shapes}; expected one B and one D; take all from one model")
    parts = [latents[:, _rows(chosen, latents)] for latents, chosen in zip(legal, take, strict=True)]
    return checked(torch.cat(parts, dim=1))


def add(*sources: Tensor) -> Tensor:
    """All rows of several images as the latents (B, K + K' + ..., D) of one image (Figure 4.7 of Wang, 2026).

    >>> add(torch.zeros(1, 3, 2), torch.ones(1, 3, 2)).shape
    torch.Size([1, 6, 2])
    """
    return recombine(sources, [range(checked(latents).shape[1]) for latents in sources])


def swap(a: Tensor, b: Tensor, rows_a: Sequence[int], rows_b: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Exchanges rows between two images, as many of each.

    >>> a, b = swap(torch.zeros(1, 2, 1), torch.ones(1, 2, 1), [0], [1])
    >>> a.flatten().tolist(), b.flatten().tolist()
    ([1.0, 0.0], [1.0, 0.0])
    """
    a, b = checked(a).clone(), checked(b).clone()
    from_a, from_b = _rows(rows_a, a), _rows(rows_b, b)
    if len(from_a) != len(from_b) or a.shape[::2] != b.shape[::2]:
        raise InputError(
            f"got {len(from_a)} rows of {tuple(a.shape)} for {len(from_b)} of {tuple(b.shape)}; expected as many of "
            "each, of latents of one model"
        )
    a[:, from_a], b[:, from_b] = b[:, from_b], a[:, from_a]
    return a, b


def add_one_at_a_time(latents: Tensor) -> list[Tensor]:
    """The first row, the first two rows, and so on up to all K: latents of K images.

    >>> [some.shape[1] for some in add_one_at_a_time(torch.zeros(1, 3, 2))]
    [1, 2, 3]
    """
    latents = checked(latents)
    return [latents[:, : count + 1] for count in range(latents.shape[1])]


def interpolate(a: Tensor, b: Tensor, steps: int, rows: Sequence[int] | None = None) -> list[Tensor]:
    """Linear interpolation between the latents of two images, including both ends.

    Args:
        a, b: (B, K, D); row k is interpolated to row k, so order the rows with `recombine` first.
        steps: the number of latents, at least 2.
        rows: the rows to interpolate; the others stay those of `a`. By default all rows.

    >>> [some.flatten().tolist() for some in interpolate(torch.zeros(1, 2, 1), torch.ones(1, 2, 1), 3, rows=[1])]
    [[0.0, 0.0], [0.0, 0.5], [0.0, 1.0]]
    """
    a, b = checked(a), checked(b)
    if a.shape != b.shape or steps < 2:
        raise InputError(
            f"got latents {tuple(a.shape)} and {tuple(b.shape)} and {steps} steps; expected one shape, and at least 2"
        )
    moving = torch.zeros(a.shape[1], 1, device=a.device)
    moving[_rows(range(a.shape[1]) if rows is None else rows, a)] = 1
    return [torch.lerp(a, b, moving * share) for share in torch.linspace(0, 1, steps).tolist()]


def edit(latents: Tensor, row: int, changes: Mapping[int, float]) -> Tensor:
    """A copy of latents with some numbers of one row replaced.

    Args:
        latents: (B, K, D); the row is changed in each image.
        row: counted from 0.
        changes: new values by dimension, 0 to D - 1.

    >>> edit(torch.zeros(1, 2, 3), 1, {0: 0.5, 2: -2.0})
    tensor([[[ 0.0000,  0.0000,  0.0000],
             [ 0.5000,  0.0000, -2.0000]]])
    """
    latents = checked(latents).clone()
    (row,), width = _rows([row], latents), latents.shape[2]
    wrong = [place for place in changes if type(place) is not int or not 0 <= place < width]
    if wrong:
        raise InputError(f"got the dimensions {wrong} of {width}; expected whole numbers from 0 to {width - 1}")
    limit = torch.finfo(latents.dtype).max
    if not all(abs(value) <= limit for value in changes.values()):
        raise InputError(f"got the values {list(changes.values())}; expected finite numbers of {latents.dtype}")
    for place, value in changes.items():
        latents[:, row, place] = value
    return checked(latents)


def traverse(latents: Tensor, row: int, dimension: int, values: Sequence[float]) -> list[Tensor]:
    """Latents (B, K, D) for each of some values that one number of one row is set to.

    What a number means is seen in the pictures of all of them (thesis Fig. 3.6).

    >>> [some.flatten().tolist() for some in traverse(torch.ones(1, 2, 1), 1, 0, [-2.0, 2.0])]
    [[1.0, -2.0], [1.0, 2.0]]
    """
    return [edit(latents, row, {dimension: value}) for value in values]


def checked(latents: Any) -> Tensor:
    """Returns legal latents unchanged; raises `InputError` for another shape, no rows or non-finite numbers."""
    if not isinstance(latents, Tensor) or latents.ndim != 3 or not latents.is_floating_point():
        got = f"shape {tuple(latents.shape)}" if isinstance(latents, Tensor) else f"type {type(latents).__name__}"
        raise InputError(f"got latents of {got}; expected floating point (B, K, D), what `encode` gives")
    if 0 in latents.shape:
        raise InputError(f"got latents of shape {tuple(latents.shape)}; expected at least one image and one row")
    if not bool(torch.isfinite(latents).all()):
        raise InputError("got latents with NaN or infinity; expected finite numbers; check how they were made")
    return latents


def latents_for(model: Model, latents: Any) -> Tensor:
    """Latents (B, K, D) as float32 on the device of a model; raises `InputError` where they are not latents of it."""
    latents, width = checked(latents), model.conditioner.value_shape[-1]
    if latents.shape[2] != width:
        raise InputError(
            f"got latents of width {latents.shape[2]}; expected {width}, that of {model.name!r}; latents of one model "
            "have no meaning for another: compose leaves of both instead"
        )
    return latents.to(model.denoiser.device, torch.float32)


def _rows(chosen: Sequence[int], latents: Tensor) -> list[int]:
    count = latents.shape[1]
    if any(type(row) is not int or not 0 <= row < count for row in chosen):
        raise InputError(f"got the rows {list(chosen)} of {count}; expected whole numbers from 0 to {count - 1}")
    return list(chosen)
