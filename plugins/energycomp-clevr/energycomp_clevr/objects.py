"""The objects conditioner: a place, attributes such as shape and colour, and a turn, each of which may be left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor
from torch.distributions import constraints

from energycomp.components import Composition, Condition, MixedSupport, Weight, weighted
from energycomp.errors import InputError
from energycomp.fields import FLAG
from energycomp.models import Model
from energycomp_clevr.codes import ATTRIBUTES, CUBE, QUARTER, SHAPE, SIZE, TURN
from energycomp_clevr.coordinates import Coordinates
from energycomp_clevr.viewpoint import VIEW_COLUMNS, draw_views, says_view
from energycomp_clevr.words import PLACE, code_of, has_place, turn_code, words_of

if TYPE_CHECKING:
    from energycomp.inference import Problem

FLOOR = torch.tensor([[0.15, 0.35], [0.85, 0.8]])  # where the objects of CLEVR stand: least and greatest x, y
APART = 0.22  # of two places
TRIED = 64  # places


# What shapes the outline of an object, and how many codes each has; the shape is drawn before the turn.
OUTLINE = {SIZE: len(ATTRIBUTES["size"]), SHAPE: len(ATTRIBUTES["shape"]), TURN: QUARTER}


@attrs.frozen
class Objects:
    """Objects: a place (x, y) in [0, 1] as `Coordinates` has it, and a word for each attribute, or none.

    A value (6,) or (7,) is x, y and, for size, colour, material and shape, the place of the word in `ATTRIBUTES`, from
    1; 0 is an attribute that is left open. Its token holds x and y, -1 or 1 for an attribute of two words, and a column
    for each word of the others, all 0 where the attribute is open.

    Args:
        viewpoint: whether tokens have room for those of `Viewpoint`, for a network that takes both.
        turns: whether a value has a seventh number, how a cube is turned: 1 to 90 are 0 to 89 degrees from where one of
            its faces looks along the line of sight, and 0 leaves it open. Its token is the cosine and the sine of four
            times the turn, both 0 where it is open, and for other shapes. Turns that are open are drawn before an image
            is sampled, see `Composer.sample`.

    >>> objects = Objects()
    >>> red = objects.parse(0.3, 0.45, color="red", shape="cube")
    >>> red, objects.describe(red[0])
    (tensor([[0.3000, 0.4500, 0.0000, 2.0000, 0.0000, 1.0000]]), {'x': 0.3, 'y': 0.45, 'color': 'red', 'shape': 'cube'})
    >>> objects.read("red cube at 0.3,0.45").equal(red), objects(red).rows.shape
    (True, torch.Size([1, 1, 15]))
    >>> turned = Objects(turns=True)
    >>> turned.describe(turned.read("cube turned 120 at 0.3,0.45")[0])
    {'x': 0.3, 'y': 0.45, 'shape': 'cube', 'turn': 30}
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
    def unread(self) -> tuple[str, ...]:
        """What stands behind the attributes in a value, and reading leaves open."""
        return ("turn",) if self.turns else ()

    @property
    def prior(self) -> Objects | None:
        """What draws turns, camera and lamp where they are left open; None without turns."""
        return self if self.turns else None

    @property
    def value_shape(self) -> tuple[int, ...]:
        """x, y, four attributes, and a turn where there are any."""
        return (2 + len(ATTRIBUTES) + self.turns,)

    @property
    def token_shape(self) -> tuple[int, int]:
        """One token of width 15, two more with turns and seven more with room for `Viewpoint`."""
        words = sum(1 if len(words) == 2 else len(words) for words in ATTRIBUTES.values())
        return (1, 2 + words + 2 * self.turns + VIEW_COLUMNS * self.viewpoint)

    @property
    def support(self) -> MixedSupport:
        """The unit square, the words of each attribute, and the turns."""
        square = constraints.independent(constraints.unit_interval, 1)
        return MixedSupport(square, 2, tuple(map(len, ATTRIBUTES.values())), (QUARTER,) if self.turns else ())

    def parse(self, *args: Any, **kwargs: Any) -> Tensor:
        """The value (1, 6) for `(x, y)` or `x=, y=`, with any of `size=, color=, material=, shape=`.

        With turns it is (1, 7), and a cube may have `turn=`, in degrees.

        Raises:
            InputError: a place outside of [0, 1], a word that is none of the attribute's, or a turn that cannot be.
        """
        words = {name: kwargs.pop(name) for name in list(kwargs) if name in ATTRIBUTES}
        turn = turn_code(kwargs.pop("turn", None), words.get("shape"), self.turns)
        if unknown := kwargs.keys() - {"x", "y"}:
            name = min(unknown)
            near = get_close_matches(name, ATTRIBUTES, n=1)
            raise InputError(
                f"got {name}=; expected {', '.join(ATTRIBUTES)}, or x and y"
                + (f". Did you mean {near[0]}={kwargs[name]!r}?" if near else "")
            )
        place = Coordinates().parse(*args, **kwargs)
        codes = [*(code_of(name, words.get(name)) for name in ATTRIBUTES), *([turn] if self.turns else [])]
        return torch.cat([place, torch.tensor([codes], dtype=place.dtype)], dim=1)

    def read(self, text: str) -> Tensor:
        """A description as a value (1, *V): "large red metal cube at 0.3,0.45", "object at 0.7,0.6" or "0.7,0.6".

        With turns, "cube turned 30 at 0.3,0.45" and "cube turn=30 at 0.3,0.45", too.

        Raises:
            InputError: a word that is not known, two of one attribute, or no place.
        """
        described, at, place = text.rpartition(" at ")
        if not (at or PLACE.fullmatch(text)):
            described = text  # so that a word that is not known is named before the place
        found = words_of(described)
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
                words_of(text)  # an error names what was written, without the place
                tried = FLOOR[0] + (FLOOR[1] - FLOOR[0]) * torch.rand(TRIED, 2, generator=generator)
                away = torch.cdist(tried, torch.stack(known)).amin(1) if known else torch.ones(TRIED)
                known.append(tried[(away > APART).int().argmax() if (away > APART).any() else away.argmax()])
                text = f"{text} at {known[-1][0]:.3f},{known[-1][1]:.3f}"  # noqa: PLW2901
            made.append(text)
        return made

    def draw_open(self, values: Tensor, generator: torch.Generator | None, /) -> Tensor:
        """Values (R, *V) with all that shapes an outline: size, shape and, of a cube, a turn, each as CLEVR has them.

        >>> objects = Objects(turns=True)
        >>> value = objects.draw_open(objects.read("red object at 0.3,0.45"), torch.Generator().manual_seed(1))
        >>> objects.describe(value[0])
        {'x': 0.3, 'y': 0.45, 'size': 'large', 'color': 'red', 'shape': 'cube', 'turn': 36}
        """
        if not self.turns:
            return values
        values = torch.nn.functional.pad(values, (0, self.value_shape[0] - values.shape[1]))  # places leave all open
        device = None if generator is None else generator.device
        # A row of numbers for each value, so that its words do not depend on how many there are.
        random = torch.rand(len(values), len(OUTLINE), generator=generator, device=device).to(values)
        for (column, words), chance in zip(OUTLINE.items(), random.T, strict=True):
            is_open = values[:, column] == 0
            if column == TURN:
                is_open &= values[:, SHAPE] == CUBE
            values[:, column] = torch.where(is_open, 1 + (words * chance).floor(), values[:, column])
        return values

    def read_last(self, problem: Problem, values: Tensor, generator: torch.Generator | None, /) -> Tensor:
        """Values (K, 7) with the turn of each cube, see `energycomp_clevr.turns.read_turns`."""
        from energycomp_clevr.turns import read_turns

        return read_turns(problem, values, generator=generator) if self.turns else values

    def prepare(self, composition: Composition, n: int, generators: Sequence[torch.Generator | None], /) -> Composition:
        """The composition of n samples with what it leaves open drawn for each, see `energycomp_clevr.prior`."""
        from energycomp_clevr.prior import draw_open

        return draw_open(self, composition, n, generators)

    def draw_view(
        self, given: Sequence[Condition], rows: int, generator: torch.Generator | None, /
    ) -> Condition | None:
        """Camera and lamp as CLEVR moves them, rows of `Viewpoint`; None where a given row is one, or none can be."""
        if not self.viewpoint or any(says_view(one) for one in given):
            return None
        return draw_views(self.token_shape, rows, generator)

    def widened(self, model: Model, texts: Sequence[str], size: tuple[int, int], generator: int, /) -> Composition:
        """Objects on an image (height, width) that is larger than those of the model; see `energycomp_clevr.wide`.

        Raises:
            InputError: a text that is no description, or whose weight is not a number.
        """
        from energycomp_clevr.wide import wide

        found = [weighted(text) for text in texts]
        if varying := [one for one in found if isinstance(one.place, Weight)]:
            raise InputError(f"got {varying[0].text!r} with a region or a share of the trajectory; expected a number")
        random = torch.Generator().manual_seed(generator)
        placed = self.placed([one.text for one in found], random)
        values = self.draw_open(torch.cat([torch.zeros(0, *self.value_shape), *map(self.read, placed)]), random)
        weights = [float(one.weight(model.defaults.guidance_scale)) for one in found]  # type: ignore[arg-type]
        view = self.draw_view([], 1, random) if self.turns else None
        return wide(model, values, weights, size, view)

    def describe(self, value: Tensor) -> dict[str, Any]:
        """One value (6,) or (7,), or a place (2,), as {"x": ..., "y": ..., "shape": ...}, without open attributes."""
        place = Coordinates().describe(value[:2])
        codes = zip(ATTRIBUTES.items(), value[2:].tolist(), strict=False)  # a place alone has none
        words = {name: words[int(code) - 1] for (name, words), code in codes if code}
        turned = len(value) > TURN and bool(value[TURN] > 0) and bool(value[SHAPE] == CUBE)
        return {**place, **words, **({"turn": int(value[TURN]) - 1} if turned else {})}

    def config(self) -> dict[str, Any]:
        """The argument, where it is not the usual one."""
        return {name: True for name in ("viewpoint", "turns") if getattr(self, name)}

    def __call__(self, values: Tensor) -> Condition:
        """Values (R, *V), or places (R, 2) with all attributes open, as condition rows (R, *token_shape)."""
        known = (2, 2 + len(ATTRIBUTES), *self.value_shape)
        if values.ndim != 2 or values.shape[1] not in known:
            expected = f"(R, {self.value_shape[0]}), or places (R, 2)"
            raise InputError(f"got objects of shape {tuple(values.shape)}; expected {expected}")
        places = values[:, :2]
        codes = values[:, 2:].detach()
        turn = codes[:, len(ATTRIBUTES) :]  # (R, 1), or (R, 0) where nothing is said of it
        # The place, then the words: -1 or 1 of two, one column each of more; 0 where they are open
        columns = [places]
        for words, code in zip(ATTRIBUTES.values(), codes.T, strict=False):
            if len(words) == 2:
                columns.append((2 * code - 3)[:, None] * (code > 0)[:, None])
            else:
                columns.append((code[:, None] == torch.arange(1, len(words) + 1, device=code.device)).to(places.dtype))
        # A turn of a cube repeats after a quarter
        if self.turns and turn.shape[1]:
            angle = (4 * (turn - 1)).deg2rad()
            said = (turn > 0) & (values[:, SHAPE, None] == CUBE)
            columns.append(torch.cat([angle.cos(), angle.sin()], dim=1) * said)
        rows = torch.cat(columns, dim=1)
        return Condition(torch.nn.functional.pad(rows, (0, self.token_shape[1] - rows.shape[1]))[:, None])
