"""Validators of attrs fields that raise `InputError`: what was got, what was expected, and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from energycomp.errors import InputError

Validator = Callable[[Any, Any, Any], None]

MOST = 100_000  # of draws, of steps, of restarts


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number of Python or NumPy; True and False are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a real number of Python or NumPy, and neither NaN nor beyond the range of floats."""
    is_real: bool = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return is_real and bool(abs(value if isinstance(value, int) else float(value)) <= 1e300)


def plain(_: Any, __: Any, value: Any) -> Any:
    """The `value_serializer` of `attrs.asdict` that gives numbers of NumPy as those of Python, which JSON takes."""
    return value.item() if isinstance(value, np.generic) else value


def legal(is_legal: Callable[[Any], bool], expected: str, *, or_none: bool = False) -> Validator:
    """A validator that raises `InputError` where `is_legal(value)` is false.

    >>> import attrs
    >>> @attrs.frozen
    ... class Search:
    ...     draws: int = attrs.field(validator=whole(1))
    >>> Search(draws=0)
    Traceback (most recent call last):
    energycomp.errors.InputError: got draws=0 for Search; expected a whole number from 1 to 100,000; change draws=
    """
    expected += ", or None" if or_none else ""

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if not (is_legal(value) or (or_none and value is None)):
            name = attribute.alias or attribute.name
            raise InputError(f"got {name}={value!r} for {type(instance).__name__}; expected {expected}; change {name}=")

    return check


def a(kind: type, expected: str, *, or_none: bool = False) -> Validator:
    """An object of a type."""
    return legal(lambda value: isinstance(value, kind), expected, or_none=or_none)


TEXT = a(str, "a text")
FLAG = a(bool, "True or False")
FINITE = legal(is_number, "a finite number")


def whole(least: int, most: int | None = MOST, *, or_none: bool = False) -> Validator:
    """A whole number from `least` to `most`; without an upper bound where that is None."""
    expected = f"a whole number of at least {least:,}" if most is None else f"a whole number from {least:,} to {most:,}"
    return legal(lambda v: is_whole(v) and least <= v and (most is None or v <= most), expected, or_none=or_none)


def number(
    *, least: float | None = None, most: float | None = None, below: float | None = None, or_none: bool = False
) -> Validator:
    """A finite number above 0, or of at least `least`; and at most `most`, or below `below`, where given."""

    def fits(v: Any) -> bool:
        low = is_number(v) and (v > 0 if least is None else v >= least)
        return low and (most is None or v <= most) and (below is None or v < below)

    end = f"below {below:g}" if below is not None else "" if most is None else f"{most:g}"
    if least is None:
        expected = "a number above 0" + (end and f", {'at most ' if below is None else ''}{end}")
    else:
        expected = f"a number from {least:g} to {end}" if end else f"a number of at least {least:g}"
    return legal(fits, expected, or_none=or_none)


def one_of(values: Sequence[str], *, or_none: bool = False) -> Validator:
    """One of some words."""
    return legal(lambda v: isinstance(v, str) and v in values, " or ".join(map(repr, values)), or_none=or_none)


def parse_range(text: str, *, least: int = 0, greatest: int = 64) -> tuple[int, int]:
    """A range of counts such as "3-5" or "4" as (3, 5) or (4, 4).

    >>> parse_range("3-5"), parse_range("4")
    ((3, 5), (4, 4))
    """
    found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", text)
    low, high = (int(found[1]), int(found[2] or found[1])) if found else (-1, -1)
    if found is None or not least <= low <= high <= greatest:
        raise InputError(f"got the range {text!r}; expected two counts from {least} to {greatest}, such as 3-5, or one")
    return low, high
