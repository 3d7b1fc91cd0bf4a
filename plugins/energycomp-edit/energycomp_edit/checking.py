"""Checking an edit: what a reading of the result does not agree with."""

from __future__ import annotations

import attrs
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from energycomp.components import mixed_of
from energycomp.inference import row_text, view_of
from energycomp.models import Model

# Mean squared difference of the numbers of two values below which they are one object; of places in [0, 1], each is
# less than 0.063 of the image away, as in the perception rate of `energycomp evaluate`.
NEAR = 0.002


@attrs.frozen
class Fault:
    """An object that a reading sees otherwise than asked for: what is wrong with it.

    Args:
        row: of the values that were asked for; None for an object that nobody asked for.
    """

    text: str
    row: int | None = None

    def __str__(self) -> str:
        return self.text


def find_faults(asked: Tensor, seen: Tensor, model: Model) -> tuple[Fault, ...]:
    """What a reading sees otherwise than asked for, one fault for each object; none where the edit holds.

    Numbers agree where they are near, and words where they are equal. A word that was left open agrees with each, and
    so does what reading leaves open, such as a turn. Values are (K, *V), and (K', *V) of the reading.

    >>> from energycomp.testing import tinted_model
    >>> model = tinted_model()
    >>> asked = model.conditioner.parse(0.25, 0.5, tint="red")
    >>> print(*find_faults(asked, model.conditioner.parse(0.26, 0.5, tint="blue"), model))
    red 0.25 0.50 is read as blue 0.26 0.50
    """
    # Compare the numbers and the words of each pair
    distance, differing = _distances(asked, seen, model)
    near = distance < NEAR
    # Match as many near pairs as possible; of as many, those whose words agree, then those that are nearest
    most = 1 + min(near.shape)
    worth = most * (1 + differing.max()) - differing - distance / NEAR / most if near.numel() else distance
    rows, columns = linear_sum_assignment(torch.where(near, worth, 0.0).numpy(), maximize=True)
    matched = {k: j for k, j in zip(rows.tolist(), columns.tolist(), strict=True) if near[k, j]}
    # Say what is missing, what has other words, and what nobody asked for
    texts = [row_text(row) for row in view_of(model, asked).rows]
    others = [row_text(row) for row in view_of(model, seen).rows]
    faults = []
    for k, text in enumerate(texts):
        if k not in matched:
            faults.append(Fault(f"{text} is missing", k))
        elif differing[k, matched[k]]:
            faults.append(Fault(f"{text} is read as {others[matched[k]]}", k))
    faults += [Fault(f"{text} was not asked for") for j, text in enumerate(others) if j not in matched.values()]
    return tuple(faults)


def _distances(asked: Tensor, seen: Tensor, model: Model) -> tuple[Tensor, Tensor]:
    """Mean squared differences (K, K') of the numbers of each pair, and how many of its words differ."""
    numbers = [each.detach().cpu().double().flatten(1) for each in (asked, seen)]
    differing = torch.zeros(len(asked), len(seen), dtype=torch.double)
    mixed = mixed_of(model.conditioner)
    if mixed is not None:
        words = [each[:, mixed.support.length :][:, : len(mixed.attributes)] for each in numbers]
        numbers = [each[:, : mixed.support.length] for each in numbers]
        wanted, read = words[0][:, None], words[1][None]
        differing = ((wanted != read) & (wanted > 0)).sum(2).double()
    return (numbers[0][:, None] - numbers[1][None]).square().mean(2), differing
