"""Arithmetic on weighted sums of leaves, `{leaf: weight}`, that compositions are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from energycomp.components.space import NoisedSpace
from energycomp.errors import CompositionError

__all__ = ["Terms", "added", "as_weight", "formula", "shared_space", "shared_unconditional"]

LEAST_WEIGHT = 1e-12  # what rounding leaves of leaves that cancel


class Terms(Mapping[Any, float]):
    """The weight of each leaf, immutable. Leaves are compared by identity, and need neither `==` nor a hash.

    >>> leaf, equal = [0], [0]
    >>> terms = Terms([(leaf, 2.0), (equal, -1.0)])
    >>> terms[leaf], terms[equal], [0] in terms
    (2.0, -1.0, False)
    """

    __slots__ = ("_pairs",)
    _pairs: dict[int, tuple[Any, float]]  # by the id of the leaf

    def __init__(self, terms: Mapping[Any, float] | Iterable[tuple[Any, float]]) -> None:
        self.__setstate__(tuple(terms.items() if isinstance(terms, Mapping) else terms))

    def __getitem__(self, leaf: Any) -> float:
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
        return _weights(self) == _weights(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{leaf!r}: {weight!r}' for leaf, weight in self._pairs.values())}}}"

    def __getstate__(self) -> tuple[tuple[Any, float], ...]:
        return tuple(self._pairs.values())  # ids are those of this process

    def __setstate__(self, pairs: tuple[tuple[Any, float], ...]) -> None:
        self._pairs = {id(leaf): (leaf, weight) for leaf, weight in pairs}


def _weights(terms: Mapping[Any, float]) -> dict[int, float]:
    return {id(leaf): weight for leaf, weight in terms.items()}


def added(parts: Iterable[tuple[Mapping[Any, float], float]]) -> Terms:
    """The sum of weighted sums, each times a number; leaves that cancel are dropped.

    >>> added([({"a": 1.0, "b": 2.0}, 2.0), ({"a": 1.0}, -2.0)])
    {'b': 4.0}
    """
    total: dict[int, tuple[Any, float]] = {}
    for terms, scale in parts:
        for leaf, weight in terms.items():
            _, before = total.get(id(leaf), (leaf, 0.0))
            total[id(leaf)] = (leaf, before + scale * weight)
    return Terms((leaf, weight) for leaf, weight in total.values() if abs(weight) > LEAST_WEIGHT)


def as_weight(value: Any) -> float | None:
    """A real number as a float: of Python, of numpy, or a tensor or array without dimensions; None for anything else.

    Raises:
        CompositionError: infinity, NaN, or a tensor that requires a gradient, which a weight does not keep.

    >>> as_weight(np.float32(0.5)), as_weight(Tensor([2.0])[0]), as_weight("2")
    (0.5, 2.0, None)
    """
    scalar = isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0
    if isinstance(value, Tensor) and scalar and value.requires_grad:
        raise CompositionError("got a weight that requires a gradient; expected a number; call `.item()` on it")
    number = value.item() if scalar else value
    if not isinstance(number, Real):
        return None
    if not math.isfinite(number):
        raise CompositionError(f"got the weight {number}; expected a finite number; check how it was computed")
    return float(number)


def formula(terms: Mapping[Any, float]) -> str:
    """A weighted sum as it is written, the leaves by their `repr`.

    >>> formula({1: 2.0, 2: -1.0}), formula({})
    ('2 1 - 2', '0')
    """
    parts: list[str] = []
    for leaf, weight in terms.items():
        size = "" if abs(weight) == 1 else f"{abs(weight):g} "
        sign = ("-" if weight < 0 else "") if not parts else (" - " if weight < 0 else " + ")
        parts.append(f"{sign}{size}{leaf!r}")
    return "".join(parts) or "0"


def shared_space(leaves: Iterable[Any]) -> NoisedSpace:
    """The space of leaves that can be composed.

    Their schedules may differ by rounding. The one with the smaller numbers is taken, whatever the order of the leaves.
    """
    spaces: list[NoisedSpace] = [leaf.noised_space for leaf in leaves]
    if all(space.alphas_cumprod is spaces[0].alphas_cumprod for space in spaces):
        return spaces[0]
    return min(spaces, key=lambda space: space.alphas_cumprod.tolist())


def shared_unconditional(parts: Sequence[Mapping[Any, float]]) -> Any:
    """The one unconditional leaf of all leaves; raises `CompositionError` where there is none, or more than one."""
    units: dict[int, Any] = {}
    for leaf in (leaf for terms in parts for leaf in terms):
        unit = getattr(leaf, "unconditional", None)
        if unit is None:
            raise CompositionError(
                f"got {leaf!r}, which has no unconditional leaf; expected one for `&` and `~`; use `+` and `-`"
            )
        units[id(unit)] = unit
    if len(units) != 1:
        raise CompositionError(
            f"got {' and '.join(map(formula, parts))} with {len(units)} unconditional leaves; expected one denoiser "
            "for `&` and `~`; compose different models with `+` and weights"
        )
    return next(iter(units.values()))
