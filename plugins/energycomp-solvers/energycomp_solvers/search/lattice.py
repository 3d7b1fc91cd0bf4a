"""A lattice of values, and what its values explain of one draw: where components may be."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import from_quantiles
from energycomp.errors import InputError
from energycomp.inference import NoiseBank, Problem, QuadraticForm


@attrs.define(eq=False)
class Screen:
    """The lattice on the first draw of a bank, and which of its values are known on all draws, `admitted`.

    Args:
        atoms: (M, D), the values of the lattice.
        form: over these, on the first draw.
    """

    problem: Problem
    bank: NoiseBank
    atoms: Tensor
    form: QuadraticForm
    admitted: set[int] = attrs.field(factory=set)

    @cached_property
    def _further(self) -> NoiseBank:
        """The further draws, one object: a problem evaluates trunks and u once for each bank."""
        return self.bank[1:]

    @classmethod
    def of(cls, problem: Problem, bank: NoiseBank, side: int, near: Tensor | None = None, reach: float = 1.0) -> Screen:
        """The lattice, or its part within a reach of a value (D,). Costs a row for each of its values."""
        atoms = lattice(problem.slots[0].support, side, problem.value_shape)
        if near is not None:
            atoms = atoms[(atoms - near.to(atoms)).abs().amax(1) <= reach]
        return cls(problem, bank, atoms, problem.quadratic(atoms, bank[:1]))

    def best(self, form: QuadraticForm, order: Sequence[int], most: int) -> list[int]:
        """The values not yet admitted that lower the error of an answer most, on the first draw."""
        # Lattice and answer in one form, on the draw that both have
        both = self.form.append(form.take(order).on(slice(1)))
        # The error of the answer with each value of the lattice
        errors = both.objective_with_each(range(len(self.form), len(both)))
        return [k for k in errors.argsort().tolist() if k < len(self.form) and k not in self.admitted][:most]

    def admit(self, indices: Sequence[int], atoms: Tensor, form: QuadraticForm | None) -> tuple[Tensor, QuadraticForm]:
        """Atoms and form with values of the lattice added. Costs a row for each of these and each further draw."""
        if form is not None and not indices:
            return atoms, form
        self.admitted.update(indices)
        # The first draw is known; evaluate the others
        more = self.atoms[indices]
        known = self.form.take(indices)
        if len(self.bank) > 1:
            known = known.cat(self.problem.quadratic(more, self._further))
        return torch.cat([atoms, more]), known if form is None else form.append(known)


def lattice(support: constraints.Constraint, side: int, value_shape: tuple[int, ...]) -> Tensor:
    """side^D values that cover a support evenly (an unbounded one by logistic quantiles): (side^D, D).

    >>> unit = constraints.independent(constraints.unit_interval, 1)
    >>> lattice(unit, 2, (2,)).tolist()
    [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]
    """
    if len(value_shape) != 1 or side ** value_shape[0] > 65_536:
        raise InputError(
            f"got values of shape {value_shape} for a lattice of {side} a side; expected one dimension and at most "
            "65,536 points; lower side=, pass candidates=, or use sgd with start='random'"
        )
    # Midpoints of equal cells of the quantiles
    ticks = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    points = torch.cartesian_prod(*[ticks] * value_shape[0]).view(-1, *value_shape)
    return from_quantiles(support, points).float()
