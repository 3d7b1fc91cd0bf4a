"""Components of the page that several tabs share: the scene editor, the chooser of an image, tiles, and code."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import gradio as gr

from energycomp_studio.forms import Form
from energycomp_studio.pictures import MAX_UPLOAD
from energycomp_studio.worker import Done, Failed, Running, Worker

EMPTY = Form("texts").as_json()
NETWORK: dict[str, Any] = {"concurrency_id": "network", "concurrency_limit": 16}  # the worker runs one after another
# What needs no network does not wait. It is queued as well, since the server has no path past the queue.
FREE: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}
QUIET: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "api_visibility": "private"}
OF_PAGE = "(_, ...others) => [studioAddress.page(), ...others]"  # the first input is the name of the browser tab


def static(name: str) -> str:
    """The text of a file of the page."""
    return (files("energycomp_studio") / "static" / name).read_text(encoding="utf-8")


def element(kind: str, elem_id: str, value: Any = "", **props: Any) -> Any:
    """A part of the page that is written in `static`, as KIND.html and KIND.js."""
    files_of_kind: Any = {"html_template": static(f"{kind}.html"), "js_on_load": static(f"{kind}.js")}
    return gr.HTML(value=value, elem_id=elem_id, apply_default_css=False, **files_of_kind, **props)


def editor(elem_id: str, *, editing: bool = False) -> Any:
    """The scene editor. Its value is a scene in JSON; `editing` hides weights and logic."""
    props = {"form": EMPTY, "picture": "", "aspect": 0, "status": "", "progress": "none", "found": []}
    return element("editor", elem_id, {"items": [], "final": True}, editing=editing, **props)


def model_and_seed(tab: str, names: list[str], chosen: str) -> tuple[gr.Dropdown, gr.Number]:
    with gr.Row(elem_classes="studio-settings"):
        model = gr.Dropdown(names, value=chosen, label="Model", min_width=180, elem_id=f"{tab}-model")
        seed = gr.Number(0, label="Seed", precision=0, min_width=100, elem_id=f"{tab}-seed")
    return model, seed


def chooser(elem_id: str, text: str, over: str = "", also: str = "") -> Any:
    """A field that takes one image file; its value is a data URL, and "taken" its event. Its prop "error" is a message.

    Args:
        over: the id of an editor, on whose image files may be dropped, too.
        also: a media type that is offered beside those of images.
    """
    zones = [f"#{elem_id} .studio-drop", *([f"#{over} .studio-stage"] if over else [])]
    return element("chooser", elem_id, text=text, over=", ".join(zones), also=also, most=MAX_UPLOAD, error="")


def busy(event: Running, what: str) -> dict[str, Any]:
    """Props of an editor while a task runs: what goes on, and how much of it is done."""
    return {"status": event.told(what), "progress": "unknown" if event.share is None else event.share}


def idle(status: str) -> dict[str, Any]:
    """Props of an editor when no task runs."""
    return {"status": status, "progress": "none"}


def note(text: str, event: Running | None = None) -> str:
    """A line on what goes on, in HTML, with a bar of how much is done while a task runs."""
    line = f"<p class='studio-status' role='status'>{html.escape(text)}</p>"
    if event is None:
        return line
    value = "" if event.share is None else f" value='{event.share:.2f}'"
    return f"{line}<progress class='studio-progress' aria-label='{html.escape(text)}'{value}></progress>"


def code(label: str, language: Any = None) -> Any:
    look: dict[str, Any] = {"lines": 1, "wrap_lines": True, "show_line_numbers": False, "buttons": ["copy"]}
    return gr.Code(label=label, language=language, interactive=False, **look)


def session_of(request: gr.Request) -> str:
    """The name of a browser tab."""
    return str(request.session_hash)


def stopper(worker: Worker) -> Callable[..., None]:
    """What a button calls to stop the tasks of its browser tab."""

    def stop(request: gr.Request) -> None:
        worker.stop(session_of(request))

    return stop


def follow(
    worker: Worker,
    session: str,
    what: str,
    task: Callable[[Callable[[Any], None]], Any],
    *,
    running: Callable[[Running], tuple[Any, ...] | None],
    done: Callable[[Any, float], tuple[Any, ...]],
    failed: Callable[[str], tuple[Any, ...]],
) -> Iterator[tuple[Any, ...]]:
    """Yields the updates of the page while a task runs: those of `running` that are not None, then one of the others.

    The last of each is that of the button "Stop", which is there while the task named `what` runs. Gradio sends the
    last one again when the iterator has ended, after what the user did meanwhile: `show_finally` shows what a user
    can change.
    """
    for event in worker.run(session, task, what):
        if isinstance(event, Running):
            if (update := running(event)) is not None:
                yield *update, gr.update(visible=True)
        elif isinstance(event, Done):
            yield *done(event.result, event.seconds), gr.update(visible=False)
        elif isinstance(event, Failed):
            yield *failed(event.message), gr.update(visible=False)


def show_finally(event: Any, result: Any, outputs: list[Any]) -> None:
    """Shows the updates of `outputs` that a task leaves in the state `result`, once, when it has ended."""

    def shown(updates: tuple[Any, ...] | None) -> Any:
        updates = updates or (gr.skip(),) * len(outputs)
        return updates if len(outputs) > 1 else updates[0]

    event.then(shown, [result], outputs, trigger_mode="multiple", **FREE)
