"""The components of an answer on the draws that choose: eight draws in three parts.

Notation: variable -> symbol
    parts       draws on which candidates are compared: many candidates see the first part alone
    forms       the quadratic form over the components, on each part

The first part is of high noise, which shows the words of a component from a place that is a little off. The second is
of low noise, which locates best. The third part completes the range of the timesteps.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import accumulate

import attrs
import torch
from torch import Tensor

from energycomp.components import MixedSupport
from energycomp.inference import NoiseBank, ObjectWords, Problem, QuadraticForm
from energycomp_solvers.shared.newton import is_apart, newton_step
from energycomp_solvers.shared.subsets import subset_errors, with_each

PARTS = ((6,), (1, 3), (0, 2, 4, 5, 7))  # of eight draws in the order of their timesteps
LOCATES = 1  # the part of low noise
NEAR = 0.03  # share of a support in which a place is looked for
EDGE = 1e-3  # how near the ends of a support numbers come
FINE = 0.004  # of a support: differences of values with words, whose edges are sharper than those of open ones


@attrs.frozen(eq=False)
class Candidate:
    """A value of one component, and the forms over it alone on the first parts of the draws, or on all."""

    value: Tensor
    forms: list[QuadraticForm]


@attrs.define(eq=False)
class Refit:
    """The components of an answer on the draws that choose. It needs the rule product.

    Args:
        problem: of the image.
        values: of the K components, (K, V), with words where the problem asks for some.
        banks: the parts of the draws.
        forms: over the components, on each part.
        asked: what is known of the words of the components that the answer began with; of all, once they are read last.
    """

    problem: Problem
    values: Tensor
    banks: list[NoiseBank]
    forms: list[QuadraticForm]
    asked: ObjectWords | None = None

    @classmethod
    def of(
        cls, problem: Problem, values: Tensor, generator: torch.Generator | None, asked: ObjectWords | None
    ) -> Refit:
        """Moves the numbers of values with words once, all together, if they fit better then.

        Costs K + 1 rows for each draw, and with words K (D + 1) more.
        """
        # Places were found with all words open, and words say more of them
        made = cls.unmoved(problem, values, generator, asked)
        if len(values) and made.words is not None:
            made.move(made.every)
        return made

    @classmethod
    def unmoved(
        cls, problem: Problem, values: Tensor, generator: torch.Generator | None, asked: ObjectWords | None = None
    ) -> Refit:
        """Values as they are. Costs K + 1 rows for each draw."""
        # The parts of the draws, each with its own trunk
        drawn = problem.draw(sum(map(len, PARTS)), generator)
        banks = [drawn[torch.tensor(part)] for part in PARTS]
        return cls(problem, values, banks, [problem.quadratic(values, bank) for bank in banks], asked)

    @property
    def every(self) -> list[int]:
        """The indices of all components."""
        return list(range(len(self.values)))

    def others(self, component: int) -> list[int]:
        """The indices of all other components."""
        return [k for k in self.every if k != component]

    def whole(self) -> QuadraticForm:
        """The form over all components, on all draws."""
        return reduce(QuadraticForm.cat, self.forms)

    def without(self, others: Sequence[int] | None = None, parts: int = len(PARTS)) -> float:
        """The mean error of some components, all if left out, on the first parts of the draws."""
        chosen = self.every if others is None else others
        errors = [subset_errors(form, chosen, self.problem.weighting) for form in self.forms[:parts]]
        return float(torch.cat(errors).mean())

    def errors(self, chosen: Sequence[int]) -> Tensor:
        """The errors (S,) of some components, in the order of the timesteps, as paired tests take them."""
        errors = torch.cat([subset_errors(form, chosen, self.problem.weighting) for form in self.forms])
        return errors[torch.tensor([draw for part in PARTS for draw in part]).argsort()]

    def own(self, component: int) -> Candidate:
        """A component of the answer as a candidate."""
        return Candidate(self.values[component], [form.take([component]) for form in self.forms])

    def candidate(self, value: Tensor) -> Candidate:
        """A value as a candidate. Costs a row for each draw."""
        return Candidate(value, [self.problem.quadratic(value[None], bank) for bank in self.banks])

    def keep(self, kept: Sequence[int], more: Sequence[Candidate] = ()) -> None:
        """Some components, and candidates, are the answer."""
        self.values = self.values[list(kept)]
        self.forms = [form.take(list(kept)) for form in self.forms]
        for candidate in more:
            self.values = torch.cat([self.values, candidate.value[None]])
            self.forms = [form.append(own) for form, own in zip(self.forms, candidate.forms, strict=True)]

    def take(self, atoms: Tensor, form: QuadraticForm, chosen: Sequence[int]) -> None:
        """Some of the atoms (M, V), over which a form is on all draws, are the answer."""
        self.values = atoms[list(chosen)]
        self.forms = in_parts(form.take(list(chosen)))

    def replaced(self, values: Tensor) -> tuple[Tensor, QuadraticForm, list[int]]:
        """The components and those of other values (K, V) that differ, the form over all, and which are these values.

        Costs a row for each value that differs, and draw.
        """
        changed = (values != self.values).any(1).nonzero()[:, 0].tolist()
        new = values[changed]
        chosen = [len(values) + changed.index(k) if k in changed else k for k in self.every]
        return torch.cat([self.values, new]), self.whole().append(self.quadratic(new)), chosen

    def move(self, which: Sequence[int]) -> None:
        """Moves some components together, the others stay. Costs D + 1 rows for each of these and draw."""
        form = self.whole()
        self.take(
            *newton_step(self.problem, self.quadratic, self.values, form, self.every, which, reach=NEAR, step=FINE)
        )

    def quadratic(self, values: Tensor) -> QuadraticForm:
        """The form over other values on all draws."""
        return reduce(QuadraticForm.cat, [self.problem.quadratic(values, bank) for bank in self.banks])

    def about_the_same(self, value: Tensor, other: Tensor, reach: float = NEAR) -> bool:
        """Whether two values have the same words, and numbers that are close to each other."""
        length = self.problem.value_shape[0]
        return value[length:].equal(other[length:]) and not self.is_elsewhere(value, other, reach)

    def is_elsewhere(self, value: Tensor, other: Tensor, reach: float = NEAR) -> bool:
        """Whether the numbers of two values differ by more than a reach."""
        length = self.problem.value_shape[0]
        return bool(is_apart(self.problem.slots[0].support, value[None, :length], other[None, :length], reach=reach))

    @property
    def channels(self) -> int:
        """By how many numbers a place of a sample is said: the first axis of its shape."""
        return len(self.problem.observation[0])

    @property
    def words(self) -> MixedSupport | None:
        """The words of a value; None where it has none, or they are not asked for."""
        return self.problem.mixed if self.problem.asks_words else None

    def on_part(self, number: int, values: Tensor, known: Candidate | None = None) -> QuadraticForm:
        """The form over values (M, V) on one part of the draws. Costs a row for each that is not known, and draw."""
        bank = self.banks[number]
        same = [] if known is None else [k for k, value in enumerate(values) if value.equal(known.value)]
        if known is None or not same:
            return self.problem.quadratic(values, bank)
        if len(values) == 1:
            return known.forms[number]
        # Evaluate the others, and put the known one in its place
        place = same[0]
        rest = [k for k in range(len(values)) if k != place]
        form = self.problem.quadratic(values[rest], bank).append(known.forms[number])
        return form.take([*range(place), len(rest), *range(place, len(rest))])

    def with_each(self, form: QuadraticForm, others: int) -> Tensor:
        """Errors (S, M) of the first atoms of a form, and each further one."""
        errors = form.errors_with_each(range(others), self.problem.weighting(others + 1))
        return errors[:, others:].cpu()

    def mean_of(self, form: QuadraticForm, errors: Tensor, others: int) -> Tensor:
        """The mean (M,) of errors (S, M), with the prior of each set."""
        sets = with_each(range(others), len(form))[others:][: errors.shape[1]]
        return form.with_prior(errors.mean(0), sets).cpu()


def in_parts(form: QuadraticForm) -> list[QuadraticForm]:
    """A form on all draws, part after part, as one form for each part."""
    ends = list(accumulate(map(len, PARTS)))
    return [form.on(slice(end - len(part), end)) for end, part in zip(ends, PARTS, strict=True)]
