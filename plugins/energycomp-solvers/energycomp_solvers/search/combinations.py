"""Which words of a component are tried together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.components import MixedSupport
from energycomp_solvers.search.options import SearchOptions

MOST = 256  # combinations of words that are tried at once


def combinations(
    mixed: MixedSupport, start: Tensor, energies: Sequence[Tensor], beta: float | None, options: SearchOptions
) -> Tensor:
    """Values (M, V) with the numbers of one, and combinations of words that are not hopeless, the likeliest ones first.

    Where there are more than `MOST`, those with one other word.

    Args:
        start: (V,), or its numbers (D,).
        energies: (n,) of each word of each attribute by itself, at the inverse temperature `beta`.

    >>> from torch.distributions import constraints
    >>> mixed = MixedSupport(constraints.unit_interval, 1, (2, 2))
    >>> known = [torch.tensor([0.0, 50.0]), torch.tensor([30.0, 0.0])]
    >>> combinations(mixed, torch.tensor([0.5]), known, 1.0, SearchOptions()).tolist()
    [[0.5, 1.0, 2.0], [0.5, 1.0, 1.0], [0.5, 2.0, 2.0]]
    """
    numbers, known = mixed.split(start if len(start) > mixed.length else mixed.opened(start))
    choices = [torch.arange(1, number + 1) for number in mixed.words]
    codes = torch.cartesian_prod(*choices).view(-1, len(choices))
    worse = [each - each.min() for each in energies]  # than the best word of its attribute

    # Too many: change one word at a time.
    if len(codes) > MOST:
        whole = mixed.joined(numbers, known)
        changed = [mixed.worded(whole.expand(len(c), -1), k, c - 1) for k, c in enumerate(choices)]
        return torch.cat(changed)[torch.cat(worse).argsort(stable=True)]

    # The likeliest ones, by how much worse their words are
    total = torch.stack([each[codes[:, k] - 1] for k, each in enumerate(worse)]).sum(0)
    order = total.argsort(stable=True)[: options.likeliest]
    if beta is not None:
        order = order[beta * total[order] <= options.hopeless]
    return mixed.joined(numbers.expand(len(order), -1), codes[order])
