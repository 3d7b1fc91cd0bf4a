"""Attributes of objects whose places are known: enumeration of one attribute at a time on the quadratic form.

Notation: variable -> symbol
    values      v_k = (x_k, a_k1, a_k2, ...), the place and the attributes of object k; 0 is an attribute left open
    options     v_k with each word w in the place of its attribute j, (K n_j, D + A)
    form        J(w) over all values that were evaluated: swapping the value of one object costs arithmetic only

Coordinate descent: attribute after attribute, and within one object after object, a_kj = argmin_w J(..., v_k(w), ...),
until no object changes. The next sweep knows the other attributes; it evaluates those again whose word is uncertain.
The posterior of a word is softmax(-beta J).
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from energycomp.inference.noise import NoiseBank
from energycomp.inference.problem import Problem
from energycomp.inference.quadratic import QuadraticForm

__all__ = ["ObjectWords", "read_attributes"]

DRAWS, SWEEPS, ROUNDS = 6, 2, 4
SURE = 0.99  # posterior of a word that is not evaluated again


@attrs.frozen(eq=False)
class ObjectWords:
    """What `read_attributes` finds.

    Args:
        values: (K, D + A) the objects, with the word of least error of each attribute.
        errors: (K, n) for each of the A attributes: the mean error with each of its words, the other words as found.
    """

    values: Tensor
    errors: tuple[Tensor, ...]

    def certainty(self, beta: float | None) -> Tensor:
        """The posterior (K, A) of the words that were found, softmax(-beta J) over those of an attribute; NaN for None.

        >>> found = ObjectWords(torch.tensor([[0.3, 0.4, 2.0]]), (torch.tensor([[5.0, 3.0]]),))
        >>> found.certainty(1.0)
        tensor([[0.8808]])
        """
        if beta is None:
            return torch.full((len(self.values), len(self.errors)), torch.nan)
        return torch.stack([torch.softmax(-beta * errors, dim=1).amax(1) for errors in self.errors], dim=1).float()


def read_attributes(
    problem: Problem,
    places: Tensor,
    *,
    draws: int = DRAWS,
    sweeps: int = SWEEPS,
    generator: int | torch.Generator | None = None,
) -> ObjectWords:
    """The attributes of objects at known places (K, D).

    Costs draws K (1 + n_1 + ... + n_A) network evaluations for the first sweep, and those of u and of the trunk.

    >>> from energycomp.inference.problem import make_problem
    >>> from energycomp.testing import planted, tinted_model
    >>> model, parse = tinted_model(), tinted_model().conditioner.parse
    >>> true = torch.cat([parse(0.2, 0.3, tint="red", width="wide"), parse(0.7, 0.8, tint="blue", width="narrow")])
    >>> problem = make_problem(planted(model, true), model)
    >>> read_attributes(problem, true[:, :2], generator=0).values.equal(true)
    True
    """
    values = torch.cat([places, places.new_zeros(len(places), len(problem.words))], dim=1)
    errors = tuple(torch.zeros(len(places), number, dtype=torch.float64) for number in problem.words)
    if not len(places):
        return ObjectWords(values, errors)
    search = _Search(problem, values, problem.draw(draws, generator))
    everyone = list(range(len(places)))
    for sweep in range(sweeps):
        certain = ObjectWords(search.values, errors).certainty(problem.beta) >= SURE
        for attribute, known in enumerate(errors):
            objects = everyone if sweep == 0 else [k for k in everyone if not bool(certain[k, attribute])]
            if objects:
                known[objects] = search.choose(attribute, known.shape[1], objects)
    return ObjectWords(search.values, errors)


@attrs.define
class _Search:
    """The values of all objects, and the quadratic form over them."""

    problem: Problem
    values: Tensor
    bank: NoiseBank
    form: QuadraticForm = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.form = self.problem.quadratic(self.values, self.bank)

    def choose(self, attribute: int, number: int, objects: list[int]) -> Tensor:
        """Sets an attribute of some objects (N,) to the best of its words; returns the errors (N, n) of each word."""
        count, column = len(self.values), attribute - len(self.problem.words)
        options = self.values[objects].repeat_interleave(number, dim=0)
        options[:, column] = torch.arange(1, number + 1, device=options.device).repeat(len(objects))
        form = self.form.append(self.problem.quadratic(options, self.bank))
        chosen = list(range(count))
        errors = torch.zeros(len(objects), number, dtype=torch.float64)
        for _ in range(ROUNDS):
            before = list(chosen)
            for place, k in enumerate(objects):
                own = range(count + place * number, count + (place + 1) * number)
                errors[place] = self._errors(form, chosen, k, own)
                chosen[k] = own[int(errors[place].argmin())]
            if chosen == before:
                break
        kept = torch.tensor(chosen)
        self.values = torch.cat([self.values, options])[kept]
        self.form = form.take(kept)
        return errors

    def _errors(self, form: QuadraticForm, chosen: list[int], k: int, options: range) -> Tensor:
        """The mean error with each option in the place of object k, (n,)."""
        sets = [[*chosen[:k], option, *chosen[k + 1 :]] for option in options]
        weights = torch.zeros(len(sets), len(form), dtype=torch.float64)
        for row, members in zip(weights, sets, strict=True):
            row[members] = self.problem.weighting(len(chosen))
        return form.weighted_errors(weights).mean(1).cpu()
