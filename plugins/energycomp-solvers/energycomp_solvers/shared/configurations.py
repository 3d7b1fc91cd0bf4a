"""Which configurations a problem of finite slots has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, combinations_with_replacement, product
from math import comb, prod

import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference import Problem


def dictionary(problem: Problem) -> tuple[Tensor, list[list[int]]]:
    """Distinct values (M, *V) over all slots, and the indices that each slot may take."""
    listed = [slot.candidates for slot in problem.slots if slot.candidates is not None]
    if not listed:
        return torch.empty(0, *problem.value_shape, device=problem.device), []
    # Each distinct value once, since it costs an evaluation
    atoms, index = torch.unique(torch.cat(listed), dim=0, return_inverse=True)
    parts = index.split([len(values) for values in listed])
    return atoms, [part.tolist() for part in parts]


def counts_without_repeats(problem: Problem, values: int) -> tuple[int, int]:
    """Least and greatest number of components of answers that take each of some exchangeable values once at most.

    Raises:
        InputError: the least number is greater than that of the values.
    """
    low, high = problem.counts
    if low > values:
        raise InputError(
            f"got at least {low} components and {values} values; expected as many values, since this solver repeats "
            "none; use enumerate or beam, or change count="
        )
    return low, min(high, values)


def configurations(problem: Problem, slots: Sequence[Sequence[int]], count: int) -> Iterator[tuple[int, ...]]:
    """Every choice of `count` atoms: unordered for exchangeable slots, without repeats for distinct ones."""
    if count == 0:
        return iter([()])
    # Sets or multisets, where slots have no order
    if problem.exchangeable:
        pick = combinations if problem.distinct else combinations_with_replacement
        return iter(pick(slots[0], count))
    # One of each slot otherwise
    every = product(*slots[:count])
    return (row for row in every if len(set(row)) == count) if problem.distinct else every


def number_of_configurations(problem: Problem, slots: Sequence[Sequence[int]]) -> int:
    """How many there are over all counts of the problem (an upper bound for distinct slots that differ)."""
    total = 0
    for count in range(problem.counts[0], problem.counts[1] + 1):
        if count == 0:
            total += 1
        elif problem.exchangeable:
            size = len(slots[0])
            total += comb(size, count) if problem.distinct else comb(size + count - 1, count)
        else:
            total += prod(len(slot) for slot in slots[:count])
    return total
