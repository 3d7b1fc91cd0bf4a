"""Ranges of counts as a person writes them."""

from __future__ import annotations

import pytest

from energycomp.errors import InputError
from energycomp.evaluation import parse_range


@pytest.mark.parametrize(("text", "expected"), [("3-5", (3, 5)), ("4", (4, 4)), ("0", (0, 0)), ("0-64", (0, 64))])
def test_ranges(text: str, expected: tuple[int, int]) -> None:
    assert parse_range(text) == expected


@pytest.mark.parametrize("text", ["", "-", "-3", "3-", "5-3", "3-5-7", "a", "3.5", " 3", "0-65", "²", "٣"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(InputError, match="expected two counts from 0 to 64"):
        parse_range(text)


def test_bounds() -> None:
    assert parse_range("1-3", least=1, greatest=3) == (1, 3)
    for text in ("0-3", "1-4"):
        with pytest.raises(InputError, match="from 1 to 3"):
            parse_range(text, least=1, greatest=3)
