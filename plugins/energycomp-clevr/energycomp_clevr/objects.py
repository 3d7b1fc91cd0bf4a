"""The objects conditioner: a place and attributes such as shape and colour, each of which may be left open."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import Composition, Condition, MixedSupport, Weight, weighted
from energycomp.errors import InputError
from energycomp.fields import FLAG
from energycomp.models import Model
from energycomp_clevr.coordinates import Coordinates

ANYTHING = "object"  # in a description without a shape
NUMBER = r"[-+.\deE]+"
PLACE = re.compile(rf"\s*(?:x=)?({NUMBER})\s*,\s*(?:y=)?({NUMBER})\s*")
FLOOR = torch.tensor([[0.15, 0.35], [0.85, 0.8]])  # where the objects of CLEVR stand: least and greatest x, y
APART = 0.22  # of two places
TRIED = 64  # places

ATTRIBUTES = {
    "size": ("small", "large"),
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    "material": ("rubber", "metal"),
    "shape": ("cube", "sphere", "cylinder"),
}  # the words of CLEVR, in the order of their codes
VIEW_COLUMNS = 7  # of a token: the six of `Viewpoint`, and whether it is one
QUARTER = 90  # degrees, after which a cube looks the same


@attrs.frozen
class Objects:
    """Objects: a place (x, y) in [0, 1] as `Coordinates` has it, and a word for each attribute, or none.

    A value (6,) is x, y and, for size, colour, material and shape, the place of the word in `ATTRIBUTES`, from 1; 0 is
    an attribute that is left open. Its token holds x and y, -1 or 1 for an attribute of two words, and a column for
    each word of the others, all 0 where the attribute is open.

    Args:
        viewpoint: whether tokens have room for those of `Viewpoint`, for a network that takes both.
        turns: whether a value has a seventh number, how a cube is turned: 1 to 90 are 0 to 89 degrees from where one of
            its faces looks along the line of sight, and 0 leaves it open. Its token is the cosine and the sine of four
            times the turn, both 0 where it is open.

    >>> objects = Objects()
    >>> red = objects.parse(0.3, 0.45, color="red", shape="cube")
    >>> red, objects.describe(red[0])
    (tensor([[0.3000, 0.4500, 0.0000, 2.0000, 0.0000, 1.0000]]), {'x': 0.3, 'y': 0.45, 'color': 'red', 'shape': 'cube'})
    >>> objects.read("red cube at 0.3,0.45").equal(red), objects(red).rows.shape
    (True, torch.Size([1, 1, 15]))
    """

    viewpoint: bool = attrs.field(default=False, validator=FLAG)
    turns: bool = attrs.field(default=False, validator=FLAG)

    @property
    def attributes(self) -> Mapping[str, tuple[str, ...]]:
        """The words of each attribute, in the order of a value."""
        return ATTRIBUTES

    @property
    def surfaces(self) -> tuple[str, ...]:
        """The attributes that leave an object its outline: an edit draws their words over it."""
        return ("color", "material")

    @property
    def value_shape(self) -> tuple[int, ...]:
        """x, y and four attributes."""
        return (2 + len(ATTRIBUTES) + self.turns,)

    @property
    def token_shape(self) -> tuple[int, int]:
        """One token of width 15, or that of `Viewpoint`."""
        words = sum(1 if len(words) == 2 else len(words) for words in ATTRIBUTES.values())
        return (1, 2 + words + 2 * self.turns + VIEW_COLUMNS * self.viewpoint)

    @property
    def support(self) -> MixedSupport:
        """The unit square, and the words of each attribute."""
        square = constraints.independent(constraints.unit_interval, 1)
        words = [*map(len, ATTRIBUTES.values()), *([QUARTER] if self.turns else [])]
        return MixedSupport(square, 2, tuple(words))

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """The value (1, 6) for `(x, y)` or `x=, y=`, with any of `size=, color=, material=, shape=`.

        Raises:
            InputError: a place outside of [0, 1], or a word that is none of the attribute's.
        """
        words = {name: kwargs.pop(name) for name in list(kwargs) if name in ATTRIBUTES}
        if unknown := kwargs.keys() - {"x", "y"}:
            name = min(unknown)
            near = get_close_matches(name, ATTRIBUTES, n=1)
            raise InputError(
                f"got {name}=; expected {', '.join(ATTRIBUTES)}, or x and y"
                + (f". Did you mean {near[0]}={kwargs[name]!r}?" if near else "")
            )
        place = Coordinates().parse(*args, **kwargs)
        codes = [_code(name, words.get(name)) for name in ATTRIBUTES]
        return torch.cat([place, torch.tensor([codes], dtype=place.dtype)], dim=1)

    def read(self, text: str) -> Tensor:
        """A description as a value (1, 6): "large red metal cube at 0.3,0.45", "object at 0.7,0.6" or "0.7,0.6".

        Raises:
            InputError: a word that is not known, two of one attribute, or no place.
        """
        described, at, place = text.rpartition(" at ")
        if not (at or PLACE.fullmatch(text)):
            described = text  # so that a word that is not known is named before the place
        found = _words(described)
        numbers = PLACE.fullmatch(place if at else text)
        if numbers is None:
            raise InputError(
                f"got {text!r}; expected a place, alone or after a description, such as 0.3,0.45 or "
                "'large red metal cube at 0.3,0.45'; model.scene('red cube', 'blue sphere') chooses places"
            )
        try:
            x, y = map(float, numbers.groups())
        except ValueError as error:
            raise InputError(f"got the place {place or text!r}; expected two numbers in [0, 1], as 0.3,0.45") from error
        return self.parse(x, y, **found)

    def placed(self, texts: Sequence[str], generator: torch.Generator | None, /) -> list[str]:
        """The texts, with a place where the floor of an image has room for those that have none.

        Raises:
            InputError: a text that is empty or is no description.

        >>> Objects().placed(["red cube", "sphere at 0.5,0.5"], torch.Generator().manual_seed(0))
        ['red cube at 0.212,0.409', 'sphere at 0.5,0.5']
        """
        known = [self.read(text)[0, :2] for text in texts if has_place(text)]
        made = []
        for text in texts:
            if not has_place(text):
                if not text.strip():
                    raise InputError("got an empty text; expected an object, such as 'red cube' or 0.3,0.45")
                _words(text)  # an error names what was written, without the place
                tried = FLOOR[0] + (FLOOR[1] - FLOOR[0]) * torch.rand(TRIED, 2, generator=generator)
                away = torch.cdist(tried, torch.stack(known)).amin(1) if known else torch.ones(TRIED)
                known.append(tried[(away > APART).int().argmax() if (away > APART).any() else away.argmax()])
                text = f"{text} at {known[-1][0]:.3f},{known[-1][1]:.3f}"  # noqa: PLW2901
            made.append(text)
        return made

    def widened(self, model: Model, texts: Sequence[str], size: tuple[int, int], generator: int, /) -> Composition:
        """Objects on an image (height, width) that is larger than those of the model; see `energycomp_clevr.wide`.

        Raises:
            InputError: a text that is no description, or whose weight is not a number.
        """
        from energycomp_clevr.wide import wide

        found = [weighted(text) for text in texts]
        if varying := [one for one in found if isinstance(one.place, Weight)]:
            raise InputError(f"got {varying[0].text!r} with a region or a share of the trajectory; expected a number")
        placed = self.placed([one.text for one in found], torch.Generator().manual_seed(generator))
        values = torch.cat([torch.zeros(0, *self.value_shape), *map(self.read, placed)])
        weights = [float(one.weight(model.defaults.guidance_scale)) for one in found]  # type: ignore[arg-type]
        return wide(model, values, weights, size)

    def describe(self, value: Tensor) -> dict[str, Any]:
        """One value (6,), or a place (2,), as {"x": ..., "y": ..., "shape": ...}, without open attributes."""
        place = Coordinates().describe(value[:2])
        codes = zip(ATTRIBUTES.items(), value[2:].tolist(), strict=False)  # a place alone has none
        return {**place, **{name: words[int(code) - 1] for (name, words), code in codes if code}}

    def config(self) -> dict[str, Any]:
        """The argument, where it is not the usual one."""
        return {name: True for name in ("viewpoint", "turns") if getattr(self, name)}

    def __call__(self, values: Tensor) -> Condition:
        """Values (R, 6), or places (R, 2) with all attributes open, as condition rows (R, 1, 15), or (R, 1, 22)."""
        known = (2, 2 + len(ATTRIBUTES), *self.value_shape)
        if values.ndim != 2 or values.shape[1] not in known:
            raise InputError(f"got objects of shape {tuple(values.shape)}; expected (R, 6), or places (R, 2)")
        places, codes = values[:, :2], values[:, 2:].detach()
        turn = codes[:, len(ATTRIBUTES) :]  # (R, 1), or (R, 0) where nothing is said of it
        columns = [places]
        for words, code in zip(ATTRIBUTES.values(), codes.T, strict=False):
            if len(words) == 2:
                columns.append((2 * code - 3)[:, None] * (code > 0)[:, None])
            else:
                columns.append((code[:, None] == torch.arange(1, len(words) + 1, device=code.device)).to(places.dtype))
        if self.turns and turn.shape[1]:
            angle = (4 * (turn - 1)).deg2rad()
            columns.append(torch.cat([angle.cos(), angle.sin()], dim=1) * (turn > 0))
        rows = torch.cat(columns, dim=1)
        return Condition(torch.nn.functional.pad(rows, (0, self.token_shape[1] - rows.shape[1]))[:, None])


def _words(described: str) -> dict[str, str]:
    """The words of a description by attribute; raises `InputError`."""
    found: dict[str, str] = {}
    for word in described.split():
        name = _attribute_of(word)
        if name is None:
            continue
        if name in found:
            raise InputError(
                f"got {found[name]!r} and {word!r} in {described!r}; expected one {name}; leave one of them out"
            )
        found[name] = word
    return found


def has_place(text: str) -> bool:
    """Whether a description ends in a place, or is one."""
    return " at " in text or PLACE.fullmatch(text) is not None


def _code(name: str, word: Any) -> int:
    """The place of a word among those of an attribute, from 1; 0 for None."""
    if word is None:
        return 0
    if word not in ATTRIBUTES[name]:
        raise InputError(f"got the {name} {word!r}; expected one of {', '.join(ATTRIBUTES[name])}; change it")
    return ATTRIBUTES[name].index(word) + 1


def _attribute_of(word: str) -> str | None:
    """The attribute that a word of a description belongs to; None for "object" and articles."""
    if word in (ANYTHING, "a", "an", "the"):
        return None
    for name, words in ATTRIBUTES.items():
        if word in words:
            return name
    known = [*(word for words in ATTRIBUTES.values() for word in words), ANYTHING]
    near = get_close_matches(word, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(f"got the word {word!r}; expected {', '.join(known)}; change it.{hint}")
