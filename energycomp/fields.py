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
    """Whether a value is a whole number of Python or NumPy; True and False are none.

    >>> is_whole(3), is_whole(3.0), is_whole(True)
    (True, False, False)
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether a value is a real number of Python or NumPy, and neither NaN nor beyond the range of floats.

    >>> is_number(3), is_number(float("inf")), is_number("3")
    (True, False, False)
    """
    is_real: bool = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return is_real and bool(abs(value if isinstance(value, int) else float(value)) <= 1e300)


def legal(is_legal: Callable[[Any], bool], expected: str) -> Validator:
    """A validator that raises `InputError` where `is_legal(value)` is false.

    >>> import attrs
    >>> @attrs.frozen
    ... class Search:
    ...     draws: int = attrs.field(validator=whole(1))
    >>> Search(draws=0)
    Traceback (most recent call last):
    energycomp.errors.InputError: got draws=0 for Search; expected a whole number from 1 to 100,000; change draws=
    """

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if not is_legal(value):
            name = attribute.alias or attribute.name
            raise InputError(f"got {name}={value!r} for {type(instance).__name__}; expected {expected}; change {name}=")

    return check


def whole(least: int, most: int = MOST) -> Validator:
    """A whole number from `least` to `most`."""
    return legal(lambda v: is_whole(v) and least <= v <= most, f"a whole number from {least:,} to {most:,}")


def number(*, above: float = 0.0, most: float | None = None) -> Validator:
    """A number above `above`, and at most `most` where that is given."""
    expected = f"a number above {above:g}" + ("" if most is None else f", at most {most:g}")
    return legal(lambda v: is_number(v) and above < v and (most is None or v <= most), expected)


def one_of(values: Sequence[str]) -> Validator:
    """One of some words."""
    return legal(lambda v: isinstance(v, str) and v in values, " or ".join(map(repr, values)))


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
