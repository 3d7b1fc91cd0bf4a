"""Models: what there is, what each draws and does, and the tab that does it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import gradio as gr

from energycomp.errors import EnergycompError
from energycomp.images import data_url
from energycomp.plugins import names
from energycomp_studio.drawing import draw_scene
from energycomp_studio.first import first_scene
from energycomp_studio.forms import form_of
from energycomp_studio.library import Library, abilities
from energycomp_studio.pairs import draw_examples
from energycomp_studio.parts import FREE, element, session_of
from energycomp_studio.settings import Settings
from energycomp_studio.worker import Done, Worker

TABS = {"sample": "compose", "read": "read", "decompose": "decompose"}
SIDE = 128  # px, the shorter side of a picture


def card(library: Library, name: str) -> dict[str, Any]:
    """What the page says of a model, as JSON data; a model that cannot be loaded says why."""
    try:
        model = library.model(name)
    except EnergycompError as error:
        return {"name": name, "about": str(error), "able": "", "tabs": []}
    able = abilities(model)
    about = form_of(model).component if "sample" in able else "a part of an image, found without labels"
    tabs = [tab for what, tab in TABS.items() if what in able]
    return {"name": name, "about": f"A component is {about}.", "able": ", ".join(able), "tabs": tabs}


def _draw(library: Library, name: str, _: Any) -> str:
    """A preview of a model's first scene, or an image that it decomposes, as a data URL; "" where there is neither."""
    model = library.model(name)
    if "sample" in abilities(model):
        image = draw_scene(first_scene(form_of(model), name), model, Settings(), draft=True)
    elif name in names("datasets"):
        image = draw_examples(name, Settings())[0]
    else:
        return ""
    return data_url(model.shown(image, side=SIDE))


@attrs.frozen
class _Models:
    library: Library
    worker: Worker
    pictures: dict[str, str] = attrs.field(factory=dict)

    def survey(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """The cards, and the models that the other tabs offer; then the pictures, one after another."""
        cards = [card(self.library, name) for name in self.library.names]
        offered = (gr.update(choices=self.library.able(ability)) for ability in ("read", "decompose"))
        yield gr.update(cards=cards, pictures=json.dumps(self.pictures)), *offered
        for name in [one["name"] for one in cards if one["tabs"] and one["name"] not in self.pictures]:
            what = f"drawing a picture of {name}"
            for event in self.worker.run(session_of(request), partial(_draw, self.library, name), what):
                if isinstance(event, Done):
                    self.pictures[name] = event.result
                    yield gr.update(pictures=json.dumps(self.pictures)), gr.skip(), gr.skip()


def models_tab(
    library: Library,
    worker: Worker,
    tabs: gr.Tabs,
    opens: Callable[..., None],
    reads: gr.Dropdown,
    decomposes: gr.Dropdown,
) -> None:
    """Makes the components of the tab; `opens` opens a model in the tab Compose, the fields are of other tabs."""
    own = _Models(library, worker)
    listed = element("models", "models-list", cards=[], pictures="{}")
    listed.survey(own.survey, None, [listed, reads, decomposes], **FREE)
    for name, event, field in (("read", listed.read, reads), ("decompose", listed.decompose, decomposes)):
        event(lambda model, name=name: (gr.Tabs(selected=name), model), [listed], [tabs, field], **FREE)
    listed.compose(lambda: gr.Tabs(selected="compose"), None, [tabs], **FREE)
    opens(listed.compose, listed)
