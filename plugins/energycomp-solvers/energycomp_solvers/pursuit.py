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
from energycomp_solvers.shared.newton import newton_step
from energycomp_solvers.shared.subsets import add_each, greedy, promising, subset_errors, swap

__all__ = ["Pursuit", "lattice"]

SCREENED = 100  # dictionaries of as many values are screened by one draw
MOVES, SETTLED = 4, 0.01  # Gauss-Newton steps of an added value, and the share of the error below which they end
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

    side: int = attrs.field(default=16, validator=whole(2, 65_536))
    draws: int = attrs.field(default=4, validator=whole(1))
    fresh_draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(4)))
    p_value: float = attrs.field(default=1e-2, validator=number(most=1))
    extra: int = attrs.field(default=2, validator=whole(0))
    steps: int = attrs.field(default=1, validator=whole(0))

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
        rows.append(problem.rows)
        if slot.candidates is None:
            atoms, form, chosen, extra, trace = self._pursue(problem, bank, atoms, form)
        else:
            chosen, trace = greedy(form, problem.counts, problem.weighting)
            chosen = swap(form, chosen, problem.weighting)
            extra = greedy(form, (len(chosen) + self.extra,) * 2, problem.weighting, chosen)[0][len(chosen) :]
        rows.append(problem.rows)
        held_out = HeldOut(problem, atoms, [problem.draw(n, generator) for n in _parts(most)])
        kept = self._decide(problem, form, chosen, extra, held_out)
        rows.append(problem.rows)
        values = atoms[kept]
        if slot.candidates is None and kept:
            values = self._polished(problem, values, generator)
        rows.append(problem.rows)
        spare = [k for k in held_out.known if k not in kept]
        chooses = held_out.form([*kept, *spare])
        compare = min(held_out.draws, most // 2)
        solution = compared(problem, values, atoms[spare], compare, {"error": trace}, generator, chooses)
        spent = [after - before for before, after in zip(rows, [*rows[1:], problem.rows], strict=True)]
        return attrs.evolve(solution, trace={**solution.trace, "rows": spent})

    def _low(self, problem: Problem, generator: torch.Generator | None) -> NoiseBank:
        """Draws of the lowest third of the timesteps."""
        return problem.draw(3 * self.draws, generator)[: self.draws]

    def _pursue(
        self, problem: Problem, bank: NoiseBank, atoms: Tensor, form: QuadraticForm
    ) -> tuple[Tensor, QuadraticForm, list[int], list[int], list[float]]:
        """Newtonized matching pursuit (Mamandipoor et al., 2016): each value is moved before the next one is added.

        A value of the lattice explains only a part of its component, and the next one would be added beside it.

        Returns:
            The atoms and the form with the moved values; the values that lower the error and those that come next; and
            the mean error after each.
        """
        (low, high), weighting = problem.counts, problem.weighting
        order: list[int] = []
        errors = [float(subset_errors(form, order, weighting).mean())]
        while len(order) < min(high + self.extra, len(form)) and errors.index(min(errors)) + self.extra >= len(order):
            known = set(order)
            order = swap(form, [*order, int(add_each(form, order, weighting).argmin())], weighting, rounds=2)
            places = [place for place, k in enumerate(order) if k not in known]
            before, error, tries = torch.inf, float(subset_errors(form, order, weighting).mean()), 0
            while tries < MOVES and error < (1 - SETTLED) * before:
                before, tries = error, tries + 1
                atoms, form, order = newton_step(problem, bank, atoms, form, order, places, reach=0.5 / self.side)
                error = float(subset_errors(form, order, weighting).mean())
            errors.append(error)
        count = min(range(low, min(high, len(order)) + 1), key=errors.__getitem__)
        chosen, extra, places = swap(form, order[:count], weighting), order[count:], range(count)
        atoms, form, chosen = newton_step(problem, bank, atoms, form, chosen, places, reach=0.5 / self.side)
        return atoms, form, chosen, extra[: self.extra], errors

    def _polished(self, problem: Problem, values: Tensor, generator: torch.Generator | None) -> Tensor:
        """Moves all values at once by Gauss-Newton steps on draws of their own."""
        bank, chosen = self._low(problem, generator), list(range(len(values)))
        form = problem.quadratic(values, bank)
        for _ in range(self.steps):
            reach = 0.25 / self.side
            values, form, chosen = newton_step(problem, bank, values, form, chosen, range(len(chosen)), reach=reach)
        return values[chosen]

    def _decide(
        self, problem: Problem, form: QuadraticForm, chosen: list[int], extra: list[int], held_out: HeldOut
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
            held_out.evaluate(extra)
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


def _parts(draws: int) -> list[int]:
    """A quarter of the draws, another one, and the rest; at least two each."""
    first = max(2, draws // 4)
    return [first, first, draws - 2 * first] if draws >= 8 else [draws]


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
