"""Models: what there is, what each does, and the tab that does it."""

from __future__ import annotations

import html
from collections.abc import Callable

import gradio as gr

from energycomp.errors import EnergycompError
from energycomp_studio.forms import form_of
from energycomp_studio.library import Library, abilities
from energycomp_studio.parts import FREE, static

TABS = {"sample": "compose", "read": "read", "decompose": "decompose"}
HEAD = "<tr><th>model</th><th>a component is</th><th>it can</th><th>open it in</th></tr>"


def row(library: Library, name: str) -> str:
    """A model as a row of the table, in HTML; a model that cannot be loaded says why."""
    shown = html.escape(name)
    try:
        model = library.model(name)
    except EnergycompError as error:
        return f"<tr><td>{shown}</td><td colspan='3'>{html.escape(str(error))}</td></tr>"
    able, button = abilities(model), f"<button type='button' data-model='{shown}' data-tab="
    buttons = "".join(f"{button}'{tab}'>{tab.capitalize()}</button>" for what, tab in TABS.items() if what in able)
    component = form_of(model).component if "sample" in able else "a part of an image, found without labels"
    cells = f"<td><b>{shown}</b></td><td>{html.escape(component)}</td><td>{', '.join(able)}</td><td>{buttons}</td>"
    return f"<tr>{cells}</tr>"


def models_tab(
    library: Library,
    tabs: gr.Tabs,
    opens: Callable[..., None],
    reads: gr.Dropdown,
    decomposes: gr.Dropdown,
) -> None:
    """The components of the tab.

    Args:
        tabs: all of them.
        opens: opens a model in the tab Compose.
        reads, decomposes: the fields of the model of the other tabs.
    """
    listed = gr.HTML(
        value="",
        html_template="<div class='studio-models'></div>",
        js_on_load=static("models.js"),
        table="loading the models ...",
        elem_id="models-list",
        apply_default_css=False,
    )

    def survey() -> tuple[object, ...]:
        """The table, and the models that the other tabs offer."""
        rows = "".join(row(library, name) for name in library.names)
        table = f"<table class='answer'><thead>{HEAD}</thead><tbody>{rows}</tbody></table>"
        offered = (gr.update(choices=library.able(ability)) for ability in ("read", "decompose"))
        return gr.update(table=table), *offered

    listed.survey(survey, None, [listed, reads, decomposes], **FREE)
    for name, event, field in (("read", listed.read, reads), ("decompose", listed.decompose, decomposes)):
        event(lambda model, name=name: (gr.Tabs(selected=name), model), [listed], [tabs, field], **FREE)
    listed.compose(lambda: gr.Tabs(selected="compose"), None, [tabs], **FREE)
    opens(listed.compose, listed)
