"""What is done with latents (B, K, D), one row a part: choosing rows, going from some to others, changing numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from energycomp.errors import InputError

__all__ = ["add", "add_one_at_a_time", "checked", "edit", "interpolate", "recombine", "swap", "traverse"]


def recombine(sources: Sequence[Tensor], take: Sequence[Sequence[int]]) -> Tensor:
    """Chosen rows of several pictures as the latents of one.

    Args:
        sources: latents (B, K, D) of each picture, K may differ.
        take: which rows of each, counted from 0.

    Returns:
        (B, K', D), K' the number of rows that are taken.

    >>> a, b = torch.zeros(1, 3, 2), torch.ones(1, 3, 2)
    >>> recombine([a, b], [[0, 1], [2]])[0, :, 0]
    tensor([0., 0., 1.])
    """
    if not sources or len(sources) != len(take):
        raise InputError(f"got {len(sources)} pictures and rows of {len(take)}; expected rows of each, at least one")
    legal = [checked(latents) for latents in sources]
    if len({(latents.shape[0], latents.shape[2]) for latents in legal}) != 1:
        shapes = [tuple(latents.shape) for latents in legal]
        raise InputError(f"got latents of shapes {shapes}; expected one B and one D; take all from one model")
    parts = [latents[:, _rows(chosen, latents)] for latents, chosen in zip(legal, take, strict=True)]
    return checked(torch.cat(parts, dim=1))


def add(*sources: Tensor) -> Tensor:
    """All rows of several pictures, as the latents (B, K + K' + ..., D) of one (thesis Fig. 4.7).

    >>> add(torch.zeros(1, 3, 2), torch.ones(1, 3, 2)).shape
    torch.Size([1, 6, 2])
    """
    return recombine(sources, [range(checked(latents).shape[1]) for latents in sources])


def swap(a: Tensor, b: Tensor, rows_a: Sequence[int], rows_b: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Two pictures that give each other as many rows.

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
    """The first row, the first two, and so on to all K: latents of K pictures.

    >>> [some.shape[1] for some in add_one_at_a_time(torch.zeros(1, 3, 2))]
    [1, 2, 3]
    """
    latents = checked(latents)
    return [latents[:, : count + 1] for count in range(latents.shape[1])]


def interpolate(a: Tensor, b: Tensor, steps: int, rows: Sequence[int] | None = None) -> list[Tensor]:
    """Latents of pictures on the way from one to another, both ends among them.

    Args:
        a, b: (B, K, D); row k goes to row k, so that `recombine` may have to order them first.
        steps: how many, at least 2.
        rows: those that move; all when left out.

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
    """Latents in which one row has some other numbers; the rest stays.

    Args:
        latents: (B, K, D); the row of each picture is changed.
        row: which, counted from 0.
        changes: what numbers of it become, by their place from 0 to D - 1.

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
    """Latents as they are; raises `InputError` for another shape, for none and for numbers that are not finite."""
    if not isinstance(latents, Tensor) or latents.ndim != 3 or not latents.is_floating_point():
        got = f"shape {tuple(latents.shape)}" if isinstance(latents, Tensor) else f"type {type(latents).__name__}"
        raise InputError(f"got latents of {got}; expected floating point (B, K, D), what `encode` gives")
    if 0 in latents.shape:
        raise InputError(f"got latents of shape {tuple(latents.shape)}; expected at least one picture and one row")
    if not bool(torch.isfinite(latents).all()):
        raise InputError("got latents with NaN or infinity; expected finite numbers; check how they were made")
    return latents


def _rows(chosen: Sequence[int], latents: Tensor) -> list[int]:
    count = latents.shape[1]
    if any(type(row) is not int or not 0 <= row < count for row in chosen):
        raise InputError(f"got the rows {list(chosen)} of {count}; expected whole numbers from 0 to {count - 1}")
    return list(chosen)
