"""Latents (B, K, D), one row for each part: chosen and changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.fields import is_whole
from energycomp.models.model import Model


def recombine(sources: Sequence[Tensor], take: Sequence[Sequence[int]]) -> Tensor:
    """Selected rows of several images as the latents of one image.

    Args:
        sources: latents (B, K, D) of each image; K may differ.
        take: the rows to take from each, counted from 0.

    Returns:
        (B, K', D), where K' is the number of selected rows.

    Raises:
        InputError: sources of several B or D, a row that a source does not have, or none at all.

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
    for latents, chosen in zip(legal, take, strict=True):
        _check_places("part", chosen, latents.shape[1])
    return checked(torch.cat([latents[:, list(rows)] for latents, rows in zip(legal, take, strict=True)], dim=1))


def add(*sources: Tensor) -> Tensor:
    """All rows of several images as the latents (B, K + K' + ..., D) of one image (Figure 4.7 of Wang, 2026).

    Raises:
        InputError: sources of several B or D.

    >>> add(torch.zeros(1, 3, 2), torch.ones(1, 3, 2)).shape
    torch.Size([1, 6, 2])
    """
    return recombine(sources, [range(checked(latents).shape[1]) for latents in sources])


def edit(latents: Tensor, row: int, changes: Mapping[int, float]) -> Tensor:
    """A copy of latents (B, K, D) with some numbers of one row, from 0, replaced in each image.

    Args:
        changes: new values by dimension, 0 to D - 1.

    Raises:
        InputError: no such row or dimension, or a value that is not finite.

    >>> edit(torch.zeros(1, 2, 3), 1, {0: 0.5, 2: -2.0})
    tensor([[[ 0.0000,  0.0000,  0.0000],
             [ 0.5000,  0.0000, -2.0000]]])
    """
    latents = checked(latents).clone()
    _check_places("part", [row], latents.shape[1])
    _check_places("dimension", changes, latents.shape[2])
    limit = torch.finfo(latents.dtype).max
    if not all(abs(value) <= limit for value in changes.values()):
        raise InputError(f"got the values {list(changes.values())}; expected finite numbers of {latents.dtype}")
    for place, value in changes.items():
        latents[:, row, place] = value
    return latents


def traverse(latents: Tensor, row: int, dimension: int, values: Sequence[float]) -> list[Tensor]:
    """Latents (B, K, D) for each of some values that one number of one row is set to.

    The images of all of them show what the number encodes (Figure 3.6 of Wang, 2026).

    Raises:
        InputError: as `edit`.

    >>> [some.flatten().tolist() for some in traverse(torch.ones(1, 2, 1), 1, 0, [-2.0, 2.0])]
    [[1.0, -2.0], [1.0, 2.0]]
    """
    return [edit(latents, row, {dimension: value}) for value in values]


def checked(latents: Any) -> Tensor:
    """Returns legal latents unchanged; raises `InputError` for another shape, no rows or non-finite numbers.

    >>> checked(torch.zeros(2, 4))
    Traceback (most recent call last):
    energycomp.errors.InputError: got latents of shape (2, 4); expected floating point (B, K, D), what `encode` gives
    """
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
    latents = checked(latents)
    width = model.conditioner.value_shape[-1]
    if latents.shape[2] != width:
        got = f"got latents of width {latents.shape[2]}"
        expected = f"expected {width}, that of {model.name!r}"
        raise InputError(f"{got}; {expected}; they have no meaning for another model: compose leaves of both")
    return latents.to(model.denoiser.device, torch.float32)


def _check_places(what: str, chosen: Iterable[Any], count: int) -> None:
    for place in chosen:
        if not is_whole(place) or not 0 <= place < count:
            raise InputError(f"got {what} {place!r} of {count}; expected a whole number from 0 to {count - 1}")
