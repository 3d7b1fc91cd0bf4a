"""Matching pursuit over a dictionary of values, coarse to fine (Mallat and Zhang, 1993); it infers the count.

In the place of Algorithm 6 of Wang (2026), without a run per count. Costs M + 1 network evaluations per draw for M
values, and about as many for the refinement.
"""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from energycomp.errors import InputError
from energycomp.fields import number, whole
from energycomp.inference import NoiseBank, Problem, QuadraticForm, Solution, paired
from energycomp.seeds import as_generator
from energycomp_solvers.shared.compare import compared
from energycomp_solvers.shared.descent import descend
from energycomp_solvers.shared.subsets import add_each, greedy, subset_errors, swap

__all__ = ["Pursuit", "lattice"]

SCREENED = 128  # dictionaries of as many values are screened before all draws are spent on them


@attrs.frozen
class Pursuit:
    """Greedy composition: thesis alg. 6 without a run for each count.

    A dictionary of values is run once on a bank of draws; adding, swapping and removing components are then arithmetic
    on the quadratic form. Continuous values start on a lattice and are halved in spacing around what was chosen. Fresh
    draws decide how many components stay: one is dropped while the paired difference is not significant.

    Args:
        side: points of the coarse lattice along each dimension.
        draws: draws that select.
        fresh_draws: fresh draws that decide the count and compare with the runner-up; the problem's default.
        levels: halvings of the lattice around the chosen values.
        p_value: a component stays, or comes back, where the paired test is below this.
        extra: further values, next in the order of the search, that the fresh draws may add.
        steps: gradient steps at the end, for continuous values.
        step_draws, learning_rate: of those.
    """

    needs: ClassVar[None] = None

    side: int = attrs.field(default=16, validator=whole(2, 65_536))
    draws: int = attrs.field(default=8, validator=whole(1))
    fresh_draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(4)))
    levels: int = attrs.field(default=2, validator=whole(0, 30))
    p_value: float = attrs.field(default=1e-2, validator=number(most=1))
    extra: int = attrs.field(default=3, validator=whole(0))
    steps: int = attrs.field(default=12, validator=whole(0))
    step_draws: int = attrs.field(default=2, validator=whole(1))
    learning_rate: float = attrs.field(default=0.03, validator=number())

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs at most (M + 1) draws rows for M values of the dictionary, and about as many for the rest."""
        generator = as_generator(generator)
        if not problem.exchangeable:
            raise InputError(
                "got slots that are not exchangeable for Pursuit; expected one kind; use enumerate or beam"
            )
        if not problem.slots:  # K = 0 is the only answer
            none = torch.empty(0, *problem.value_shape, device=problem.device)
            return compared(problem, none, none, self.fresh_draws or problem.default_draws, {}, generator)
        slot, finite = problem.slots[0], problem.slots[0].candidates is not None
        atoms = (
            slot.candidates if slot.candidates is not None else lattice(slot.support, self.side, problem.value_shape)
        )
        bank = _screening_first(problem.draw(self.draws, generator))
        atoms, form = self._dictionary(problem, atoms, bank)
        chosen, trace = greedy(form, problem.counts, problem.weighting)
        chosen = swap(form, chosen, problem.weighting)
        if not finite:
            atoms, form, chosen = self._refine(problem, atoms, form, chosen, bank)
        extended, _ = greedy(form, (len(chosen) + self.extra,) * 2, problem.weighting, chosen)
        held_out = problem.draw(self.fresh_draws or problem.default_draws, generator)
        kept, rest = self._decide(problem, atoms, form, chosen, extended, held_out)
        values = atoms[kept]
        if not finite:
            values = self._descend(problem, values, generator)
        return compared(problem, values, atoms[rest], len(held_out), {"error": trace}, generator)

    def _dictionary(self, problem: Problem, atoms: Tensor, bank: NoiseBank) -> tuple[Tensor, QuadraticForm]:
        """The form over the dictionary; a quarter of the draws screens a large one, of which the better half stays."""
        quarter = len(bank) // 4
        if not quarter or len(atoms) < SCREENED:
            return atoms, problem.quadratic(atoms, bank)
        first = problem.quadratic(atoms, bank[:quarter])
        best = add_each(first, [], problem.weighting).argsort()[: len(atoms) // 2]
        rest = problem.quadratic(atoms[best], bank[quarter:])
        return atoms[best], first.take(best).cat(rest)

    def _refine(
        self, problem: Problem, atoms: Tensor, form: QuadraticForm, chosen: list[int], bank: NoiseBank
    ) -> tuple[Tensor, QuadraticForm, list[int]]:
        """Halves the spacing around the chosen values, then adds and swaps again on the same draws."""
        spacing = 1.0 / self.side
        for _ in range(self.levels):
            if not chosen:
                break
            spacing /= 2
            near = _neighbours(problem.slots[0].support, atoms[chosen], spacing)
            form = form.append(problem.quadratic(near, bank))
            atoms = torch.cat([atoms, near])
            chosen = swap(form, chosen, problem.weighting)
            chosen, _ = greedy(form, problem.counts, problem.weighting, chosen)
        return atoms, form, chosen

    def _decide(
        self,
        problem: Problem,
        atoms: Tensor,
        form: QuadraticForm,
        chosen: list[int],
        extended: list[int],
        held_out: NoiseBank,
    ) -> tuple[list[int], list[int]]:
        """Atoms that stay, and the others that were compared, by paired tests on held-out draws.

        First components are dropped one after another while that does no significant harm; the others may move to
        make up for the one that goes, on the draws that selected, so two that share one object are told from two
        objects. Then any that was compared is added while that helps significantly; the p-value is multiplied by the
        number of those, of which the same draws choose the best (Bonferroni).
        """
        known, fresh = list(extended), problem.quadratic(atoms[extended], held_out)

        def errors(indices: list[int]) -> Tensor:
            return subset_errors(fresh, [known.index(k) for k in indices], problem.weighting)

        while len(chosen) > problem.counts[0]:
            fewer = [swap(form, [c for c in chosen if c != drop], problem.weighting, rounds=2) for drop in chosen]
            least = min(fewer, key=lambda rest: float(subset_errors(form, rest, problem.weighting).mean()))
            if moved := [c for c in least if c not in known]:
                known, fresh = known + moved, fresh.append(problem.quadratic(atoms[moved], held_out))
            if paired(errors(chosen), errors(least))[2] < self.p_value:
                break
            chosen = least
        while len(chosen) < min(problem.counts[1], len(known)):
            more = [[*chosen, k] for k in known if k not in chosen]
            best = min(more, key=lambda indices: float(errors(indices).mean()))
            if len(more) * paired(errors(best), errors(chosen))[2] >= self.p_value:
                break
            chosen = best
        return chosen, [k for k in known if k not in chosen]

    def _descend(self, problem: Problem, values: Tensor, generator: torch.Generator | None) -> Tensor:
        moved, _ = descend(
            problem,
            values[None],
            steps=self.steps,
            draws=self.step_draws,
            learning_rate=self.learning_rate,
            generator=generator,
        )
        return moved[0]


def _screening_first(bank: NoiseBank) -> NoiseBank:
    """The draws of a bank, first every fourth one: they screen a dictionary, and cover all timesteps."""
    place = torch.arange(len(bank))
    return bank[torch.cat([place[3::4], place[place % 4 != 3]])]


def lattice(support: constraints.Constraint, side: int, value_shape: tuple[int, ...]) -> Tensor:
    """side^D values that cover a support evenly (an unbounded one by logistic quantiles): (side^D, D).

    >>> unit = constraints.independent(constraints.unit_interval, 1)
    >>> lattice(unit, 2, (2,)).tolist()
    [[0.25, 0.25], [0.25, 0.75], [0.75, 0.25], [0.75, 0.75]]
    """
    if len(value_shape) != 1 or side ** value_shape[0] > 65_536:
        raise InputError(
            f"got values of shape {value_shape} for a lattice of {side} a side; expected one dimension and at most "
            "65,536 points; pass candidates= or use sgd"
        )
    ticks = (torch.arange(side, dtype=torch.float64) + 0.5) / side
    points = torch.cartesian_prod(*[ticks] * value_shape[0]).view(-1, *value_shape)
    values: Tensor = transform_to(support)(torch.logit(points))
    return values.float()


def _neighbours(support: constraints.Constraint, values: Tensor, spacing: float) -> Tensor:
    """The 3^D - 1 lattice neighbours of values (K, D), at `spacing` in quantiles of the support."""
    to_support = transform_to(support)
    quantiles = torch.sigmoid(to_support.inv(values.double()))
    steps = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * values.shape[1])
    steps = steps.view(-1, values.shape[1])
    steps = steps[steps.ne(0).any(1)] * spacing
    near = (quantiles[:, None] + steps.to(values.device)).flatten(0, 1).clamp(1e-3, 1 - 1e-3)
    moved: Tensor = to_support(torch.logit(near))
    return moved.to(values.dtype)
