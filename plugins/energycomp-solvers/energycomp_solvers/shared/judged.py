"""The components of an answer on the draws that choose, and what draws that selected none of these say of them.

The draws that judge accept or refuse what the others have chosen: a component that is read again, added or removed.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from energycomp.inference import NoiseBank, ObjectWords, Problem, QuadraticForm
from energycomp_solvers.shared.nearby import nearby
from energycomp_solvers.shared.refit import Candidate, Refit
from energycomp_solvers.shared.reread import Rereading
from energycomp_solvers.shared.subsets import subset_errors
from energycomp_solvers.shared.worth import Worth

JUDGES = 16  # draws


@attrs.define(eq=False)
class Judged:
    """An answer, and the draws that judge it. It needs the rule product.

    Args:
        refit: the components, on the draws that choose.
        judges: the draws that judge.
        worth: whether a component is taken, or kept, by these.
        origins: the places of the components in the answer that was given; None for new ones.
        refused: values that were tried and not taken: the rivals of the answer.
        tried_two: whether two components were tried in the place of one.
        asked: how many additional components were judged.
    """

    refit: Refit
    judges: NoiseBank
    worth: Worth
    origins: list[int | None]
    refused: list[Tensor] = attrs.field(factory=list)
    tried_two: bool = False
    asked: int = 0
    _form: QuadraticForm | None = None

    @classmethod
    def of(
        cls,
        problem: Problem,
        values: Tensor,
        p_value: float,
        generator: torch.Generator | None,
        asked: ObjectWords | None = None,
    ) -> Judged:
        """Costs what `Refit.of` costs; K + 1 rows for each draw that judges, once something is to be judged."""
        refit = Refit.of(problem, values, generator, asked)
        return cls(refit, problem.draw(JUDGES, generator), Worth(problem, p_value), list(range(len(values))))

    @property
    def problem(self) -> Problem:
        """Of the image."""
        return self.refit.problem

    @property
    def values(self) -> Tensor:
        """The components, (K, V)."""
        return self.refit.values

    @property
    def is_as_it_was(self) -> bool:
        """Whether nothing of the answer that was given has changed, or had to be judged."""
        return self._form is None

    @property
    def form(self) -> QuadraticForm:
        """The form over the components on the draws that judge."""
        if self._form is None:
            self._form = self.own(self.values)
        return self._form

    def own(self, values: Tensor) -> QuadraticForm:
        """The form over other values (M, V) on the draws that judge. Costs a row for each of them and draw."""
        return self.problem.quadratic(values, self.judges)

    def errors(self, indices: Sequence[int] | None = None, more: QuadraticForm | None = None) -> Tensor:
        """Errors (S,) of some components, all if left out, on the draws that judge. `more` are behind the last one."""
        form = self.form if more is None else self.form.append(more)
        return subset_errors(form, self.refit.every if indices is None else list(indices), self.problem.weighting)

    def keep(self, kept: Sequence[int], more: Sequence[Candidate] = (), own: QuadraticForm | None = None) -> None:
        """Some components, and candidates with their form on the draws that judge, are the answer."""
        form = self.form.take(list(kept))
        self._form = form if own is None else form.append(own)
        self.refit.keep(kept, more)
        self.origins = [self.origins[k] for k in kept] + [None] * len(more)

    def as_it_is(self) -> Judged:
        """The answer, to `go_back` to."""
        return attrs.evolve(self, refit=attrs.evolve(self.refit))

    def go_back(self, before: Judged) -> None:
        """The components are those of an answer before."""
        self.refit = before.refit
        self.origins = before.origins
        self._form = before._form

    def taken(self) -> None:
        """Components were replaced one by one on the draws that choose: those that judge know nothing of them."""
        self._form = None

    def drop(self) -> None:
        """Removes components that the draws that judge do not miss."""
        while len(self.values) > self.problem.counts[0]:
            # The component without which the error is least
            errors = [self.errors(self.refit.others(drop)) for drop in self.refit.every]
            least = min(self.refit.every, key=lambda k: float(errors[k].mean()))
            with_all = self.errors()
            if self.worth.is_missed(with_all, errors[least]):
                return
            # It is a rival of the answer, unless it is not worth its place
            if not self.worth.is_small(with_all, errors[least]):
                self.refused.append(self.values[least])
            self.keep(self.refit.others(least))

    def each_is_missed(self) -> bool:
        """Whether the draws that choose miss each component: without words they have chosen nothing yet."""
        errors = self.refit.errors(self.refit.every)
        rests = [self.refit.errors(self.refit.others(drop)) for drop in self.refit.every]
        return all(self.worth.is_missed(errors, rest) for rest in rests)

    def read_again(self, component: int) -> float | None:
        """Reads one component anew. The mean error before on the draws that judge, or None where its value stays."""
        # Look for a better value on the draws that choose
        others = self.refit.others(component)
        reading = Rereading(self.refit, others)
        old = self.refit.own(component)
        origin = self.origins[component]
        best = reading.best(old.value, old, origin)
        if best is None and self.refit.words is None:
            # Perhaps it is further away
            start, _ = nearby(self.refit, others, old.value, old)
            best = None if start.equal(old.value) else reading.best(start, old, origin)
        if best is None:
            return None

        # Ask the draws that judge
        own = self.own(best.value[None])
        before = float(self.errors().mean())
        if float(self.errors([*others, len(self.values)], own).mean()) >= before:
            self.refused.append(best.value)
            return None

        # Take it
        self.keep(others, [best], own)
        if self.refit.about_the_same(best.value, old.value):
            # What is known of its words holds
            self.origins[-1] = origin
        return before
