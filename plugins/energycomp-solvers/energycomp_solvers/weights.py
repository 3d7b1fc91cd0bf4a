"""Weights of values (Algorithm 8 of Wang, 2026) by non-negative least squares on the quadratic form, or gradient steps.

Costs M + 1 network evaluations per draw, or per gradient step, for M distinct values.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs
import torch
from torch import Tensor

from energycomp.fields import number, one_of, whole
from energycomp.inference import Problem, QuadraticForm, Solution, nonnegative
from energycomp.seeds import as_generator
from energycomp_solvers.search.ranked import compare_ranked
from energycomp_solvers.shared.answers import counts_without_repeats, dictionary, terms_of


@attrs.frozen
class Weights:
    """Fits a weight >= 0 for every value at once; an answer takes the values of greatest weight, none of them twice.

    The error is quadratic in the weights, so its minimum is a non-negative least-squares problem of M unknowns (Lawson
    and Hanson, 1974). Algorithm 8 takes gradient steps, each on one draw: "sgd". Of a range of counts the one with the
    least error is taken. A prior counts where answers are compared, and not in the fit.

    Args:
        draws: draws that the fit of "nnls" averages over; the problem's default.
        fresh_draws: fresh draws that compare; as many as those of "nnls".
        steps: of "sgd", each on one draw.
        learning_rate: of Adam on the weights, falling to a tenth along a cosine.

    >>> import torch
    >>> from energycomp import infer
    >>> from energycomp.testing import labels_model, planted
    >>> image = planted(labels_model(4), torch.tensor([1, 3]))[0] / 2 + 0.5
    >>> solution = infer(image, labels_model(4), solver=Weights())
    >>> solution.conditions.tolist(), torch.tensor(solution.trace["weights"]).round(decimals=3)
    ([1, 3], tensor([0., 1., 0., 1.]))
    """

    needs: ClassVar[Literal["finite"]] = "finite"

    method: Literal["nnls", "sgd"] = attrs.field(default="nnls", validator=one_of(("nnls", "sgd")))
    draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))
    fresh_draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(1)))
    steps: int = attrs.field(default=200, validator=whole(1))
    learning_rate: float = attrs.field(default=0.05, validator=number())

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs M + 1 rows for each draw of the fit, or each step, and at most 2 K + 1 for each draw that compares."""
        generator = as_generator(generator)
        atoms, slots = dictionary(problem)
        low, high = counts_without_repeats(problem, len(atoms)) if problem.exchangeable else problem.counts
        # Fit the weights of all values at once
        draws = self.draws or problem.default_draws
        if self.method == "nnls":
            terms = terms_of(problem, atoms, problem.draw(draws, generator)).mean()
            weights = nonnegative(terms.b[0], terms.gram()[0])
        else:
            terms, weights = _fit_by_steps(problem, atoms, self.steps, self.learning_rate, generator)
        # The values of greatest weight are an answer for each count
        answers: list[list[int]] = []
        for count in range(low if problem.has_empty else max(low, 1), high + 1):
            answers += _answers(problem, slots, weights, count)
        # Rank them by their error with the weights of the rule, and compare the best two
        errors = [terms.mean_objective(answer) for answer in answers]
        ranked = sorted(zip(errors, answers, strict=True))
        bank = problem.draw(self.fresh_draws or draws, generator)
        return compare_ranked(problem, atoms, ranked, bank, {"weights": weights.tolist()})


def _fit_by_steps(
    problem: Problem, atoms: Tensor, steps: int, learning_rate: float, generator: torch.Generator | None
) -> tuple[QuadraticForm, Tensor]:
    """The mean form of all draws, and the weights >= 0 (M,) after a step on each, from half the weights of the rule."""
    free = torch.full((len(atoms),), problem.weighting(len(atoms)) / 2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([free], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=learning_rate / 10)
    b = torch.zeros(1, len(atoms), dtype=torch.float64)
    gram = torch.zeros(1, len(atoms), len(atoms), dtype=torch.float64)
    c = torch.zeros(1, dtype=torch.float64)
    for _ in range(steps):
        # The gradient on one draw, and a step to weights >= 0
        step = terms_of(problem, atoms, problem.draw(1, generator))
        (free.grad,) = torch.autograd.grad(step.weighted_errors(free[None]).sum(), free)
        with torch.no_grad():
            optimizer.step()
            schedule.step()
            free.clamp_(min=0)
        # The mean form, to rank answers by
        b = b + step.b / steps
        gram = gram + step.gram() / steps
        c = c + step.c / steps
    return QuadraticForm(b, gram, c, prior=step.prior), free.detach()


def _answers(problem: Problem, slots: list[list[int]], weights: Tensor, count: int) -> list[list[int]]:
    """The atoms of greatest weight, and that answer with its least certain choice changed."""
    # Without an order the greatest weights of all, otherwise the greatest of each slot
    if problem.exchangeable:
        order = weights.argsort(descending=True, stable=True).tolist()
        best = order[:count]
        return [best, [*best[:-1], order[count]]] if 0 < count < len(order) else [best]
    ranked = [sorted(slot, key=lambda atom: -float(weights[atom])) for slot in slots[:count]]
    best = [slot[0] for slot in ranked]
    gaps = {k: float(weights[slot[0]] - weights[slot[1]]) for k, slot in enumerate(ranked) if len(slot) > 1}
    if not gaps:
        return [best]
    # Change the slot whose two greatest weights are nearest
    changed = min(gaps, key=gaps.__getitem__)
    return [best, [ranked[k][1] if k == changed else atom for k, atom in enumerate(best)]]
