"""The scene that a model begins with."""

from __future__ import annotations

from typing import Any

from energycomp_studio.forms import Form
from energycomp_studio.scene import Draft, Item

# Scenes that the included models draw well. Other models begin with the first words of their form.
CHOSEN: dict[str, list[dict[str, Any]]] = {
    "clevr": [
        {"x": 0.3, "y": 0.5, "size": "large", "color": "red", "material": "metal", "shape": "cube"},
        {"x": 0.7, "y": 0.6, "size": "small", "color": "blue", "material": "rubber", "shape": "sphere"},
    ],
    "text": [{"text": "green cube"}, {"text": "blue sphere"}],
    "text-composed": [{"text": "green cube"}, {"text": "blue sphere"}],
}


def first_scene(form: Form, model: str = "") -> Draft:
    """A scene to begin with.

    >>> [item.given["text"] for item in first_scene(Form("texts", {}, ("red cube", "red ball", "a blue ball"))).items]
    ['red cube', 'a blue ball']
    """
    given = CHOSEN[model] if model in CHOSEN else _of_form(form)
    return Draft(tuple(Item(one, form.weight) for one in given))


def _of_form(form: Form) -> list[dict[str, Any]]:
    if form.kind == "places":
        objects: list[dict[str, Any]] = [{"x": 0.3, "y": 0.45}, {"x": 0.7, "y": 0.6}]
        for name, words in form.attributes.items():
            objects[0][name] = words[:2][-1]
            objects[1][name] = words[-1]
        return objects
    if form.kind == "labels":
        return [{"attribute": name, "value": words[-1]} for name, words in list(form.attributes.items())[:2]]
    first, others = form.suggestions[:1], form.suggestions[1:]
    apart = [text for text in others if not {*text.split()} & {*first[0].split()}]  # no word in common
    return [{"text": text} for text in (*first, *(apart or others)[:1])]
