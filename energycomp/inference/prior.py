"""Priors of answers: what is known before the image is seen, as an energy of values that is added to the error.

Notation: variable -> symbol
    values      c = (v_1, ..., v_K), an answer; candidates are (N, K, *V)
    energy      E_prior(c) = sum of factors: of each v_k, of each pair v_i, v_j, of K, or of all of c

    -log p(c | x) = beta J(c) + E_prior(c) + const,    or beta log J(c) + E_prior(c), see `Posterior.energies`

A search that minimises an error minimises J + E_prior / beta, or J exp(E_prior / beta): both are linear in J, so that
means over draws, and paired differences of draws, are those of the posterior. A prior costs no network evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import attrs
import torch
from torch import Tensor
from torch.distributions import Distribution

from energycomp.components.energies import evaluate_energies
from energycomp.errors import InputError
from energycomp.fields import is_number, is_whole


@attrs.frozen(eq=False)
class _Factor:
    over: Literal["answers", "values", "pairs", "counts"]
    f: Callable[..., Any]
    counts: frozenset[int] | None = None  # those that are possible, of probabilities of counts

    def energies(self, atoms: Tensor, subsets: Tensor, tables: dict[Any, Tensor]) -> Tensor:
        """Of subsets (N, K) of M atoms. A table of all atoms, or of pairs of them, is kept where it is cheaper."""
        n, count = subsets.shape
        most = len(atoms)
        # Of the count, and of all values of an answer together
        if self.over == "counts":
            return torch.full((n,), self.f(count), device=atoms.device)
        if self.over == "answers":
            return evaluate_energies("prior", self.f, n, atoms[subsets])
        if count < 1 + (self.over == "pairs"):
            return torch.zeros(n, device=atoms.device)
        # Of each value: f is called for the values of the subsets, or once for all atoms, whatever is fewer
        if self.over == "values":
            if n * count < most:
                return evaluate_energies("prior", self.f, n * count, atoms[subsets.flatten()]).view(n, count).sum(1)
            if self not in tables:
                tables[self] = evaluate_energies("prior", self.f, most, atoms)
            return tables[self][subsets].sum(1)
        # Of each pair, likewise
        i, j = torch.triu_indices(count, count, 1, device=subsets.device)
        if n * len(i) < most**2:
            first = atoms[subsets[:, i].flatten()]
            second = atoms[subsets[:, j].flatten()]
            return self._of_pairs(first, second).view(n, len(i)).sum(1)
        if self not in tables:
            every = torch.arange(most, device=atoms.device)
            tables[self] = self._of_pairs(atoms[every.repeat_interleave(most)], atoms[every.repeat(most)])
        # From the table pair by pair, since those of all subsets at once may not fit into memory
        total = tables[self].new_zeros(n)
        for a, b in zip(i, j, strict=True):
            total += tables[self][subsets[:, a] * most + subsets[:, b]]
        return total

    def _of_pairs(self, first: Tensor, second: Tensor) -> Tensor:
        """The mean of both orders: an answer has the same energy whatever the order of its values."""
        both = evaluate_energies(
            "prior", self.f, 2 * len(first), torch.cat([first, second]), torch.cat([second, first])
        )
        return both.view(2, -1).mean(0)


@attrs.frozen(eq=False)
class Prior:
    """A sum of factors, which `each` and `pairwise` make: an energy of answers. `+` adds any prior that `infer` takes.

    >>> apart = pairwise(lambda a, b: 50.0 * (0.1 - (a - b).norm(dim=1)).clamp(min=0))
    >>> prior = apart + {1: 0.5, 2: 0.5}
    >>> prior.energy(torch.tensor([[[0.2, 0.2], [0.24, 0.23]], [[0.2, 0.2], [0.9, 0.9]]]))
    tensor([3.1931, 0.6931])
    """

    factors: tuple[_Factor, ...]

    def __add__(self, other: Any) -> Prior:
        return Prior((*self.factors, *as_prior(other).factors))

    __radd__ = __add__

    @property
    def counts(self) -> tuple[int, int] | None:
        """Least and greatest of the counts that are possible; None where no factor is of counts."""
        listed = [factor.counts for factor in self.factors if factor.counts is not None]
        if not listed:
            return None
        # An answer has to be possible for all of them
        common = frozenset.intersection(*listed)
        if not common:
            raise InputError("got priors of counts that have none in common; expected one in common; correct them")
        return min(common), max(common)

    def energy(self, values: Tensor) -> Tensor:
        """Energies (N,) of candidates (N, K, *V)."""
        n, count = values.shape[:2]
        subsets = torch.arange(n * count, device=values.device).view(n, count)
        return self.energies(values.flatten(0, 1), subsets, {})

    def energies(self, atoms: Tensor, subsets: Tensor, tables: dict[Any, Tensor]) -> Tensor:
        """Energies (N,) of subsets (N, K) of atoms (M, *V); `tables` keeps what further calls can use."""
        total = torch.zeros(len(subsets), device=atoms.device)
        for factor in self.factors:
            total = total + factor.energies(atoms, subsets, tables)
        return total


@attrs.frozen(eq=False)
class PriorOfAtoms:
    """A prior, of subsets of some atoms (M, *V): what a quadratic form adds to the errors of its subsets."""

    prior: Prior
    atoms: Tensor
    add: Callable[[Tensor, Tensor], Tensor]
    _tables: dict[Any, Tensor] = attrs.field(factory=dict, init=False)

    def added(self, errors: Tensor, subsets: Tensor) -> Tensor:
        """Errors (..., N) of subsets (N, K) with the prior."""
        return self.add(errors, self.prior.energies(self.atoms, subsets.to(self.atoms.device), self._tables))

    def of(self, atoms: Tensor) -> PriorOfAtoms:
        """The prior of subsets of other atoms."""
        return attrs.evolve(self, atoms=atoms)


def each(f: Callable[[Tensor], Tensor] | Distribution) -> Prior:
    """The prior that adds the energy of every value: f takes values (N, *V) and returns (N,).

    Args:
        f: a function, or a distribution, whose energy is -log p(v).

    >>> each(torch.distributions.Normal(0.5, 0.1)).energy(torch.tensor([[[0.5, 0.6]]]))  # one place
    tensor([-2.2673])
    """
    if not isinstance(f, Distribution):
        return Prior((_Factor("values", _function(f, "each")),))

    def negative_log_probability(values: Tensor) -> Tensor:
        return -f.log_prob(values).reshape(len(values), -1).sum(1)

    negative_log_probability.__qualname__ = type(f).__name__
    return Prior((_Factor("values", negative_log_probability),))


def pairwise(f: Callable[[Tensor, Tensor], Tensor]) -> Prior:
    """The prior that adds the energy of every pair of values: f takes values (N, *V) twice and returns (N,).

    Each pair counts once, with the mean of f(a, b) and f(b, a), so that the order of components has no meaning.
    """
    return Prior((_Factor("pairs", _function(f, "pairwise")),))


def as_prior(given: Any) -> Prior:
    """A prior of what `infer` takes.

    Args:
        given: an object with `energy(values)`, such as a sum of `each` and `pairwise`: energies (N,) of N answers of K
            values (N, K, *V), K = 0 included, where +inf rules an answer out; a distribution of each value; or the
            probabilities of counts, such as {3: 0.5, 4: 0.5}: an answer of K values has the energy -log p(K).

    Raises:
        InputError: anything else.
    """
    if isinstance(given, Prior):
        return given
    if isinstance(given, Distribution):
        return each(given)
    if isinstance(given, Mapping):
        return _of_counts(dict(given))
    if hasattr(given, "energy") and not isinstance(given, type):
        return Prior((_Factor("answers", given.energy),))
    expected = "expected an object with energy(values), a distribution, or probabilities of counts, such as {3: 0.5}"
    raise InputError(f"got prior={given!r}; {expected}; make one with each(f) or pairwise(f)")


def _of_counts(given: dict[Any, Any]) -> Prior:
    are_legal = all(is_whole(k) and k >= 0 and is_number(p) and p >= 0 for k, p in given.items())
    if not are_legal or not any(given.values()):
        expected = "expected probabilities of whole numbers, not all 0, such as {3: 0.5, 4: 0.5}"
        raise InputError(f"got the prior of counts {given!r}; {expected}; correct it")
    possible = {int(count): float(p) for count, p in given.items() if p > 0}

    def energy(count: int) -> float:
        return -math.log(possible[count]) if count in possible else math.inf

    return Prior((_Factor("counts", energy, frozenset(possible)),))


def _function(f: Any, maker: str) -> Callable[..., Any]:
    if not callable(f):
        raise InputError(f"got {maker}({f!r}); expected a function of values that returns energies (N,); pass one")
    return f
