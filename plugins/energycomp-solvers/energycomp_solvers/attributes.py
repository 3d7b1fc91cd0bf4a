"""Answers that take one value of each of several attributes: all their errors at once, and posteriors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["all_errors", "marginals", "unravel"]


def all_errors(b: Tensor, gram: Tensor, c: float, slots: Sequence[Sequence[int]], weight: float = 1.0) -> Tensor:
    """The errors of every choice of one atom a slot, (M_1 ... M_K,) in the order of `itertools.product`, float64.

    With the slots in two halves an error is that of the left choice, plus that of the right one, plus their inner
    product: 2^20 choices are a product of (1024, M) (M, M) (M, 1024).

    Args:
        b: (M,) inner products of atoms and target, a mean over draws.
        gram: (M, M) of the atoms.
        c: squared norm of the target.
        slots: atoms that each slot may take.
        weight: of each chosen atom.

    >>> b, gram = torch.tensor([1.0, 2.0, 0.5]), torch.eye(3)
    >>> all_errors(b, gram, 5.0, [[0, 1], [2]])  # 5 - 2 b.w + |w|^2
    tensor([4., 2.], dtype=torch.float64)
    """
    b, gram = weight * b.double(), weight**2 * gram.double()
    middle = len(slots) // 2
    (left, left_error), (right, right_error) = (_half(b, gram, part) for part in (slots[:middle], slots[middle:]))
    table = torch.addmm(left_error[:, None] + c, left @ gram, right.T, alpha=2.0)
    return (table + right_error).flatten()


def _half(b: Tensor, gram: Tensor, slots: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Indicators (N, M) of the choices of some slots, and their errors without c, (N,)."""
    chosen = b.new_zeros(1, len(b))
    one = torch.eye(len(b), dtype=b.dtype, device=b.device)
    for slot in slots:
        chosen = (chosen[:, None] + one[list(slot)]).flatten(0, 1)
    return chosen, ((chosen @ gram - 2 * b) * chosen).sum(1)


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


def marginals(errors: Tensor, sizes: Sequence[int], beta: float) -> list[Tensor]:
    """The posterior of each slot's values, (M_k,) each: softmax(-beta J) over all choices, summed over the others.

    >>> [p.tolist() for p in marginals(torch.tensor([0.0, 0.0, 1e9, 1e9]), [2, 2], beta=1.0)]
    [[1.0, 0.0], [0.5, 0.5]]
    """
    joint = torch.softmax(-beta * errors.double(), 0)
    found, after = [], len(joint)
    for size in sizes:
        after //= size
        found.append(joint.view(-1, size, after).sum((0, 2)).clamp(max=1.0))  # rounding may lead above
    return found
