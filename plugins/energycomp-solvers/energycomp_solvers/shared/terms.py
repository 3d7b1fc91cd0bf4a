"""The quadratic form of all atoms without the atoms, made a few draws at a time; and posteriors over its subsets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from energycomp.inference import NoiseBank, Problem, QuadraticForm
from energycomp.progress import progress

AT_ONCE = 8  # draws whose predictions are in memory


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
