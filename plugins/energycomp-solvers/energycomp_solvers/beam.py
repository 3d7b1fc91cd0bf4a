"""Beam search over finite values (section 5.6.1 of Wang, 2026): slot by slot, the best partial answers are kept.

Costs M + 1 network evaluations per draw for M distinct values; K width M partial answers are arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import attrs
import torch

from energycomp.fields import whole
from energycomp.inference import Problem, QuadraticForm, Solution, with_each
from energycomp.seeds import as_generator
from energycomp_solvers.search.ranked import ALTERNATIVES, compare_ranked
from energycomp_solvers.shared.answers import dictionary

Ranked = list[tuple[float, tuple[int, ...]]]  # mean error and atoms of partial answers


@attrs.frozen
class Beam:
    """Extends the `width` best partial answers by every value of the next slot; their error is known as well.

    Args:
        width: partial answers that are kept, at least 2 of them: the best and the one it is compared with.
        draws: draws that select; the problem's default.
        fresh_draws: fresh draws that compare the best with the second best; as many.

    >>> import torch
    >>> from energycomp import infer
    >>> from energycomp.testing import labels_model, planted
    >>> image = planted(labels_model(4), torch.tensor([1, 3]))[0] / 2 + 0.5
    >>> infer(image, labels_model(4), solver=Beam(width=2)).conditions.tolist()
    [1, 3]
    """

    needs: ClassVar[Literal["finite"]] = "finite"

    width: int = attrs.field(default=16, validator=whole(1))
    draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))
    fresh_draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs M + 1 rows for each draw that selects, and at most 2 K + 1 for each that compares."""
        generator = as_generator(generator)
        atoms, slots = dictionary(problem)
        draws = self.draws or problem.default_draws
        # One quadratic form of all values
        form = problem.quadratic(atoms, problem.draw(draws, generator)).without_atoms().mean()
        beams: Ranked = [(float(form.objective([])), ())]
        ranked: Ranked = []
        for count in range(problem.counts[1] + 1):
            # Extend every answer by one value, and keep the best `width`
            if count:
                beams = _extend(problem, beams, slots[count - 1], form)[: max(self.width, 2)]
            if count >= problem.counts[0] and (count or problem.has_empty):
                ranked += beams
        # Compare the best two answers of all counts, on draws of their own
        ranked = sorted(ranked)[: 1 + ALTERNATIVES]
        return compare_ranked(problem, atoms, ranked, problem.draw(self.fresh_draws or draws, generator), {})


def _extend(problem: Problem, beams: Ranked, slot: Sequence[int], form: QuadraticForm) -> Ranked:
    """Every beam with every atom of a slot, the best first; exchangeable slots have each set of atoms once."""
    best: dict[tuple[int, ...], tuple[float, tuple[int, ...]]] = {}
    for _, beam in beams:
        # Score: the error with every atom more, from the quadratic form
        extended = form.errors_with_each(beam)[0]
        errors = form.with_prior(extended, with_each(beam, len(form))).tolist()
        # Legal atoms only; of orders of one set the first
        for atom in slot:
            if problem.distinct and atom in beam:
                continue
            chosen = (*beam, atom)
            best.setdefault(tuple(sorted(chosen)) if problem.exchangeable else chosen, (errors[atom], chosen))
    return sorted(best.values(), key=lambda answer: answer[0])
