"""Numbers and ranges that a person writes: read as written, or refused by an error of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings, strategies as st

from energycomp.cli.options import numbers
from energycomp.errors import InputError
from energycomp.fields import parse_range

REPEATABLE = settings(derandomize=True, database=None, deadline=None)
WRITTEN = (
    st.text(max_size=12)
    | st.text("0123456789-.,+einfa \u0663\n", max_size=12)
    | st.sampled_from(["nan", "1,inf", "1e999"])
)


def ours(action: Callable[[], Any]) -> Any:
    try:
        return action()
    except InputError:
        return None


@REPEATABLE
@given(st.integers(-9, 99), st.integers(-9, 99))
def test_ranges_are_read_as_written(low: int, high: int) -> None:
    assert ours(lambda: parse_range(f"{low}-{high}")) == ((low, high) if 0 <= low <= high <= 64 else None)


@REPEATABLE
@given(WRITTEN)
def test_ranges_that_a_person_writes(text: str) -> None:
    low, high = ours(lambda: parse_range(text)) or (0, 0)
    assert 0 <= low <= high <= 64


@REPEATABLE
@given(WRITTEN)
def test_numbers_that_a_person_writes(text: str) -> None:
    found = ours(lambda: numbers(text, "--at"))
    assert found is None or (len(found) == text.count(",") + 1 and bool(np.isfinite(found).all()))


@REPEATABLE
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_are_read_as_written(values: list[float]) -> None:
    assert numbers(",".join(map(repr, values)), "--at") == tuple(values)
