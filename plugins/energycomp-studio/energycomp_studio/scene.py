"""A scene as the page edits it, and the composition that it stands for. Functions without a browser.

Notation: variable -> symbol
    item.weight     w_k, a number before a component
    item.negated    ~, the component is left out of the image
    item.either     |, this item and those after it are another alternative

An item list a, b, ~c, | d is the composition (a & b & ~c) | d.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor

from energycomp import Composer
from energycomp.components import Composable, ability, parse_value, read_value, value_of
from energycomp.errors import InputError
from energycomp.fields import is_number
from energycomp.models import Model
from energycomp_studio.settings import Settings

MAX_ITEMS = 32
MAX_TEXT = 2_000  # characters of a prompt
OR = "mixture"  # the sampler of alternatives, which need no energies for it
FIELDS = {"given", "weight", "negated", "either", "origin", "note"}


def _check_fields(value: Any) -> dict[str, str | float]:
    fits = isinstance(value, Mapping) and 0 < len(value) <= MAX_ITEMS
    for name, field in value.items() if fits else ():
        is_text = isinstance(field, str) and len(field) <= MAX_TEXT
        fits = fits and isinstance(name, str) and (is_text or is_number(field))
    if not fits:
        raise InputError(f"got the component {value!r}; expected fields such as x and y; reload the page")
    return dict(value)


@attrs.frozen
class Item:
    """One component of a scene.

    Args:
        given: its fields: `x`, `y` and words by attribute; or `attribute` and `value`; or `text`.
        weight: the number before it.
        negated: whether it is negated, `~`.
        either: whether it begins another alternative, `|`.
        origin: the number of the component that was read from an image, from 0; None for one that was added.
    """

    given: Mapping[str, str | float] = attrs.field(converter=_check_fields)
    weight: float = 1.0
    negated: bool = False
    either: bool = False
    origin: int | None = None


@attrs.frozen
class Draft:
    """What a person composes on the page: items, in its order."""

    items: tuple[Item, ...] = ()

    @property
    def alternatives(self) -> tuple[tuple[Item, ...], ...]:
        """The items between `|`, in the order in which they are summed: the negated ones last."""
        groups: list[list[Item]] = []
        for item in self.items:
            if item.either or not groups:
                groups.append([])
            groups[-1].append(item)
        return tuple(tuple(sorted(group, key=lambda item: item.negated)) for group in groups)

    def as_json(self) -> dict[str, Any]:
        """What the page takes."""
        return {"items": [attrs.asdict(item) for item in self.items]}


def scene_of(data: Any) -> Draft:
    """Reads a scene from the page's JSON; raises `InputError` for anything that the page does not send."""
    listed = data.get("items") if isinstance(data, Mapping) else None
    if not isinstance(listed, list) or not all(isinstance(one, Mapping) and one.keys() <= FIELDS for one in listed):
        raise InputError("got something else than a scene from the page; expected a list of components; reload it")
    if len(listed) > MAX_ITEMS:
        raise InputError(f"got {len(listed)} components; expected at most {MAX_ITEMS}; remove some")
    return Draft(tuple(_item(one) for one in listed))


def _item(one: Mapping[str, Any]) -> Item:
    weight = one.get("weight", 1.0)
    origin = one.get("origin")
    if not is_number(weight) or abs(weight) > 100:
        raise InputError(f"got the weight {weight!r}; expected a number between -100 and 100")
    if origin is not None and (type(origin) is not int or not 0 <= origin < MAX_ITEMS):
        raise InputError(f"got the origin {origin!r}; expected a number of a component; read the image again")
    return Item(one.get("given"), float(weight), bool(one.get("negated")), bool(one.get("either")), origin)


def in_words(scene: Draft, model: Model, settings: Settings) -> str:
    """A scene in words, as its formula says it in symbols."""
    items = scene.items
    weights = {item.weight for item in scene.items}
    kind = "object" if all("x" in item.given for item in items) else "component"
    left_out = sum(item.negated for item in items)
    alternatives = len(scene.alternatives)
    scale = model.sampling().get("guidance_scale") if settings.sampler is None else None
    said = (
        f"{len(items)} {kind}{'' if len(items) == 1 else 's'}",
        f"{left_out} left out" if left_out else "",
        f"{alternatives} alternatives" if alternatives > 1 else "",
        f"weight {weights.pop():g}" if len(weights) == 1 and weights != {1.0} else "",
        f"guidance {scale:g}" if scale else "",
    )
    return ", ".join(filter(None, said))


def beyond(scene: Draft, model: Model) -> str:
    """A word on more components than the model was made for; none for fewer."""
    count = max((len(items) for items in scene.alternatives), default=0)
    most = model.defaults.counts[1]
    return f"; more than the {most} that {model.name} knows, so some may be missing" if count > most else ""


def value(item: Item, model: Model) -> Tensor:
    """The value (1, *V) of an item; raises `InputError` where the model's conditioner has none."""
    given = item.given
    if given.keys() == {"text"}:
        text = str(given["text"])
        if not text.strip():
            raise InputError("got an empty component; expected a text; fill it in or remove it")
        return read_value(model.conditioner, text)
    fields = {name: field for name, field in given.items() if field != ""}
    if {"x", "y"} <= fields.keys():
        return parse_value(model.conditioner, fields.pop("x"), fields.pop("y"), **fields)
    return value_of(model.conditioner, fields)


def text_of(item: Item, model: Model) -> str:
    """The text that stands for an item on the command line.

    >>> from energycomp.testing import tinted_model
    >>> text_of(Item({"x": 0.2, "y": 0.3, "tint": "red"}), tinted_model())
    '0.2,0.3,tint=red'
    """
    fields = {name: field for name, field in item.given.items() if field != ""}
    wanted = value(item, model)
    if fields.keys() == {"text"}:
        return str(fields["text"])
    if fields.keys() == {"attribute", "value"}:
        return f"{fields['attribute']}={fields['value']}"
    words = {name: field for name, field in fields.items() if name not in ("x", "y")}
    place = f"{fields.get('x')},{fields.get('y')}"
    named = [field if isinstance(field, str) else f"{name}={field}" for name, field in words.items()]
    said = f"{' '.join(named)} at {place}"
    if words and ability(model.conditioner, "read") is not None and read_value(model.conditioner, said).equal(wanted):
        return said
    return ",".join([place, *(f"{name}={field}" for name, field in words.items())])


def weighted_text(item: Item, model: Model) -> str:
    """The text of an item with its weight, where it is not the model's own."""
    return text_of(item, model) + ("" if item.weight == model.defaults.guidance_scale else f" * {item.weight}")


def compose_scene(scene: Draft, model: Model, settings: Settings) -> Composable:
    """What is sampled: the component of a scene, or its objects on a canvas. Raises `InputError` as `component`, or for
    a canvas where there is none.
    """
    if settings.size is None:
        return component(scene, model)
    plain = len(scene.alternatives) < 2 and not any(item.negated for item in scene.items)
    widened = ability(model.conditioner, "widened")
    if not plain or widened is None:
        got = f"got the canvas {settings.canvas} with {model.name if plain else 'not or or'}"
        raise InputError(f"{got}; expected objects alone, and a model such as clevr; empty the field Canvas")
    texts = [weighted_text(item, model) for item in scene.items]
    wide: Composable = widened(model, texts, settings.size, settings.seed)
    return wide


def component(scene: Draft, model: Model) -> Composable:
    """The component that a scene stands for: u for none, a mixture for alternatives.

    Raises:
        InputError: an item that the model's conditioner does not have.
        CompositionError: a composition that is not defined, such as a mixture of weighted components.

    >>> from energycomp.testing import bumps_model
    >>> one, two = Item({"x": 0.2, "y": 0.3}, weight=2.0), Item({"x": 0.5, "y": 0.5}, negated=True)
    >>> component(Draft((two, one)), bumps_model())
    2 bumps(0.2,0.3) - bumps(0.5,0.5)
    """
    if not scene.items:
        return model.compose([])
    whole, *others = (Composer(_parts(items, model)).composition for items in scene.alternatives)
    mixed: Any = whole
    for other in others:
        mixed = mixed | other
    return mixed


def _parts(items: Sequence[Item], model: Model) -> list[Any]:
    parts = []
    for item in items:
        name = f"{model.name}({text_of(item, model)})"
        part = item.weight * model.leaf(value(item, model), name)
        parts.append(~part if item.negated else part)
    return parts


@attrs.frozen
class Changes:
    """How a scene differs from the components that were read: arguments of `energycomp_edit.edit`."""

    move: Mapping[int, Item]
    remove: tuple[int, ...]
    add: tuple[Item, ...]

    def __bool__(self) -> bool:
        return bool(self.move or self.remove or self.add)


def changes(read: Sequence[Mapping[str, Any]], scene: Draft) -> Changes:
    """What was moved, removed and added, compared to the descriptions that were read."""
    kept = {item.origin: item for item in scene.items if item.origin is not None}
    if any(origin >= len(read) for origin in kept):
        raise InputError(f"got component {max(kept)} of {len(read)} that were read; read the image again")
    given = {k: {name: field for name, field in item.given.items() if field != ""} for k, item in kept.items()}
    moved = {k: item for k, item in kept.items() if given[k] != dict(read[k])}
    gone = tuple(k for k in range(len(read)) if k not in kept)
    return Changes(moved, gone, tuple(item for item in scene.items if item.origin is None))
