"""Objects of a schema: a place, width and height, and attributes, each of which but the place may be left open."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import Condition, MixedSupport
from energycomp.errors import InputError
from energycomp.fields import FLAG, is_number

NUMBER = r"[-+.\deE]+"
PLACE = re.compile(rf"\s*(?:x=)?({NUMBER})\s*,\s*(?:y=)?({NUMBER})\s*(?:size\s+({NUMBER})\s*x\s*({NUMBER})\s*)?")
NOUNS = ("object", "a", "an", "the")  # say nothing of an object
APART = 0.15  # between the places of objects that a text leaves anywhere
TRIED = 64  # places


def _attributes(given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {str(name): tuple(map(str, values)) for name, values in given.items()}


@attrs.frozen
class Objects:
    """Objects at a place (x, y), of a width and a height, with a value of each attribute of a schema.

    A value is x, y, with `box` width and height, all in shares of the image, and the place of the word of each
    attribute, from 1. A width of 0 leaves the size open, a word of 0 the attribute. The token holds the numbers, and
    a column for each word.

    Args:
        attributes: the values of each attribute.
        box: whether objects have a width and a height.

    Raises:
        InputError: an attribute without values, or the same word twice.

    >>> cells = Objects({"category": ("RBC", "WBC")}, box=True)
    >>> cells.read("WBC at 0.4,0.5 size 0.3x0.25")
    tensor([[0.4000, 0.5000, 0.3000, 0.2500, 2.0000]])
    >>> cells.describe(cells.parse(0.4, 0.5, category="RBC")[0])
    {'x': 0.4, 'y': 0.5, 'category': 'RBC'}
    >>> cells(cells.read("0.4,0.5")).rows.tolist()
    [[[0.4000..., 0.5, 0.0, 0.0, 0.0, 0.0]]]
    """

    attributes: dict[str, tuple[str, ...]] = attrs.field(converter=_attributes)
    box: bool = attrs.field(default=True, validator=FLAG)

    @attributes.validator
    def _check(self, _: Any, given: dict[str, tuple[str, ...]]) -> None:
        words = [word for values in given.values() for word in values]
        reserved = {"x", "y", "width", "height"} & given.keys()
        if len(set(words)) < len(words) or reserved or not all(given.values()):
            raise InputError(f"got the attributes {given}; expected names other than x, y, width and height, each with "
                             "values that occur once; rename some")  # fmt: skip

    @property
    def length(self) -> int:
        """How many numbers a value begins with."""
        return 4 if self.box else 2

    @property
    def words(self) -> tuple[int, ...]:
        """How many values each attribute has."""
        return tuple(map(len, self.attributes.values()))

    @property
    def value_shape(self) -> tuple[int, ...]:
        return (self.length + len(self.attributes),)

    @property
    def token_shape(self) -> tuple[int, int]:
        return (1, self.length + sum(self.words))

    @property
    def support(self) -> MixedSupport:
        numbers = constraints.independent(constraints.unit_interval, 1)
        return MixedSupport(numbers, self.length, self.words)

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """The value of an object: its place, with any of `width=`, `height=` and the attributes.

        Raises:
            InputError: a number outside of [0, 1], a width without a height, or a word that is none of the attribute's.
        """
        names = ("x", "y", "width", "height")[: self.length]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if unknown := given.keys() - {*names, *self.attributes}:
            expected = ", ".join((*names, *self.attributes))
            raise InputError(f"got {min(unknown)}=; expected {expected}")
        numbers = [given.get(name) for name in names]
        legal = [n is not None and is_number(n) and 0 <= n <= 1 for n in numbers]
        said = [number is not None for number in numbers[2:]]
        if len(args) > len(names) or not all(legal[:2]) or len(set(said)) > 1 or not all(legal[: 2 + 2 * any(said)]):
            shown = ", ".join(f"{name}={n!r}" for name, n in zip(names, numbers, strict=True))
            raise InputError(
                f"got {shown}; expected numbers in [0, 1], x to the right and y down, of the size both or none; divide "
                "pixels by the image size"
            )
        codes = [self._code(name, given.get(name)) for name in self.attributes]
        return torch.tensor([[*(float(n or 0) for n in numbers), *codes]], dtype=torch.float32)

    def _code(self, name: str, word: Any) -> int:
        if word is None:
            return 0
        words = self.attributes[name]
        if str(word) not in words:
            raise InputError(f"got {name}={word!r}; expected one of {', '.join(words)}")
        return 1 + words.index(str(word))

    def read(self, text: str) -> Tensor:
        """A description as a value: "WBC at 0.4,0.5", "object at 0.3,0.4 size 0.1x0.12" or "0.3,0.4".

        Raises:
            InputError: no place, a word that is not known, or two of one attribute.
        """
        described, at, place = text.rpartition(" at ")
        numbers = PLACE.fullmatch(place if at else text)
        words = self._words_of(described if at or numbers else text)
        if numbers is None:
            example = next(iter(next(iter(self.attributes.values()), ())), "object")
            raise InputError(f"got {text!r}; expected a place, such as '{example} at 0.3,0.45' or 0.3,0.45")
        try:
            x, y, width, height = (None if n is None else float(n) for n in numbers.groups())
        except ValueError as error:
            raise InputError(f"got the place in {text!r}; expected numbers in [0, 1], as 0.3,0.45") from error
        size = {} if width is None else {"width": width, "height": height}
        return self.parse(x, y, **size, **words)

    def _words_of(self, described: str) -> dict[str, str]:
        """The word of each attribute that a description names; longer words are looked for first."""
        owners = {word: name for name, words in self.attributes.items() for word in words}
        rest = f" {described} "
        words: dict[str, str] = {}
        for word in sorted(owners, key=len, reverse=True):
            name = owners[word]
            for written in (f" {name}={word} ", f" {word} "):
                while written in rest:
                    rest = rest.replace(written, " ", 1)
                    if name in words:
                        raise InputError(f"got {words[name]!r} and {word!r} in {described!r}; expected one {name}")
                    words[name] = word
        if unknown := [word for word in rest.split() if word not in NOUNS]:
            near = get_close_matches(unknown[0], owners, n=1)
            hint = f". Did you mean {near[0]!r}?" if near else ""
            raise InputError(f"got the word {unknown[0]!r}; expected {', '.join((*owners, 'object'))}{hint}")
        return words

    def placed(self, texts: Sequence[str], generator: torch.Generator | None, /) -> list[str]:
        """The texts, with a place where there is room for those that have none.

        >>> Objects({"category": ("RBC",)}).placed(["RBC"], torch.Generator().manual_seed(0))
        ['RBC at 0.497,0.715']
        """
        has_place = [" at " in text or PLACE.fullmatch(text) is not None for text in texts]
        known = [self.read(text)[0, :2] for text, has in zip(texts, has_place, strict=True) if has]
        placed = []
        for text, has in zip(texts, has_place, strict=True):
            if has:
                placed.append(text)
                continue
            self._words_of(text)
            tried = 0.1 + 0.8 * torch.rand(TRIED, 2, generator=generator)
            away = torch.cdist(tried, torch.stack(known)).amin(1) if known else torch.ones(TRIED)
            known.append(tried[int((away > APART).int().argmax() if (away > APART).any() else away.argmax())])
            placed.append(f"{text} at {known[-1][0]:.3f},{known[-1][1]:.3f}")
        return placed

    def describe(self, value: Tensor) -> dict[str, Any]:
        """A value, or numbers alone, without what is open."""
        numbers = [round(float(number), 4) for number in value[: self.length]]
        described: dict[str, Any] = dict(zip(("x", "y"), numbers, strict=False))
        if self.box and len(numbers) == 4 and numbers[2] > 0:
            described |= {"width": numbers[2], "height": numbers[3]}
        codes = zip(self.attributes.items(), value[self.length :].tolist(), strict=False)
        return described | {name: words[int(code) - 1] for (name, words), code in codes if code}

    def config(self) -> dict[str, Any]:
        return {"attributes": {name: list(words) for name, words in self.attributes.items()}, "box": self.box}

    def __call__(self, values: Tensor) -> Condition:
        """Values (R, *V), or numbers alone with all attributes open, as condition rows (R, *token_shape)."""
        known = (2, self.length, *self.value_shape)
        if values.ndim != 2 or values.shape[1] not in known:
            raise InputError(f"got objects of shape {tuple(values.shape)}; expected (R, {self.value_shape[0]})")
        numbers = values[:, : self.length]
        numbers = torch.nn.functional.pad(numbers, (0, self.length - numbers.shape[1]))
        codes = values[:, self.length :].detach()
        columns = [numbers]
        for count, code in zip(self.words, codes.T, strict=False):
            columns.append((code[:, None] == torch.arange(1, count + 1, device=code.device)).to(values.dtype))
        rows = torch.cat(columns, dim=1)
        return Condition(torch.nn.functional.pad(rows, (0, self.token_shape[1] - rows.shape[1]))[:, None])
