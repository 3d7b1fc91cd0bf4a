"""Attributes of objects whose places are known: enumeration of one attribute at a time on the quadratic form.

Notation: variable -> symbol
    values      v_k = (x_k, a_k1, a_k2, ...), the place and the attributes of object k; 0 is an attribute left open
    options     v_k with each word w in the place of its attribute j, (K n_j, D + A)
    form        J(w) over all values that were evaluated: swapping the value of one object costs arithmetic only

Coordinate descent: attribute after attribute, and within one object after object, a_kj = argmin_w J(..., v_k(w), ...),
until no object changes. The next sweep knows the other attributes. The posterior of a word is softmax(-beta J).
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from energycomp.inference.noise import NoiseBank
from energycomp.inference.problem import Problem
from energycomp.inference.quadratic import QuadraticForm

__all__ = ["read_attributes"]

DRAWS, SWEEPS, ROUNDS = 6, 2, 4


def read_attributes(
    problem: Problem,
    places: Tensor,
    *,
    draws: int = DRAWS,
    sweeps: int = SWEEPS,
    generator: int | torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """The objects (K, D + A) at places (K, D), and the posterior (K, A) of each word: NaN without `problem.beta`.

    Costs draws (K + sweeps K (n_1 + ... + n_A)) network evaluations, and those of u and of the trunk.

    >>> from energycomp.inference.problem import make_problem
    >>> from energycomp.testing import planted, tinted_model
    >>> model, parse = tinted_model(), tinted_model().conditioner.parse
    >>> true = torch.cat([parse(0.2, 0.3, tint="red", width="wide"), parse(0.7, 0.8, tint="blue", width="narrow")])
    >>> problem = make_problem(planted(model, true), model)
    >>> read_attributes(problem, true[:, :2], generator=0)[0].equal(true)
    True
    """
    count, words = len(places), problem.words
    values = torch.cat([places, places.new_zeros(count, len(words))], dim=1)
    posterior = torch.full((count, len(words)), torch.nan)
    if not count:
        return values, posterior
    search = _Search(problem, values, problem.draw(draws, generator))
    for _ in range(sweeps):
        for attribute, number in enumerate(words):
            posterior[:, attribute] = search.choose(attribute, number)
    return search.values, posterior


@attrs.define
class _Search:
    """The values of all objects, and the quadratic form over them."""

    problem: Problem
    values: Tensor
    bank: NoiseBank
    form: QuadraticForm = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.form = self.problem.quadratic(self.values, self.bank)

    def choose(self, attribute: int, number: int) -> Tensor:
        """Sets an attribute of all objects to the best of its words; returns their posterior (K,)."""
        count, column = len(self.values), attribute - len(self.problem.words)
        options = self.values.repeat_interleave(number, dim=0)
        options[:, column] = torch.arange(1, number + 1, device=options.device).repeat(count)
        form = self.form.append(self.problem.quadratic(options, self.bank))
        chosen = list(range(count))
        errors = torch.zeros(count, number, dtype=torch.float64)
        for _ in range(ROUNDS):
            before = list(chosen)
            for k in range(count):
                own = range(count + k * number, count + (k + 1) * number)
                errors[k] = self._errors(form, chosen, k, own)
                chosen[k] = own[int(errors[k].argmin())]
            if chosen == before:
                break
        kept = torch.tensor(chosen)
        self.values = torch.cat([self.values, options])[kept]
        self.form = form.take(kept)
        if self.problem.beta is None:
            return torch.full((count,), torch.nan)
        return torch.softmax(-self.problem.beta * errors, dim=1).amax(1).float()

    def _errors(self, form: QuadraticForm, chosen: list[int], k: int, options: range) -> Tensor:
        """The mean error with each option in the place of object k, (n,)."""
        sets = [[*chosen[:k], option, *chosen[k + 1 :]] for option in options]
        weights = torch.zeros(len(sets), len(form), dtype=torch.float64)
        for row, members in zip(weights, sets, strict=True):
            row[members] = self.problem.weighting(len(chosen))
        return form.weighted_errors(weights).mean(1).cpu()
