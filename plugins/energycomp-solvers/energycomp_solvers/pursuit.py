"""Matching pursuit over a dictionary of values that move between the lattice points; it infers the count.

In the place of Algorithm 6 of Wang (2026), without a run per count: matching pursuit (Mallat and Zhang, 1993), and its
Newtonized form for continuous values (Mamandipoor et al., 2016). Network evaluations are spent where they decide
something: one draw finds where components may be, few draws choose and move the values there, and held-out draws are
added only while the count is open. The search that follows changes that answer: `energycomp_solvers.search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import attrs
import torch
from torch import Tensor

from energycomp.errors import InputError
from energycomp.fields import legal, number, whole
from energycomp.inference import (
    AttributeErrors,
    NoiseBank,
    Problem,
    QuadraticForm,
    SearchInterrupted,
    Solution,
    read_attributes,
)
from energycomp.models.proposals import Proposals
from energycomp.seeds import as_generator
from energycomp_solvers.search.held_out import HeldOut
from energycomp_solvers.search.hypothesis import Hypothesis, SearchSpace
from energycomp_solvers.search.lattice import Screen
from energycomp_solvers.search.loop import search, search_proposed
from energycomp_solvers.search.newton import is_apart, newton_step
from energycomp_solvers.search.options import SearchOptions, two_numbers
from energycomp_solvers.search.proposed import begin
from energycomp_solvers.search.residual import Places
from energycomp_solvers.search.runner_up import Answer, finish, least_certain
from energycomp_solvers.search.subsets import find_promising, greedy, still_falls, swap
from energycomp_solvers.shared.answers import counts_without_repeats

STAGES = ("lattice", "pursuit", "count", "polish", "search", "comparison")  # of `Solution.trace["rows"]`
DECIDING = 0  # the seed of the draws of the search: they are the same whatever the seed of the pursuit


@attrs.frozen(eq=False)
class _Pursued:
    """Atoms, the form over them, the answer, what comes next, and the error after each that was added."""

    atoms: Tensor
    form: QuadraticForm
    chosen: list[int]
    extra: list[int]
    errors: Sequence[float]


@attrs.frozen
class Pursuit:
    """Greedy search (Algorithm 6 of Wang, 2026), without a run for each count. It takes no listed value twice.

    A dictionary of values is run once on a few draws; adding, swapping and removing components are then arithmetic on
    the quadratic form. Continuous values start on a lattice, which one draw of a small timestep screens, and are moved
    by Gauss-Newton steps. Held-out draws decide how many components stay. `Solution.trace` has the mean error after
    each component that was added, and the network evaluations of each of the `STAGES`.

    Args:
        side: points of the lattice along each dimension.
        draws: draws that select; those of continuous values are of the lowest third of the timesteps, which see places
            best.
        fresh_draws: most held-out draws that decide the count; a quarter of them is used where that is enough. As many
            others as were used compare the answer with the runner-up, at most half of these. The problem's default.
        p_value: a component stays, or comes back, where the paired test is below this.
        extra: further values, next in the order of the search, that the held-out draws may add.
        steps: Gauss-Newton steps of all values at the end, for continuous values.
        prior_steps: most of these steps under a prior, which may move values far.
        promising: values of the lattice for each component, of the first search; `further` of those that follow it.
        further: more of them find weaker components, at a row each.
        moves: most Gauss-Newton steps of an added value.
        settled: share of the error that a step lowers, below which it is the last one: of an added value, and of all.
        first_draws: draws of the first reading of attributes; the search spends more on what is uncertain.
        budget: most network evaluations of the search for changes of the answer, about; 0 for none. For continuous
            values and the rule product.
        search: what steers that search.

    >>> from energycomp import infer
    >>> from energycomp.testing import bumps_model, planted
    >>> image = planted(bumps_model(), torch.tensor([[0.2, 0.3], [0.7, 0.8]]))[0] / 2 + 0.5
    >>> infer(image, bumps_model(), solver=Pursuit(budget=0)).conditions.round(decimals=2)
    tensor([[0.2000, 0.3000],
            [0.7000, 0.8000]])
    """

    needs: ClassVar[None] = None
    takes_init: ClassVar[bool] = True

    side: int = attrs.field(default=16, validator=whole(2, 65_536))
    draws: int = attrs.field(default=4, validator=whole(1))
    fresh_draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(4)))
    p_value: float = attrs.field(default=1e-2, validator=number(most=1))
    extra: int = attrs.field(default=2, validator=whole(0))
    steps: int = attrs.field(default=1, validator=whole(0))
    prior_steps: int = attrs.field(default=40, validator=whole(0))
    promising: int = attrs.field(default=1, validator=whole(1))
    further: int = attrs.field(default=3, validator=whole(0))
    moves: int = attrs.field(default=4, validator=whole(0))
    settled: tuple[float, float] = attrs.field(default=(0.01, 1e-4), validator=two_numbers)
    first_draws: int = attrs.field(default=3, validator=whole(1))
    budget: int = attrs.field(default=2_500, validator=whole(0))
    search: SearchOptions = attrs.field(
        default=SearchOptions(), validator=legal(lambda v: isinstance(v, SearchOptions), "`SearchOptions`")
    )

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs M rows for a lattice of M values (M draws rows for M candidates), and about 130 for each component.

        The search costs 100 to 400 more for components of numbers, and about 230 for each one with attributes.
        """
        generator = as_generator(generator)
        if not problem.exchangeable:
            raise InputError("got slots not exchangeable for Pursuit; expected one kind; use enumerate or beam")
        most = self.fresh_draws or problem.default_draws
        if not problem.slots:  # K = 0 is the only answer
            none = torch.empty(0, *problem.value_shape, device=problem.device)
            return finish(problem, Answer(none, none), most, generator, {})
        if problem.slots[0].candidates is not None:
            return self._solve_listed(problem, problem.slots[0].candidates, most, generator)
        return self._solve_continuous(problem, most, generator)

    def _solve_listed(
        self, problem: Problem, candidates: Tensor, most: int, generator: torch.Generator | None
    ) -> Solution:
        """The answer among listed values, which are not moved."""
        counts_without_repeats(problem, len(candidates))
        spent = [problem.rows]

        # Evaluate all values on the draws that select.
        form = problem.quadratic(candidates, problem.draw(self.draws, generator))
        spent.append(problem.rows)

        # Pursue: which values, and in which order.
        pursued = self._choose(problem, candidates, form)
        spent.append(problem.rows)

        # Decide how many of them there are, on draws that did not select them.
        held_out = HeldOut(problem, pursued.atoms, [problem.draw(n, generator) for n in _split_draws(most)])
        kept = held_out.choose_count(pursued.form, pursued.chosen, pursued.extra, self.p_value)
        spent += [problem.rows] * 2  # the stage "polish" costs nothing

        # Compare the answer with the best other one, on further draws.
        spare = [k for k in held_out.known if k not in kept]
        answer = Answer(pursued.atoms[kept], pursued.atoms[spare], held_out.form([*kept, *spare]))
        draws = min(held_out.draws, max(1, most // 2))
        return finish(problem, answer, draws, generator, {"error": pursued.errors}, spent)

    def _solve_continuous(self, problem: Problem, most: int, generator: torch.Generator | None) -> Solution:
        spent = [problem.rows]
        searches = problem.has_empty and self.budget > 0
        half = max(1, most // 2)
        if searches and (proposals := problem.propose()) is not None:
            solution = self._solve_proposed(problem, proposals, half, generator)
            if solution is not None:
                return solution

        # Look where components may be: the lattice, on one draw.
        screen = Screen.of(problem, self._draw_low(problem, generator), self.side)
        spent.append(problem.rows)

        # Pursue: which values, moved between the points of the lattice; or begin with the values that are given.
        pursued = self._pursue(problem, screen) if problem.init is None else self._begin(problem, screen)
        spent.append(problem.rows)

        # Decide how many of them there are, on draws that did not select them; the search decides again, with more.
        banks = [problem.draw(n, generator) for n in _split_draws(half if searches else most)]
        held_out = HeldOut(problem, pursued.atoms, banks)
        kept = held_out.choose_count(pursued.form, pursued.chosen, pursued.extra, self.p_value)
        values = pursued.atoms[kept]
        spent.append(problem.rows)

        # Rivals: what was not taken, and is no other place of what was.
        reach = 1.0 / self.side
        support = problem.slots[0].support
        unlike = [k for k in held_out.known if k not in kept and is_apart(support, pursued.atoms[[k]], values, reach)]
        rivals = pursued.atoms[unlike]
        form = held_out.form([*kept, *unlike])

        # Polish: move all values at once, where no attributes are to be read first.
        if kept and not problem.asks_attributes:
            values = self._polish(problem, values, generator)
        spent.append(problem.rows)

        # Read the attributes of each component.
        known = None
        deciding = as_generator(DECIDING)
        if problem.asks_attributes and problem.mixed is not None:
            known = read_attributes(problem, values, draws=self.first_draws, sweeps=1, generator=deciding)
            values = known.values
            rivals = problem.mixed.opened(rivals)
        first = Answer(values, rivals, form, known)
        trace: dict[str, Sequence[float]] = {"error": pursued.errors}
        draws = min(held_out.draws, half)

        def finish_first() -> Solution:
            return finish(problem, _read_more(problem, first, deciding), draws, generator, trace, spent)

        if not searches:
            return finish_first()

        # Search for changes of the answer, within the budget. At Ctrl-C the first answer remains.
        try:
            space = SearchSpace.draw(problem, self.search, deciding)
            places = Places(screen.atoms, screen.form.atoms[0], space.channels)
            found = search(Hypothesis.evaluate(space, values, known), places, self.p_value, self.budget)
        except KeyboardInterrupt as stop:
            raise SearchInterrupted(finish_first) from stop
        trace["residual"] = found.residual
        return finish(problem, found.answer or first, draws, generator, trace, spent)

    def _solve_proposed(
        self, problem: Problem, proposals: Proposals, half: int, generator: torch.Generator | None
    ) -> Solution | None:
        """The answer from proposals; None where the energy takes too few of them, or has other places for them."""
        spent = [problem.rows] * 2  # no lattice yet
        deciding = as_generator(DECIDING)
        space = SearchSpace.draw(problem, self.search, deciding)
        start = begin(space, proposals, self.first_draws, deciding)
        spent += [problem.rows] * 3  # no count, and no polish
        if start is None:
            return None
        trace: dict[str, Sequence[float]] = {"error": start.errors}
        draws = max(4, half // 4)
        first = Answer(start.hypothesis.values, start.rest, None, start.hypothesis.attribute_errors)
        bank = self._draw_low(problem, generator)

        def find_places(near: Tensor) -> Places:
            screen = Screen.of(problem, bank, self.side, near, max(self.search.around, 1.0 / self.side))
            return Places(screen.atoms, screen.form.atoms[0], space.channels)

        # Search for changes of the answer, within the budget. At Ctrl-C the first answer remains.
        try:
            found = search_proposed(start, find_places, self.p_value, self.budget)
        except KeyboardInterrupt as stop:
            raise SearchInterrupted(
                lambda: finish(problem, _read_more(problem, first, deciding), draws, generator, trace, spent)
            ) from stop
        trace["residual"] = found.residual
        return finish(problem, found.answer or first, draws, generator, trace, spent)

    def _draw_low(self, problem: Problem, generator: torch.Generator | None) -> NoiseBank:
        """Draws of the lowest third of the timesteps, in their order."""
        return problem.draw(3 * self.draws, generator)[: self.draws]

    def _choose(self, problem: Problem, atoms: Tensor, form: QuadraticForm) -> _Pursued:
        """Matching pursuit among given values. Costs no network evaluation."""
        # Add values one by one, each the one that lowers the error most
        added, errors = greedy(form, problem.counts)
        # Exchange each for another one, while that lowers the error
        chosen = swap(form, added)
        # What would be added next, which the held-out draws may want
        extended, _ = greedy(form, (len(chosen) + self.extra,) * 2, chosen)
        return _Pursued(atoms, form, chosen, extended[len(chosen) :], errors)

    def _begin(self, problem: Problem, screen: Screen) -> _Pursued:
        """The values that are given, moved together. Costs 3 rows for each of them and draw, of two numbers."""
        values = screen.atoms[:0] if problem.init is None else problem.init
        quadratic = partial(problem.quadratic, bank=screen.bank)
        form = quadratic(values)
        every = range(len(values))
        reach = 0.5 / self.side
        atoms, form, chosen = newton_step(problem, quadratic, values, form, every, every, reach=reach)
        return _Pursued(atoms, form, chosen, [], [form.mean_objective(chosen)])

    def _pursue(self, problem: Problem, screen: Screen) -> _Pursued:
        """Newtonized matching pursuit: each value is moved before the next one is added.

        A value of the lattice explains only a part of its component, and another one would be added beside it. A
        component that a misplaced one hid shows once all values are in place, so the lattice is searched again before
        each addition.
        """
        low, high = problem.counts
        reach = 0.5 / self.side
        quadratic = partial(problem.quadratic, bank=screen.bank)

        # Begin with no component, and with the values of the lattice that explain most by themselves.
        first = find_promising(screen.form, problem.counts, self.promising)
        atoms, form = screen.admit(first, screen.atoms[:0], None)
        orders: list[list[int]] = [[]]
        errors = [form.mean_objective([])]

        while len(orders) <= high + self.extra:
            # Stop where the last additions did not lower the error.
            if len(errors) > max(low, errors.index(min(errors)) + max(self.extra, 1)):
                break

            # Search the lattice again for what the chosen values leave unexplained.
            order = orders[-1]
            if order:
                atoms, form = screen.admit(screen.best(form, order, self.further), atoms, form)
            if len(order) == len(form):
                break

            # Add the value that lowers the error most.
            added = int(form.objective_with_each(order).argmin())

            # Exchange: a value that stood for two components becomes that of one of them.
            order = swap(form, [*order, added], rounds=2)

            # Move what is new by Gauss-Newton steps, while these lower the error.
            places = [place for place, k in enumerate(order) if k not in orders[-1]]
            for _ in range(self.moves):
                before = form.mean_objective(order)
                atoms, form, order = newton_step(problem, quadratic, atoms, form, order, places, reach=reach)
                if not still_falls(form, order, before, self.settled[0]):
                    break
            orders.append(order)
            errors.append(form.mean_objective(order))

        # Choose the count of least error, of those that are asked for.
        most = len(orders) - 1
        count = min(range(min(low, most), min(high, most) + 1), key=errors.__getitem__)

        # Keep what was added beyond it, which the held-out draws may want.
        extra = [k for k in orders[-1] if k not in orders[count]][: self.extra]

        # Move all its values together.
        atoms, form, chosen = newton_step(problem, quadratic, atoms, form, orders[count], range(count), reach=reach)
        return _Pursued(atoms, form, chosen, extra, errors)

    def _polish(self, problem: Problem, values: Tensor, generator: torch.Generator | None) -> Tensor:
        """Moves all values (K, D) at once, on draws of their own. Costs K (1 + 3 steps) + 1 rows per draw for D = 2."""
        quadratic = partial(problem.quadratic, bank=self._draw_low(problem, generator))
        places = range(len(values))
        chosen = list(places)
        form = quadratic(values)
        # Newton's steps, until one gains next to nothing
        steps = self.steps if problem.prior(values[None]) is None else max(self.steps, self.prior_steps)
        for _ in range(steps):
            before = form.mean_objective(chosen)
            values, form, chosen = newton_step(problem, quadratic, values, form, chosen, places, reach=0.25 / self.side)
            if not still_falls(form, chosen, before, self.settled[1]):
                break
        return values[chosen]


def _read_more(problem: Problem, answer: Answer, generator: torch.Generator | None) -> Answer:
    """An answer whose uncertain attributes are read with more draws, where it has attributes."""
    if answer.known is None:
        return answer
    known: AttributeErrors = read_attributes(problem, answer.values, sweeps=2, known=answer.known, generator=generator)
    return attrs.evolve(answer, values=known.values, known=known, swapped=least_certain(problem, known))


def _split_draws(draws: int) -> list[int]:
    """A quarter of the draws, another one, and the rest; all at once where that would be fewer than four."""
    first = draws // 4
    return [first, first, draws - 2 * first] if first >= 4 else [draws]
