"""One answer of a search, and the draws on which it is evaluated. All of this needs the rule product.

Selection draws choose values. They are eight in three parts, so that many candidates see few draws: the first part is
of high noise, which shows the attributes of a component from a place that is a little off; the second is of low noise,
which locates best; the third completes the range of timesteps. Validation draws choose nothing: they accept or reject.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, reduce
from itertools import accumulate
from typing import Self

import attrs
import torch
from torch import Tensor

from energycomp.components import MixedSupport
from energycomp.inference import AttributeErrors, NoiseBank, Problem, QuadraticForm
from energycomp_solvers.search.newton import is_apart, newton_step
from energycomp_solvers.search.options import SearchOptions

PARTS = ((6,), (1, 3), (0, 2, 4, 5, 7))  # of the selection draws, in the order of their timesteps
LOW_NOISE = 1  # the part that locates best


@attrs.frozen(eq=False)
class Candidate:
    """A value (V,) of one component, and the forms over it alone on the first parts of the selection draws."""

    value: Tensor
    forms: tuple[QuadraticForm, ...]


@attrs.frozen(eq=False)
class SearchSpace:
    """What all hypotheses of a search share; `parts` are those of the selection draws."""

    problem: Problem
    options: SearchOptions
    parts: tuple[NoiseBank, ...]
    validation: NoiseBank

    @classmethod
    def draw(cls, problem: Problem, options: SearchOptions, generator: int | torch.Generator | None) -> Self:
        drawn = problem.draw(sum(map(len, PARTS)), generator)
        parts = tuple(drawn[torch.tensor(part)] for part in PARTS)
        return cls(problem, options, parts, problem.draw(options.validation_draws, generator))

    @property
    def length(self) -> int:
        """D, behind which the attributes of a value begin."""
        return self.problem.value_shape[0]

    @property
    def channels(self) -> int:
        """The first axis of a sample, over which residuals are summed."""
        return len(self.problem.observation[0])

    @property
    def attributes(self) -> MixedSupport | None:
        """The support of values with attributes; None where they have none, or these are not asked for."""
        return self.problem.mixed if self.problem.asks_attributes else None

    def quadratic(self, values: Tensor) -> QuadraticForm:
        """The form over values (M, V) on all selection draws. Costs a row for each of them and draw."""
        return reduce(QuadraticForm.cat, [self.problem.quadratic(values, bank) for bank in self.parts])

    def evaluate(self, candidate: Candidate, parts: int = len(PARTS)) -> Candidate:
        """A candidate on the first parts of the draws at least. Costs a row for each draw that is new."""
        banks = self.parts[len(candidate.forms) : parts]
        more = [self.problem.quadratic(candidate.value[None], bank) for bank in banks]
        return Candidate(candidate.value, (*candidate.forms, *more)) if more else candidate

    def newton_step(
        self, values: Tensor, form: QuadraticForm, chosen: Sequence[int], moving: Sequence[int], part: int | None = None
    ) -> tuple[Tensor, QuadraticForm, list[int]]:
        bank = None if part is None else self.parts[part]
        quadratic = self.quadratic if bank is None else lambda values: self.problem.quadratic(values, bank)
        options = self.options
        return newton_step(
            self.problem, quadratic, values, form, chosen, moving, reach=options.reach, step=options.step
        )

    def is_elsewhere(self, value: Tensor, other: Tensor, reach: float | None = None) -> bool:
        """Whether a number of two values differs by more than a reach, a share of its support."""
        support = self.problem.slots[0].support
        reach = self.options.reach if reach is None else reach
        return bool(is_apart(support, value[None, : self.length], other[None, : self.length], reach))

    def is_alike(self, value: Tensor, other: Tensor, reach: float | None = None) -> bool:
        """Whether two values have the same attributes, and numbers that are close."""
        same = value[self.length :].equal(other[self.length :])
        return same and not self.is_elsewhere(value, other, reach)


@attrs.frozen(eq=False, slots=False)  # cached properties are kept in the dictionary of an instance
class Hypothesis:
    """Components, what is known of their attributes, and the quadratic form over them on both kinds of draws.

    It is never changed: each method returns another one.

    Args:
        values: of the K components, (K, V).
        forms: over the components, on each part of the selection draws.
        known: what is known of the attributes of each component; 0 draws for nothing. None where none are asked for.
    """

    space: SearchSpace
    values: Tensor
    forms: tuple[QuadraticForm, ...]
    known: AttributeErrors | None = None
    _validated: QuadraticForm | None = None

    @classmethod
    def evaluate(cls, space: SearchSpace, values: Tensor, known: AttributeErrors | None = None) -> Self:
        """Costs K + 1 rows for each selection draw."""
        return cls(space, values, tuple(space.problem.quadratic(values, bank) for bank in space.parts), known)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def components(self) -> list[int]:
        return list(range(len(self)))

    def others(self, component: int) -> list[int]:
        return [k for k in self.components if k != component]

    @cached_property
    def whole(self) -> QuadraticForm:
        return reduce(QuadraticForm.cat, self.forms)

    def error(self, chosen: Sequence[int] | None = None, parts: int = len(PARTS)) -> float:
        """The mean error of some components, all if left out, on the first parts of the selection draws."""
        return float(torch.cat(self._errors(chosen, parts)).mean())

    def errors(self, chosen: Sequence[int] | None = None) -> Tensor:
        """The errors (S,) of some components on the selection draws, in the order of their timesteps."""
        order = torch.tensor([draw for part in PARTS for draw in part]).argsort()
        return torch.cat(self._errors(chosen, len(PARTS)))[order]

    def _errors(self, chosen: Sequence[int] | None, parts: int) -> list[Tensor]:
        of = self.components if chosen is None else chosen
        return [form.objective(of) for form in self.forms[:parts]]

    @property
    def validated(self) -> QuadraticForm:
        """The form on the validation draws, or that over values close to these. Costs K + 1 rows for each draw, once.

        It is no cached property: in Python 3.11 these have one lock for all instances, and the network may wait for
        another image of a batch, which would wait for the lock.
        """
        if self._validated is None:
            found = self.space.problem.quadratic(self.values, self.space.validation)
            object.__setattr__(self, "_validated", found)
            return found
        return self._validated

    @property
    def is_validated(self) -> bool:
        return self._validated is not None

    def validation_errors(self, chosen: Sequence[int] | None = None) -> Tensor:
        of = self.components if chosen is None else list(chosen)
        return self.validated.objective(of)

    def component(self, k: int) -> Candidate:
        return Candidate(self.values[k], tuple(form.take([k]) for form in self.forms))

    def replace(self, kept: Sequence[int], new: Sequence[Candidate] = (), *, validate: bool = True) -> Hypothesis:
        """The hypothesis of some components, and of candidates on all parts, behind them.

        Costs a row for each candidate and validation draw; nothing without `validate`, for a step on the way.
        """
        kept = list(kept)
        values = self.values[kept]
        forms = [form.take(kept) for form in self.forms]
        for candidate in new:
            values = torch.cat([values, candidate.value[None]])
            forms = [form.append(own) for form, own in zip(forms, candidate.forms, strict=True)]
        validated = None
        if validate:
            validated = self.validated.take(kept)
            if new:
                own = self.space.problem.quadratic(values[len(kept) :], self.space.validation)
                validated = validated.append(own)
        known = None if self.known is None else self.known.take(kept, len(new))
        return Hypothesis(self.space, values, tuple(forms), known, validated)

    def at(self, values: Tensor, form: QuadraticForm, chosen: Sequence[int] | None = None) -> Hypothesis:
        """As many components with other values (M, V) of a form; validation draws keep that of the values before."""
        if chosen is not None:
            values = values[list(chosen)]
            form = form.take(list(chosen))
        validated = self.validated if self.is_validated else None
        return attrs.evolve(self, values=values, forms=split_parts(form), validated=validated)

    def unvalidated(self) -> Hypothesis:
        """The same, of which the validation draws know nothing yet."""
        return attrs.evolve(self, validated=None)

    def move(self, which: Sequence[int]) -> Hypothesis:
        """Moves the numbers of some components together, if they fit better. Costs D + 1 rows for each and draw."""
        return self.at(*self.space.newton_step(self.values, self.whole, self.components, which))

    @property
    def attribute_errors(self) -> AttributeErrors | None:
        return None if self.known is None else attrs.evolve(self.known, values=self.values)


def split_parts(form: QuadraticForm) -> tuple[QuadraticForm, ...]:
    """A form on all selection draws, part after part, as one form for each part."""
    ends = list(accumulate(map(len, PARTS)))
    return tuple(form.on(slice(end - len(part), end)) for end, part in zip(ends, PARTS, strict=True))
