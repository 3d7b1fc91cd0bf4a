"""Arithmetic on weighted sums of leaves, `{leaf: weight}`, that compositions are made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor

from energycomp.components.component import unconditional_of
from energycomp.components.space import NoisedSpace
from energycomp.components.weight_values import noise_share
from energycomp.components.weights import LEAST_NUMBER, LEAST_VALUE, AnyWeight, varies, write_sum
from energycomp.errors import CompositionError


class Terms(Mapping[Any, AnyWeight]):
    """The weight of each leaf, immutable. Leaves are compared by identity, and need neither `==` nor a hash."""

    __slots__ = ("_pairs",)
    _pairs: dict[int, tuple[Any, AnyWeight]]  # by the id of the leaf

    def __init__(self, terms: Mapping[Any, AnyWeight] | Iterable[tuple[Any, AnyWeight]]) -> None:
        pairs = terms.items() if isinstance(terms, Mapping) else terms
        self._pairs = {id(leaf): (leaf, weight) for leaf, weight in pairs}

    def __getitem__(self, leaf: Any) -> AnyWeight:
        if id(leaf) not in self._pairs:
            raise KeyError(leaf)
        return self._pairs[id(leaf)][1]

    def __iter__(self) -> Iterator[Any]:
        return (leaf for leaf, _ in self._pairs.values())

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        own, theirs = ({id(leaf): weight for leaf, weight in terms.items()} for terms in (self, other))
        return own == theirs

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{leaf!r}: {weight!r}' for leaf, weight in self._pairs.values())}}}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Terms, (tuple(self._pairs.values()),)  # ids are those of this process


def add_terms(parts: Iterable[tuple[Mapping[Any, AnyWeight], AnyWeight]]) -> Terms:
    """The sum of weighted sums, each times a weight; leaves that cancel are dropped."""
    total: dict[int, tuple[Any, AnyWeight]] = {}
    for terms, scale in parts:
        for leaf, weight in terms.items():
            _, before = total.get(id(leaf), (leaf, 0.0))
            total[id(leaf)] = (leaf, before + scale * weight)
    kept = (pair for pair in total.values() if varies(pair[1]) or abs(pair[1]) > LEAST_NUMBER)
    return Terms(kept)


def weights_at(
    terms: Mapping[Any, AnyWeight], timestep: Tensor, shape: tuple[int, ...]
) -> list[tuple[Any, float | Tensor]]:
    """Leaves with their weights at timesteps (B,) in samples of a shape, without leaves of weight 0 at all of them.

    A weight that is one number there is a float, otherwise (B or 1, ...), which broadcasts, in float64 on the CPU.

    >>> import torch
    >>> from energycomp.components import Gaussian, during
    >>> a, b = Gaussian(name="a"), Gaussian(name="b")
    >>> both = 2 * a + during(from_=0.5) * b
    >>> [weights_at(both.terms, torch.tensor([t]), (1, 1, 1)) for t in (900.0, 100.0)]  # early, and late
    [[(a, 2.0)], [(a, 2.0), (b, 1.0)]]
    """
    found: list[tuple[Any, float | Tensor]] = []
    share: Tensor | None = None
    for leaf, weight in terms.items():
        if not varies(weight):
            found.append((leaf, weight))
            continue
        if share is None:
            share = noise_share(timestep, len(shared_space(terms).alphas_cumprod))
        value = weight.at(share, shape)
        low, high = float(value.min()), float(value.max())
        if max(abs(low), abs(high)) >= LEAST_VALUE:
            found.append((leaf, low if high - low <= LEAST_NUMBER else value))
    return found


def formula(terms: Mapping[Any, AnyWeight]) -> str:
    """A weighted sum as it is written, the leaves by their `repr`; a second model of the same name is NAME-2."""
    owners: dict[str, list[Any]] = {}

    def named(leaf: Any) -> str:
        owner = getattr(leaf, "denoiser", None)
        name, bracket, rest = repr(leaf).partition("(")
        known = owners.setdefault(name, [])
        if owner is not None and not any(owner is one for one in known):
            known.append(owner)
        number = next((k for k, one in enumerate(known, start=1) if one is owner), 1)
        return f"{name}{f'-{number}' if number > 1 else ''}{bracket}{rest}"

    return write_sum(part for leaf, weight in terms.items() for part in _write_term(weight, named(leaf)))


def _write_term(weight: AnyWeight, leaf: str) -> tuple[tuple[float, str], ...]:
    """A term as a number and a text; a weight that is a sum stands in brackets."""
    if not varies(weight):
        return ((weight, leaf),)
    if len(weight.parts) > 1:
        return ((1.0, f"({weight!r}) {leaf}"),)
    ((factors, number),) = weight.parts
    return ((number, " ".join([*map(repr, factors), leaf])),)


def shared_space(leaves: Iterable[Any]) -> NoisedSpace:
    """The space of leaves that can be composed.

    Their schedules may differ by rounding. The one with the smaller numbers is taken, whatever the order of the leaves.
    Numbers are standardised at each place as one of the leaves says.
    """
    spaces: list[NoisedSpace] = [leaf.noised_space for leaf in leaves]
    is_one = all(space.alphas_cumprod is spaces[0].alphas_cumprod for space in spaces)
    shared = spaces[0] if is_one else min(spaces, key=lambda space: space.order)
    if None not in (shared.places or ()):
        return shared
    known = zip(*(space.places for space in spaces if space.places), strict=True)
    return attrs.evolve(shared, places=tuple(next(filter(None, texts), None) for texts in known))


def shared_unconditional(parts: Sequence[Mapping[Any, AnyWeight]]) -> Any:
    """The one unconditional leaf of all leaves; raises `CompositionError` where there is none, or more than one."""
    units: dict[int, Any] = {}
    for leaf in (leaf for terms in parts for leaf in terms):
        unit = unconditional_of(leaf)
        if unit is None:
            expected = "expected one for `&` and `~`; use `+` and `-`"
            raise CompositionError(f"got {leaf!r}, which has no unconditional leaf; {expected}")
        units[id(unit)] = unit
    if len(units) != 1:
        got = f"got {' and '.join(map(formula, parts))} with {len(units)} unconditional leaves"
        raise CompositionError(f"{got}; expected one for `&` and `~`; compose different models with `+` and weights")
    return next(iter(units.values()))
