"""Values that are listed: their dictionary, which configurations they make, one form over all, and posteriors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, combinations_with_replacement, product
from math import comb, prod

import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.inference import NoiseBank, Problem, QuadraticForm
from energycomp.progress import progress

AT_ONCE = 8  # draws whose predictions are in memory


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


def terms_of(problem: Problem, atoms: Tensor, bank: NoiseBank) -> QuadraticForm:
    """The form of all atoms under a bank, without atoms and on the CPU.

    Costs M + 1 rows per draw. A progress bar is shown after 0.5 s.
    """
    form = QuadraticForm.empty(len(atoms))
    for start in progress(range(0, len(bank), AT_ONCE), f"{AT_ONCE} draws at a time"):
        form = form.cat(problem.quadratic(atoms, bank[start : start + AT_ONCE]).without_atoms())
    return form


def memberships(seen: Sequence[tuple[Tensor, Tensor]], atoms: int, beta: float) -> Tensor:
    """The posterior probability (M,) of each atom to be in the answer, p = softmax(-beta E) over all answers.

    Args:
        seen: atoms (N, K) of answers, and their energies (N,); K of one group of answers may differ from another's.

    >>> memberships([(torch.tensor([[0], [1]]), torch.zeros(2)), (torch.tensor([[0, 1]]), torch.zeros(1))], 2, 1.0)
    tensor([0.6667, 0.6667])
    >>> memberships([(torch.tensor([[0, 0], [0, 1]]), torch.zeros(2))], 2, 1.0)
    tensor([1.0000, 0.5000])
    """
    # The posterior of all answers
    posterior = torch.softmax(-beta * torch.cat([energies for _, energies in seen]), 0)
    total = posterior.new_zeros(atoms)
    # Marginal: sum it over the answers that hold an atom
    for (chosen, _), share in zip(seen, posterior.split([len(energies) for _, energies in seen]), strict=True):
        repeats = (chosen[:, :, None] == chosen[:, None]).tril(-1).any(2)  # an answer counts once
        total.index_add_(0, chosen.flatten(), (share[:, None] * ~repeats).flatten())
    return total
