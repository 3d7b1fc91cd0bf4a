"""Matching pursuit over a dictionary of values, coarse to fine (Mallat and Zhang, 1993); it infers the count.

In the place of Algorithm 6 of Wang (2026), without a run per count. Network evaluations are spent where they decide
something: one draw finds where components may be, a few more choose among the values there, Gauss-Newton steps replace
a finer lattice, and held-out draws are added only while the count is not clear.
"""

from __future__ import annotations

from typing import ClassVar

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints, transform_to

from energycomp.errors import InputError
from energycomp.fields import number, whole
from energycomp.inference import NoiseBank, Problem, QuadraticForm, Solution
from energycomp.seeds import as_generator
from energycomp_solvers.shared.compare import compared
from energycomp_solvers.shared.held_out import HeldOut
from energycomp_solvers.shared.newton import moved_values, newton_step
from energycomp_solvers.shared.subsets import greedy, promising, subset_errors, swap

__all__ = ["Pursuit", "lattice"]

SCREENED = 100  # dictionaries of as many values are screened by one draw
PROMISING = 6  # values that stay of those, for each component that one draw finds


@attrs.frozen
class Pursuit:
    """Greedy composition: thesis alg. 6 without a run for each count.

    A dictionary of values is run once on a few draws; adding, swapping and removing components are then arithmetic on
    the quadratic form. Continuous values start on a lattice, which one draw of a small timestep screens, and are moved
    by Gauss-Newton steps. Held-out draws decide how many components stay: one is dropped while the paired difference
    is not significant.

    Args:
        side: points of the lattice along each dimension.
        draws: draws that select; those of continuous values are of the lowest third of the timesteps, which see places
            best.
        fresh_draws: held-out draws that decide the count where the first quarter of them does not, twice as many as
            compare the answer with the runner-up; the problem's default.
        p_value: a component stays, or comes back, where the paired test is below this.
        extra: further values, next in the order of the search, that the held-out draws may add.
        steps: Gauss-Newton steps at the end, for continuous values; each has `draws` draws of its own.
    """

    needs: ClassVar[None] = None

    side: int = attrs.field(default=12, validator=whole(2, 65_536))
    draws: int = attrs.field(default=4, validator=whole(1))
    fresh_draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(4)))
    p_value: float = attrs.field(default=1e-2, validator=number(most=1))
    extra: int = attrs.field(default=3, validator=whole(0))
    steps: int = attrs.field(default=2, validator=whole(0))

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs M + 1 rows for a lattice of M values, and about 70 + 16 log K ... for each component."""
        generator = as_generator(generator)
        if not problem.exchangeable:
            raise InputError(
                "got slots that are not exchangeable for Pursuit; expected one kind; use enumerate or beam"
            )
        most = self.fresh_draws or problem.default_draws
        if not problem.slots:  # K = 0 is the only answer
            none = torch.empty(0, *problem.value_shape, device=problem.device)
            return compared(problem, none, none, most, {}, generator)
        slot, rows = problem.slots[0], [problem.rows]
        if slot.candidates is not None:
            atoms, bank = slot.candidates, problem.draw(self.draws, generator)
        else:
            atoms, bank = lattice(slot.support, self.side, problem.value_shape), self._low(problem, generator)
        atoms, form = _screened(problem, atoms, bank)
        chosen, trace = greedy(form, problem.counts, problem.weighting)
        chosen = swap(form, chosen, problem.weighting)
        rows.append(problem.rows)
        if slot.candidates is None:
            atoms, form, chosen = self._refine(problem, atoms, form, chosen, bank)
        rows.append(problem.rows)
        extended, _ = greedy(form, (len(chosen) + self.extra,) * 2, problem.weighting, chosen)
        held_out = HeldOut(problem, atoms, [problem.draw(n, generator) for n in _parts(most)])
        kept = self._decide(problem, form, chosen, extended, held_out)
        rows.append(problem.rows)
        values = atoms[kept]
        for _ in range(self.steps if slot.candidates is None and kept else 0):
            values = self._step(problem, values, generator)
        rows.append(problem.rows)
        spare = [k for k in held_out.known if k not in kept]
        chooses = held_out.form([*kept, *spare])
        solution = compared(problem, values, atoms[spare], most // 2, {"error": trace}, generator, chooses)
        spent = [after - before for before, after in zip(rows, [*rows[1:], problem.rows], strict=True)]
        return attrs.evolve(solution, trace={**solution.trace, "rows": spent})

    def _low(self, problem: Problem, generator: torch.Generator | None) -> NoiseBank:
        """Draws of the lowest third of the timesteps."""
        return problem.draw(3 * self.draws, generator)[: self.draws]

    def _refine(
        self, problem: Problem, atoms: Tensor, form: QuadraticForm, chosen: list[int], bank: NoiseBank
    ) -> tuple[Tensor, QuadraticForm, list[int]]:
        """Moves the chosen values by a Gauss-Newton step, then swaps and adds again on the same draws."""
        if not chosen:
            return atoms, form, chosen
        moved = moved_values(problem.slots[0].support, atoms[chosen])
        places = list(range(len(atoms), len(atoms) + len(moved)))
        both = form.append(problem.quadratic(moved, bank))
        values = newton_step(problem, atoms[chosen], both, chosen, places, reach=0.5 / self.side)
        form = form.append(problem.quadratic(values, bank))
        replaced = list(range(len(atoms), len(atoms) + len(values)))
        chosen = swap(form, replaced, problem.weighting)
        chosen, _ = greedy(form, problem.counts, problem.weighting, chosen)
        return torch.cat([atoms, values]), form, chosen

    def _step(self, problem: Problem, values: Tensor, generator: torch.Generator | None) -> Tensor:
        """One Gauss-Newton step of all values on draws of its own. Costs K (D + 1) + 1 rows per draw."""
        moved = moved_values(problem.slots[0].support, values)
        form = problem.quadratic(torch.cat([values, moved]), self._low(problem, generator))
        own = list(range(len(form)))
        return newton_step(problem, values, form, own[: len(values)], own[len(values) :], reach=0.25 / self.side)

    def _decide(
        self, problem: Problem, form: QuadraticForm, chosen: list[int], extended: list[int], held_out: HeldOut
    ) -> list[int]:
        """The atoms that stay, by paired tests on held-out draws.

        First components are dropped one after another while that does no significant harm; the others may move to
        make up for the one that goes, on the draws that selected, so two that share one object are told from two
        objects. Then any that was compared is added while that helps significantly; the p-value is multiplied by the
        number of those, of which the same draws choose the best (Bonferroni).
        """
        held_out.evaluate(chosen)
        while len(chosen) > problem.counts[0]:
            fewer = [swap(form, [c for c in chosen if c != drop], problem.weighting, rounds=2) for drop in chosen]
            least = min(fewer, key=lambda rest: float(subset_errors(form, rest, problem.weighting).mean()))
            if held_out.significant(chosen, least, self.p_value):
                break
            chosen = least
        if len(chosen) < problem.counts[1]:
            held_out.evaluate(extended)
        while len(chosen) < min(problem.counts[1], len(held_out.known)):
            more = [[*chosen, k] for k in held_out.known if k not in chosen]
            best = min(more, key=lambda indices: float(held_out.errors(indices).mean()))
            if not held_out.significant(best, chosen, self.p_value / len(more)):
                break
            chosen = best
        return chosen


def _screened(problem: Problem, atoms: Tensor, bank: NoiseBank) -> tuple[Tensor, QuadraticForm]:
    """The form over a dictionary; of a large one, over the values that its first draw finds promising."""
    if len(bank) < 2 or len(atoms) < SCREENED:
        return atoms, problem.quadratic(atoms, bank)
    first = problem.quadratic(atoms, bank[:1])
    best = promising(first, problem.counts, problem.weighting, PROMISING)
    return atoms[best], first.take(best).cat(problem.quadratic(atoms[best], bank[1:]))


def _parts(draws: int) -> tuple[int, int]:
    """A quarter of the draws and the rest, at least two each."""
    first = max(2, draws // 4)
    return first, draws - first


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
