"""What a person fills in for one component of a model, from the model's conditioner alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import attrs

from energycomp.components import ability, groups_of, mixed_of, random_values
from energycomp.models import Model

Kind = Literal["places", "labels", "texts"]

SUGGESTED = 200  # values that are suggested at most
NAMED = 12  # words of texts that are named at most


@attrs.frozen
class Form:
    """The fields of one component.

    Args:
        kind: "places" have x and y in [0, 1], and attributes; "labels" are one value of one attribute each; "texts" are
            what the command line takes, such as a prompt or numbers with commas between them.
        attributes: the words of each attribute.
        suggestions: texts that are offered.
        weight: that of a component that was just added.
    """

    kind: Kind
    attributes: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    suggestions: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def component(self) -> str:
        """What a component is, in words.

        >>> Form("places", {"tint": ("red", "blue"), "size": ("small", "large")}).component
        'an object at a place: tint, size'
        """
        names = list(dict.fromkeys(word for text in self.suggestions for word in text.split()))
        if self.kind == "texts":
            return f"a text of the words: {', '.join(names)}" if 0 < len(names) <= NAMED else "a text"
        names = [name.replace("_", " ") for name in self.attributes]
        kind = "an object at a place" if self.kind == "places" else "an attribute"
        return kind + (f": {', '.join(names)}" if names else "")

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "attributes": [{"name": name, "words": list(words)} for name, words in self.attributes.items()],
            "suggestions": list(self.suggestions),
            "weight": self.weight,
        }


def form_of(model: Model) -> Form:
    """The form of a model's components.

    >>> from energycomp.testing import labels_model
    >>> form_of(labels_model(3)).suggestions
    ('0', '1', '2')
    """
    conditioner = model.conditioner
    weight = model.defaults.guidance_scale
    described = conditioner.describe(random_values(conditioner, 1, generator=0)[0])
    if isinstance(described, dict) and {"x", "y"} <= described.keys():
        mixed = mixed_of(conditioner)
        return Form("places", {} if mixed is None else dict(mixed.attributes), weight=weight)
    groups = groups_of(conditioner)
    if groups is not None and isinstance(described, dict) and described.keys() == {"attribute", "value"}:
        attributes: dict[str, list[str]] = {}
        for one in (conditioner.describe(value) for group in groups for value in group):
            attributes.setdefault(one["attribute"], []).append(one["value"])
        return Form("labels", {name: tuple(words) for name, words in attributes.items()}, weight=weight)
    return Form("texts", suggestions=_suggestions(model), weight=weight)


def _suggestions(model: Model) -> tuple[str, ...]:
    conditioner = model.conditioner
    if (concepts := ability(conditioner, "concepts")) is not None:
        return tuple(concepts)[:SUGGESTED]
    if (enumerate_support := ability(conditioner, "enumerate_support")) is None:
        return ()
    listed = [conditioner.describe(value) for value in enumerate_support()[:SUGGESTED]]
    return tuple(str(one) for one in listed if isinstance(one, str | int | float))
