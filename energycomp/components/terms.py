"""Arithmetic on weighted sums of leaves, `{leaf: weight}`, that compositions are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from energycomp.errors import CompositionError

__all__ = ["added", "formula", "shared_unconditional"]

LEAST_WEIGHT = 1e-12  # what rounding leaves of leaves that cancel


def added(parts: Iterable[tuple[Mapping[Any, float], float]]) -> dict[Any, float]:
    """The sum of weighted sums, each times a number; leaves that cancel are dropped.

    >>> added([({"a": 1.0, "b": 2.0}, 2.0), ({"a": 1.0}, -2.0)])
    {'b': 4.0}
    """
    total: dict[Any, float] = {}
    for terms, scale in parts:
        for leaf, weight in terms.items():
            total[leaf] = total.get(leaf, 0.0) + scale * weight
    return {leaf: weight for leaf, weight in total.items() if abs(weight) > LEAST_WEIGHT}


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
