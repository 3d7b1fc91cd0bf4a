"""Numbers and ranges that a person writes: read as written, or refused by an error of ours."""

import math
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings, strategies as st

from energycomp.components import weighted
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
def test_weights_that_a_person_writes(text: str) -> None:
    found = ours(lambda: weighted(f"a * {text}"))
    assert found is None or math.isfinite(found.weight()) or " @ " in text


@REPEATABLE
@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([" * ", "*", " *  "]))
def test_weights_are_read_as_written(value: float, sign: str) -> None:
    found = weighted(f"0.3,0.5{sign}{value!r}")
    assert (found.text, found.number, found.place) == ("0.3,0.5", value, 1.0)
