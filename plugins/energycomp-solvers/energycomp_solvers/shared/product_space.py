"""Answers that take one value of each of several attributes: all their errors at once, and posteriors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.components import widen
from energycomp.inference import QuadraticForm

AT_ONCE = 2**16  # answers whose prior is evaluated at a time


def all_errors(form: QuadraticForm, slots: Sequence[Sequence[int]]) -> Tensor:
    """The mean error of every choice of one atom per slot, (M_1 ... M_K,), in the order of `itertools.product`.

    With the slots in two halves an error is that of the left choice, plus that of the right one, plus their inner
    product: 2^20 choices are a product of (1024, M) (M, M) (M, 1024).

    >>> form = QuadraticForm(torch.tensor([[1.0, 2.0, 0.5]]), torch.eye(3)[None], torch.tensor([5.0]))
    >>> all_errors(form, [[0, 1], [2]])  # 5 - 2 b.w + |w|^2
    tensor([4., 2.], dtype=torch.float64)
    """
    # Two halves of the slots, and every choice of each
    mean = form.mean()
    weight = mean.weight(len(slots))
    middle = len(slots) // 2
    mean = QuadraticForm(*map(widen, (mean.b, mean.gram(), mean.c)))
    left, right = (weight * _choices(mean, part) for part in (slots[:middle], slots[middle:]))
    # J = J_left + J_right - c + 2 left.G.right: one matrix product
    errors, others = (mean.weighted_errors(part)[:, 0] for part in (left, right))
    return torch.addmm(errors[:, None] - mean.c, left @ mean.gram()[0], right.T, alpha=2.0).add_(others).flatten()


def _choices(form: QuadraticForm, slots: Sequence[Sequence[int]]) -> Tensor:
    """Indicators (N, M) of every choice of one atom per slot."""
    chosen = form.b.new_zeros(1, len(form))
    one = torch.eye(len(form), dtype=form.b.dtype, device=form.b.device)
    # Outer sum: every choice so far with every atom of the slot
    for slot in slots:
        chosen = (chosen[:, None] + one[list(slot)]).flatten(0, 1)
    return chosen


def with_prior(form: QuadraticForm, errors: Tensor, slots: Sequence[Sequence[int]]) -> Tensor:
    """The errors of `all_errors` with the prior of the form."""
    if form.prior is None:
        return errors
    found = []
    for start, part in zip(range(0, len(errors), AT_ONCE), errors.split(AT_ONCE), strict=True):
        # Mixed radix: the atoms of each choice, from its number
        index = torch.arange(start, start + len(part))
        atoms = list[Tensor]()
        for slot in reversed(slots):
            atoms.insert(0, torch.tensor(slot)[index % len(slot)])
            index = index // len(slot)
        found.append(form.with_prior(part, torch.stack(atoms, dim=1)))
    return torch.cat(found)


def unravel(index: int, slots: Sequence[Sequence[int]]) -> list[int]:
    """The atoms of choice number `index` of `all_errors`.

    >>> unravel(3, [[0, 1], [2, 3]])
    [1, 3]
    """
    atoms = []
    for slot in reversed(slots):
        index, place = divmod(index, len(slot))
        atoms.append(slot[place])
    return atoms[::-1]


def marginals(energies: Tensor, sizes: Sequence[int], beta: float) -> list[Tensor]:
    """The posterior of each slot's values, (M_k,) each: softmax(-beta E) over all choices, summed over the others.

    >>> [p.tolist() for p in marginals(torch.tensor([0.0, 0.0, 1e9, 1e9]), [2, 2], beta=1.0)]
    [[1.0, 0.0], [0.5, 0.5]]
    """
    # The posterior of all choices, summed over all other slots
    joint = torch.softmax(-beta * widen(energies), 0)
    found = []
    after = len(joint)
    for size in sizes:
        after //= size
        found.append(joint.view(-1, size, after).sum((0, 2)).clamp(max=1.0))  # rounding may lead above 1
    return found
