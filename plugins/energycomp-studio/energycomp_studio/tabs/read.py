"""Read: an image in, its objects as a scene out; the scene is edited, and the image repainted."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import gradio as gr

from energycomp.errors import EnergycompError, OutOfDistributionError
from energycomp.images import data_url, heat
from energycomp.inference import check_known, check_trusted
from energycomp.models import Model
from energycomp_scenes import answer, belief
from energycomp_studio.drawing import draw_scene
from energycomp_studio.first import first_scene
from energycomp_studio.forms import form_of
from energycomp_studio.kept import FORGOTTEN, Kept
from energycomp_studio.library import Library
from energycomp_studio.parts import (
    FREE,
    NETWORK,
    OF_PAGE,
    QUIET,
    busy,
    chooser,
    code,
    editor,
    follow,
    idle,
    model_and_seed,
    note,
    session_of,
    show_finally,
)
from energycomp_studio.pictures import SIDE, decode_upload
from energycomp_studio.repainting import repaint_changes, settings_of
from energycomp_studio.scene import changes, scene_of
from energycomp_studio.settings import Settings
from energycomp_studio.snippets import edit_python, edit_shell
from energycomp_studio.staged import (
    Reading,
    Stage,
    describe_answer,
    describe_values,
    how_sure,
    notes,
    questions,
    read,
    scene_read,
    write_warning,
)
from energycomp_studio.worker import Running, Worker

STAGES = {
    "guess": "a first guess: {} objects; looking closer",
    "places": "{} places; reading more",
    "attributes": "{} objects",
}
NOTHING: dict[str, Any] = {"items": [], "final": True}  # a scene without objects
QUESTION = "how many cubes are there?"
EXAMPLES = 3  # questions
KEPT = 8  # images that "Undo" goes back to


def maps(stage: Stage, aspect: float) -> str:
    """Writes the maps of a search as images in HTML, as wide for their height, `aspect`, as the image that is read."""
    names = ["the first object", *(f"after {k}" for k in range(1, len(stage.values)))]
    figures = "".join(
        f"<figure><img src='{data_url(heat(one))}' style='aspect-ratio: {aspect:g}' "
        f"alt='map of the search, {html.escape(name)}'>"
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for one, name in zip(stage.values, names, strict=True)
    )
    return f"<p>Where one more object lowers the error (yellow: most):</p><div class='studio-maps'>{figures}</div>"


@attrs.frozen(eq=False)
class _Progress:
    """How far a reading is: in words, as props of the editor, and as the maps of the search in HTML."""

    words: str = ""
    props: dict[str, Any] = attrs.field(factory=dict)
    search: str | None = None


def _show_stage(stage: Stage, model: Model) -> _Progress:
    if stage.kind == "maps":
        return _Progress(search=maps(stage, Settings().aspect(model)))
    scene = scene_read(describe_values(stage.values, model))
    return _Progress(STAGES[stage.kind].format(len(scene.items)), {"value": {**scene.as_json(), "final": True}})


@attrs.frozen
class _Read:
    """What happens in the tab. The state of a browser tab is the list of its readings, the last one shown."""

    library: Library
    worker: Worker
    kept: Kept[tuple[str, list[Reading]]] = attrs.field(factory=Kept)  # of each browser tab: its model, its readings

    def take(self, url: Any, name: str, seed: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Reads an image that was dropped."""
        try:
            picture = decode_upload(url)
        except EnergycompError as error:
            yield gr.update(picture="", found=[], value=NOTHING, **idle(str(error))), "", "", [], None, gr.skip()
            return
        yield from self._read(lambda model, report: picture, name, seed, request)  # noqa: ARG005

    def example(self, name: str, seed: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Reads a scene that the model itself draws."""

        def draw(model: Model, _: Callable[[Any], None]) -> Any:
            drawn = draw_scene(first_scene(form_of(model), name), model, Settings(seed))
            return model.shown(drawn, side=SIDE)

        yield from self._read(draw, name, seed, request)

    def _read(
        self, picture: Callable[..., Any], name: str, seed: Any, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        def task(report: Callable[[Any], None]) -> tuple[Model, Reading | OutOfDistributionError]:
            report(f"loading {name}")
            model = self.library.model(name)
            image = picture(model, report)
            url = data_url(model.shown(image, side=SIDE))
            report(_Progress("looking for objects", {"picture": url, "form": form_of(model).as_json(), "found": []}))
            try:
                check_known(image, model)
                reading = read(image, model, lambda stage: report(_show_stage(stage, model)), seed=Settings(seed).seed)
                check_trusted(reading.solution, model)
            except OutOfDistributionError as error:
                return model, error
            return model, reading

        stage = ["reading"]  # what is going on, in words

        def running(event: Running) -> tuple[Any, ...]:
            return self._progress(event, stage)

        def done(found: tuple[Model, Reading | OutOfDistributionError], seconds: float) -> tuple[Any, ...]:
            model, reading = found
            if isinstance(reading, OutOfDistributionError):  # the image and the reason, no objects
                refused = gr.update(value=NOTHING, found=[], **idle(f"not read by {name}")), write_warning(str(reading))
                return gr.skip(), gr.skip(), "", [], refused
            shown = self._show(
                reading, model, f"{reading.solution.count} found in {seconds:.0f} s{how_sure(reading.solution)}"
            )
            return *(gr.skip(),) * 3, [reading], shown

        yield gr.update(value=NOTHING, status="reading"), "", "", [], None, gr.skip()
        yield from follow(
            self.worker, session_of(request), "reading an image", task, running=running, done=done,
            failed=lambda message: (gr.update(**idle(message)), *(gr.skip(),) * 3, None),
        )  # fmt: skip

    def _progress(self, event: Running, stage: list[str]) -> tuple[Any, ...]:
        """Makes the update for what a task reported; `stage` keeps its words."""
        what = _Progress(event.reported) if isinstance(event.reported, str) else event.reported
        if not isinstance(what, _Progress):  # a step of a loop, or a sign of life
            what = _Progress()
        stage[:] = [what.words or stage[0]]
        search = gr.skip() if what.search is None else what.search
        return gr.update(**what.props, **busy(event, stage[0])), gr.skip(), search, gr.skip(), None

    def _show(self, reading: Reading, model: Model, status: str) -> tuple[Any, str]:
        """The editor, and the reasons not to trust the answer."""
        scene = {**scene_read(reading.described).as_json(), "final": True}
        picture = data_url(model.shown(reading.picture, side=SIDE))
        form = form_of(model).as_json()
        found = describe_answer(reading, model)
        return gr.update(value=scene, form=form, picture=picture, found=found, **idle(status)), notes(reading.solution)

    def lines(self, scene: Any, name: str, seed: Any, history: list[Reading]) -> tuple[str, str, Any]:
        """The lines that make the changes; the button that makes them stands out where there are some."""
        plain = gr.update(variant="secondary")
        if not history or not self.library.is_loaded(name):
            return "", "", plain
        try:
            model = self.library.model(name)
            settings = settings_of(model, seed)
            found = changes(history[-1].described, scene_of(scene))
            if not found:
                return "", f"energycomp infer {name} scene.png -o read", plain
            lines = edit_python(found, model, name, settings), edit_shell(found, model, name, settings)
            return *lines, gr.update(variant="primary")
        except EnergycompError as error:
            return "", f"# {error}", plain

    def repaint(
        self, scene: Any, name: str, seed: Any, history: list[Reading], request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Repaints what was changed."""
        if not history:
            yield gr.update(**idle("got no image; drop one first")), gr.skip(), None, gr.skip()
            return

        def task(_: Any) -> tuple[Model, Reading]:
            model = self.library.model(name)
            return model, repaint_changes(history[-1], scene_of(scene), model, settings_of(model, seed))

        def done(found: tuple[Model, Reading], seconds: float) -> tuple[Any, ...]:
            model, reading = found
            shown = self._show(reading, model, f"repainted in {seconds:.0f} s")
            return gr.skip(), [*history, reading][-KEPT:], shown

        def running(event: Running) -> tuple[Any, ...]:
            return gr.update(**busy(event, "repainting")), gr.skip(), None

        yield from follow(
            self.worker, session_of(request), "repainting", task, done=done, running=running,
            failed=lambda message: (gr.update(**idle(message)), gr.skip(), None),
        )  # fmt: skip

    def ask(self, question: str, history: list[Reading]) -> str:
        """The answer to a question about the image, in HTML; it costs no network evaluation."""
        if not history:
            return note("Read an image first.")
        try:
            known = belief(history[-1].solution)
        except EnergycompError:
            return note("Only what clevr and clevr-small read takes questions.")
        try:
            return f"<p class='studio-answer' role='status'>{html.escape(str(answer(question, known)))}</p>"
        except EnergycompError:
            return note(f"Not understood. Ask, for example: {QUESTION}")

    def examples(self, history: list[Reading]) -> list[Any]:
        """The field of a question, where the image takes any, and the buttons of some."""
        asked = questions(history[-1]) if history else []
        shown = [gr.update(value=one, visible=True) for one in asked]
        hidden = [gr.update(visible=False)] * (EXAMPLES - len(shown))
        return [gr.update(visible=bool(asked)), *shown, *hidden]

    def keep(self, key: str, name: str, history: list[Reading]) -> None:
        """Keeps the readings for `again`."""
        if history:
            self.kept.put(key, (name, history))

    def again(self, key: str) -> tuple[Any, ...]:
        """What a browser tab had read before the page was loaded again."""
        if (kept := self.kept.get(key)) is None:
            return (gr.skip(),) * 4
        name, history = kept
        return *self._show(history[-1], self.library.model(name), "as it was"), history, name

    def undo(self, name: str, history: list[Reading]) -> tuple[Any, ...]:
        """Shows the image before the last change, or the objects as they were read."""
        if not history:
            return (gr.skip(),) * 3
        left = history[:-1] or history
        return *self._show(left[-1], self.library.model(name), "as it was"), left


def read_tab(library: Library, worker: Worker, stop: gr.Button) -> gr.Dropdown:
    """The components of the tab; returns that of its model."""
    own = _Read(library, worker)
    history = gr.State([], time_to_live=FORGOTTEN)
    result = gr.State(None, time_to_live=FORGOTTEN)
    key = gr.Textbox("", visible=False)
    with gr.Row(elem_classes="studio-bar"):
        picture = chooser("read-picture", "Drop an image here, or choose one (10 MB at most)", over="read-scene")
        example = gr.Button("Read an example", size="md", min_width=210, scale=0, elem_id="read-example")
    said_of = gr.HTML("", elem_id="read-notes")
    scene = editor("read-scene", editing=True)
    with gr.Row(elem_classes="studio-actions studio-later"):
        paint = gr.Button("Repaint the changes", size="md", min_width=210, scale=0, elem_id="read-repaint")
        undo = gr.Button("Undo", size="md", min_width=80, scale=0, elem_id="read-undo")
    with gr.Column(elem_classes="studio-later"):
        question = gr.Textbox(
            label="Ask about the objects", placeholder=QUESTION, max_lines=1, elem_id="read-ask", visible=False
        )
        with gr.Row(elem_classes="studio-actions"):
            asks = [gr.Button("", size="sm", min_width=80, scale=0, visible=False) for _ in range(EXAMPLES)]
        said = gr.HTML("", elem_id="read-answer")
    model, seed = model_and_seed("read", library.names, library.first)
    with gr.Accordion("The search", open=False, elem_id="read-search", elem_classes="studio-later"):
        searched = gr.HTML("", elem_id="read-maps")
    with gr.Accordion("The same changes in code", open=False, elem_id="read-code", elem_classes="studio-later"):
        python, shell = code("Python", "python"), code("Shell", "shell")
    seen = [scene, said_of]
    shown = [*seen, searched, history, result, stop]
    once: dict[str, Any] = {**QUIET, "trigger_mode": "once"}
    for event, task, inputs in (
        (picture.taken, own.take, [picture, model, seed]),
        (example.click, own.example, [model, seed]),
    ):
        show_finally(event(task, inputs, shown, **once, **NETWORK), result, seen)
    painted = paint.click(own.repaint, [scene, model, seed, history], [scene, history, result, stop], **once, **NETWORK)
    show_finally(painted, result, seen)
    question.submit(own.ask, [question, history], said, **FREE)
    for ask in asks:
        ask.click(lambda asked: asked, [ask], [question], **FREE).then(own.ask, [question, history], said, **FREE)
    undo.click(own.undo, [model, history], [*seen, history], **FREE)
    gr.on(
        [scene.edit, history.change, seed.input],
        own.lines, [scene, model, seed, history], [python, shell, paint], **FREE, trigger_mode="always_last",
    )  # fmt: skip
    history.change(own.examples, [history], [question, *asks], **FREE)
    history.change(own.keep, [key, model, history], None, js=OF_PAGE, **FREE)
    scene.opened(own.again, [key], [*seen, history, model], js=OF_PAGE, **FREE)
    return model
