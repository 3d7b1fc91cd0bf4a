"""Descriptions of objects in words: which words are known, and what to say of the others."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from energycomp.errors import InputError
from energycomp.fields import is_number
from energycomp_clevr.codes import ATTRIBUTES, QUARTER

ANYTHING = "object"  # in a description without a shape
NUMBER = r"[-+.\deE]+"
PLACE = re.compile(rf"\s*(?:x=)?({NUMBER})\s*,\s*(?:y=)?({NUMBER})\s*")

KNOWN = (*(word for words in ATTRIBUTES.values() for word in words), ANYTHING)

# What people write instead, and what to tell them.
SYNONYMS = {
    **dict.fromkeys(("box", "block", "brick", "square"), "cube"),
    **dict.fromkeys(("ball", "orb", "globe", "circle"), "sphere"),
    **dict.fromkeys(("can", "tube", "drum", "pillar", "barrel"), "cylinder"),
    **dict.fromkeys(("big", "huge", "giant"), "large"),
    **dict.fromkeys(("little", "tiny"), "small"),
    **dict.fromkeys(("shiny", "metallic"), "metal"),
    **dict.fromkeys(("matte", "plastic"), "rubber"),
    **dict.fromkeys(("turquoise", "teal", "aqua"), "cyan"),
    **dict.fromkeys(("violet", "lilac"), "purple"),
    **dict.fromkeys(("thing", "item"), ANYTHING),
    "grey": "gray",
}
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "several", "some", "many", "both")
BESIDE = ("on", "in", "near", "next", "beside", "behind", "below", "above", "under", "over", "of", "to", "and")
PLACES = {
    "left": "0.2,0.5",
    "right": "0.8,0.5",
    **dict.fromkeys(("middle", "center", "centre"), "0.5,0.55"),
    **dict.fromkeys(("front", "bottom"), "0.5,0.75"),
    **dict.fromkeys(("back", "top"), "0.5,0.4"),
}
WHOLE = 360  # degrees
TURNED = re.compile(r"\b(?:turned\b\s*|turn=)(\S*)")


def words_of(described: str) -> dict[str, Any]:
    """The words of a description by attribute, and its turn; raises `InputError`."""
    found: dict[str, Any] = {}
    turns = TURNED.findall(described)
    if len(turns) > 1:
        raise InputError(f"got {len(turns)} turns in {described!r}; expected one; leave the others out")
    for word in TURNED.sub("", described).split():
        name = _attribute_of(word, described)
        if name is None:
            continue
        if name in found:
            raise InputError(
                f"got {found[name]!r} and {word!r} in {described!r}; expected one {name}; leave one of them out"
            )
        found[name] = word
    return found | ({"turn": turns[0]} if turns else {})


def turn_code(turn: Any, shape: Any, known: bool) -> int:
    """The place of a turn in degrees among those of a quarter, from 1; 0 for None."""
    if turn is None:
        return 0
    if not known:
        raise InputError(f"got turn={turn!r} for a model that takes no turns; expected none; leave it out")
    degrees: Any = turn
    try:
        degrees = float(turn) if isinstance(turn, str) else turn
    except ValueError:
        degrees = None
    if not is_number(degrees) or abs(degrees) > WHOLE:
        raise InputError(f"got turn={turn!r}; expected degrees from -{WHOLE} to {WHOLE}, such as 30")
    if shape != "cube":
        got = f"got turn={turn!r} with {f'shape={shape!r}' if shape else 'no shape'}"
        raise InputError(f"{got}; expected shape='cube', since cubes alone have a turn; leave the turn out")
    return 1 + round(degrees) % QUARTER


def has_place(text: str) -> bool:
    """Whether a description ends in a place, or is one."""
    return " at " in text or PLACE.fullmatch(text) is not None


def code_of(name: str, word: Any) -> int:
    """The place of a word among those of an attribute, from 1; 0 for None."""
    if word is None:
        return 0
    if word not in ATTRIBUTES[name]:
        raise InputError(f"got the {name} {word!r}; expected one of {', '.join(ATTRIBUTES[name])}")
    return ATTRIBUTES[name].index(word) + 1


def _attribute_of(word: str, described: str) -> str | None:
    """The attribute that a word of a description belongs to; None for "object" and articles."""
    if word in (ANYTHING, "a", "an", "the"):
        return None
    for name, words in ATTRIBUTES.items():
        if word in words:
            return name
    raise InputError(f"got the word {word!r}; expected {', '.join(KNOWN)}.{_hint(word, described)}")


def _hint(word: str, described: str) -> str:
    """What to write for a word that is not known: another word, a component for each object, or coordinates."""
    if word in NUMBERS or word.isdecimal():
        return " A component is one object: give one for each, such as 'red cube' 'red cube'"
    if word in BESIDE or word in PLACES:
        place = next((PLACES[other] for other in described.split() if other in PLACES), PLACES["middle"])
        return f" A place is written as x,y in [0, 1], x to the right and y down, such as 'red cube at {place}'"
    singular = word.removesuffix("es") if word.endswith("xes") else word.removesuffix("s")
    near = [SYNONYMS[singular]] if singular in SYNONYMS else get_close_matches(word, KNOWN, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{hint} A component is one object" if near and singular != word and near[0] in ATTRIBUTES["shape"] else hint
