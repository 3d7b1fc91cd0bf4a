"""Questions in plain English as CLEVR's programs. No language model is used."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from energycomp.errors import InputError
from energycomp_clevr.codes import ATTRIBUTES
from energycomp_scenes.relations import KINDS, PHRASES

SYNONYMS = {
    "big": "large", "tiny": "small", "little": "small", "metallic": "metal", "shiny": "metal", "matte": "rubber",
    "ball": "sphere", "block": "cube", "grey": "gray", "colour": "color",
}  # fmt: skip
NOUNS = ("thing", "object")
WORDS = {word: name for name, words in ATTRIBUTES.items() for word in words}
RELATIONS = tuple((tuple(phrase.split()), KINDS[name].programs or name) for phrase, name in PHRASES.items())
EXAMPLES = (
    "'how many metal things are left of the red cube?', 'what color is the sphere behind the cube?', "
    "'is there a small cube?', 'what is left of the red cube?', 'are there more cubes than spheres?', "
    "'is the cube the same color as the sphere?'"
)


def program_of(text: str) -> list[dict[str, Any]]:
    """The program of a question in plain English; an object is "the large red metal cube behind the sphere".

    Raises:
        InputError: a question of another form.

    >>> [step["function"] for step in program_of("How many metal things are left of the red cube?")]
    ['scene', 'filter_color', 'filter_shape', 'unique', 'relate', 'filter_material', 'count']
    """
    return _Question(text).program()


class _Question:
    def __init__(self, text: str) -> None:
        self.text = text
        self.steps = list[dict[str, Any]]()
        self.words = [SYNONYMS.get(word, word) for word in re.findall(r"\w+", text.lower())]

    def program(self) -> list[dict[str, Any]]:
        """The steps; raises for words that are left."""
        if self._takes("how", "many"):
            if self.words[-2:] == ["are", "there"]:
                del self.words[-2:]
            self._add("count", self._objects())
        elif self._takes("is", "there") or self._takes("are", "there", "any"):
            self._add("exist", self._objects())
        elif self._takes("are", "there", "more"):
            self._compare("greater_than", "than")
        elif self._takes("are", "there", "fewer"):
            self._compare("less_than", "than")
        elif self._takes("are", "there", "as", "many"):
            self._compare("equal_integer", "as")
        elif self._takes("what"):
            self._query()
        elif self._takes("is") or self._takes("does"):
            self._state()
        if not self.steps or self.words:
            raise InputError(f"got the question {self.text!r}; expected one like {EXAMPLES}; ask it in such words")
        return self.steps

    def _compare(self, function: str, than: str) -> None:
        first = self._add("count", self._objects())
        if self._takes(than):
            self._add(function, first, self._add("count", self._objects()))

    def _query(self) -> None:
        if self._takes("is") or self._takes("are"):
            self._relate()
        elif self.words and self.words[0] in ATTRIBUTES:
            attribute = self.words.pop(0)
            if self._takes("is"):
                self._add(f"query_{attribute}", self._one())

    def _state(self) -> None:
        one = self._add("unique", self._objects(alone=True))
        if self._takes("the", "same") or self._takes("have", "the", "same"):
            attribute = self.words.pop(0) if self.words and self.words[0] in ATTRIBUTES else ""
            if attribute and self._takes("as"):
                other = self._add(f"query_{attribute}", self._one())
                self._add(f"equal_{attribute}", self._add(f"query_{attribute}", one), other)
        elif (direction := self._direction()) is not None:
            related = self._add("relate", self._one(), word=direction)
            chosen = self.steps[one]["inputs"][0]
            self._add("exist", self._add("intersect", related, chosen))
        elif self.words and (word := self.words[0]) in WORDS:
            self.words.pop(0)
            self._add("exist", self._add(f"filter_{WORDS[word]}", self.steps[one]["inputs"][0], word=word))

    def _one(self) -> int:
        return self._add("unique", self._objects())

    def _objects(self, *, alone: bool = False) -> int:
        """A set: words, and then the relation to one object, unless they stand alone."""
        while self.words and self.words[0] in ("a", "an", "any", "the", "other"):
            self.words.pop(0)
        own: list[str] = []
        while (word := self._word()) is not None:
            own.append(word)
            if word in NOUNS or WORDS[word] == "shape":
                break
        if not own:
            raise self._unknown()
        for filler in ("that", "which", "are", "is"):
            if not alone and self._relates(after=filler):
                self._takes(filler)
        found = None if alone else self._relate()
        found = self._add("scene") if found is None else found
        for word in own:
            found = found if word in NOUNS else self._add(f"filter_{WORDS[word]}", found, word=word)
        return found

    def _relate(self) -> int | None:
        direction = self._direction()
        return None if direction is None else self._add("relate", self._one(), word=direction)

    def _relates(self, after: str) -> bool:
        """Whether a word comes next that only leads to a relation."""
        if self.words[:1] != [after]:
            return False
        left = self.words[2:] if self.words[1:2] in (["are"], ["is"]) else self.words[1:]
        return any(tuple(left[: len(words)]) == words for words, _ in RELATIONS)

    def _direction(self) -> str | None:
        return next((direction for words, direction in RELATIONS if self._takes(*words)), None)

    def _word(self) -> str | None:
        """The next word, where it is one of an object, in the singular."""
        for word in (self.words[0], self.words[0].removesuffix("s")) if self.words else ():
            known = SYNONYMS.get(word, word)
            if known in WORDS or known in NOUNS:
                self.words.pop(0)
                return known
        return None

    def _unknown(self) -> InputError:
        got = self.words[0] if self.words else "the end"
        near = get_close_matches(got, [*WORDS, *NOUNS], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return InputError(
            f"got {got!r} in the question {self.text!r}; expected an object, such as 'the red cube'.{hint}"
        )

    def _takes(self, *words: str) -> bool:
        found = tuple(self.words[: len(words)]) == words
        if found:
            del self.words[: len(words)]
        return found

    def _add(self, function: str, *inputs: int, word: str | None = None) -> int:
        step = {"function": function, "inputs": list(inputs), "value_inputs": [] if word is None else [word]}
        self.steps.append(step)
        return len(self.steps) - 1
