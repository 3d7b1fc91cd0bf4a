"""A component as it is written: its text, its weight, and where and when it counts.

    TEXT [* NUMBER] [@ REGION] [@ FROM-TO]        a red cube * 7.5 @ left half, 0-0.4

`*` and `@` stand between spaces; a region and a share of the trajectory stand behind one `@`, with a comma between. The
command line reads its components so, and `Model.read` does in Python.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import attrs

from energycomp.components.regions import BOXES, REGIONS, during, region
from energycomp.components.weights import AnyWeight, Weight
from energycomp.errors import InputError
from energycomp.images import open_image

AT = re.compile(r"(?s)(.*)(?:^|\s)@(?:\s(.*))?")
TIMES = re.compile(
    r"(?s)(.*?)(?:(?:^|\s)\*(?:\s|$)|\*(?=[-+.\d]\S*$))(.*)"
)  # without spaces in front of a number alone
SHARES = re.compile(r"([\d.]+)\s*-\s*([\d.]+)")


def compound_prompt(template: str, concepts: Iterable[str]) -> str:
    """One prompt of several concepts, by the template of one.

    >>> compound_prompt("a photo of a {}", ["dog", "cat"])
    'a photo of a dog and a cat'
    """
    return template.replace("{}", " and a ".join(concepts))


@attrs.frozen
class WeightedText:
    """The text of a component, which the model's conditioner reads, and its weight.

    >>> weighted("red * 2 @ left half").text, weighted("red").weight(default=7.5)
    ('red', 7.5)
    """

    text: str
    number: float | None = None  # of the weight; None where it is left out
    place: AnyWeight = 1.0  # what multiplies the number: a region, a part of the trajectory, or both

    def weight(self, default: float = 1.0) -> AnyWeight:
        """The weight, with this number where it is left out."""
        return self.place * (default if self.number is None else self.number)


def weighted(text: str) -> WeightedText:
    """Reads a component with its weight.

    The share of the trajectory is that of `during`: 0 is noise, where sampling begins. One file is one mask.

    Raises:
        InputError: the number, the region or the share is none; the message quotes it.

    >>> weighted("a red cube * 7.5 @ left half, 0-0.4")
    WeightedText(text='a red cube', number=7.5, place=[0 to 0.4] [left half])
    >>> weighted("0.3,0.5 @ 0.5,0,1,1").weight(2.0), weighted("smiling * -1").weight(2.0), weighted("a b").weight(2.0)
    (2 [right half], -1.0, 2.0)
    """
    placed = AT.fullmatch(text.strip())
    timed = TIMES.fullmatch(placed[1] if placed else text.strip())
    found = WeightedText(
        (timed or placed or [text, text])[1].strip(),
        _number(timed[2].strip(), text) if timed else None,
        _place((placed[2] or "").strip(), text) if placed else 1.0,
    )
    if not found.text and (timed or placed):
        raise InputError(f"got {text!r}; expected a component in front, such as 'a red cube * 2 @ left half'")
    return found


def _number(number: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"got '* {number}' in {text!r}; expected a finite number, such as * 7.5, and then @ PLACE")
    return value


def _place(places: str, text: str) -> AnyWeight:
    where, _, last = places.rpartition(",")
    if (share := SHARES.fullmatch(last.strip())) is None:
        return _region(places, text)
    try:
        start, until = map(float, share.groups())
        part = 1.0 if (start, until) == (0.0, 1.0) else during(start, until)
    except ValueError as error:  # of `float`, or of `during`
        expected = "FROM-TO with 0 <= FROM < TO <= 1, such as 0-0.4"
        raise InputError(f"got the share {share[0]} in {text!r}; expected {expected}") from error
    return _region(where.strip() or "all", text) * part


def _region(where: str, text: str) -> AnyWeight:
    if where == "all":
        return 1.0
    file = Path(where)
    is_mask = where not in REGIONS and len(where) < 256 and file.is_file()
    try:
        return _mask(file.resolve(), file.stat().st_mtime_ns) if is_mask else region(where)
    except InputError as error:
        other = "an image file as a mask, or a share of the trajectory such as 0-0.4"
        why = f", and a file that can be read ({error})" if is_mask else ""
        raise InputError(f"got '@ {where}' in {text!r}; expected {BOXES}, {other}{why}") from error


@lru_cache(maxsize=64)
def _mask(file: Path, _changed: int) -> Weight:
    return region(open_image(file))
