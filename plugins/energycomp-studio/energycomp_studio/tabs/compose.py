"""Compose: a scene of components, its image, and the lines that make the same image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import attrs
import gradio as gr
from PIL import Image

from energycomp.components import ability
from energycomp.decomposition import takes_apart
from energycomp.errors import EnergycompError, InputError
from energycomp.images import data_url, decode_formula
from energycomp.models import Model
from energycomp_studio.drawing import PLAIN, draw_scene, frame_image, methods, read_address, settings_of
from energycomp_studio.first import first_scene
from energycomp_studio.forms import Form, form_of
from energycomp_studio.formulas import formula_of_scene, model_in, scene_in
from energycomp_studio.library import Library
from energycomp_studio.parts import FREE, NETWORK, QUIET, busy, chooser, code, editor, follow, idle, session_of
from energycomp_studio.pictures import content_of
from energycomp_studio.scene import OR, Draft, beyond, compose_scene, in_words, scene_of
from energycomp_studio.settings import Settings
from energycomp_studio.snippets import python_lines, shell_line
from energycomp_studio.worker import Running, Worker

# The address keeps the scene, see `static/address.js`.
REMEMBER = """(scene, model, seed, steps, sampler, canvas) => {
    if (scene.final) studioAddress.keep({ model, items: scene.items, seed, steps, sampler, canvas });
    return [scene, model, seed, steps, sampler, canvas];
}"""
RECALL = "(model, kept) => [model, studioAddress.start()]"


@attrs.define(eq=False)
class _Drawing:
    """A drawing: the number of its scene, if it is at rest, and once, when it has ended, what it shows."""

    number: int | None
    updates: tuple[Any, ...] | None = None


@attrs.frozen
class _Compose:
    library: Library
    worker: Worker
    newest: dict[str, int] = attrs.field(factory=dict)  # the number of the newest scene of each browser tab
    last: dict[str, _Drawing] = attrs.field(factory=dict)
    opened: dict[str, Callable[..., Iterator[Any]]] = attrs.field(factory=dict)  # draws a browser tab's new scene

    def open(self, name: str, address: str, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Loads a model, and shows its form and a first scene, or those that are in the address."""
        kept = read_address(address, self.library.names) or {}
        name = kept.get("model", name)
        blank = {"value": {"items": [], "final": True}, "picture": "", "status": f"loading {name} ..."}
        yield gr.update(**blank), *(gr.skip(),) * 7
        yield from self._open(name, lambda _: kept, lambda message: message, request)

    def take(self, url: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Shows the scene of an image that says how it was made. Of another one, the chooser says why not."""
        same = (gr.skip(),) * 8
        yield gr.update(error=""), *same
        try:
            formula = decode_formula(content_of(url), "the file")
            name = model_in(formula, self.library.names)
        except EnergycompError as error:
            yield gr.update(error=str(error)), *same
            return
        refused = list[str]()

        def kept(model: Model) -> Mapping[str, Any]:
            scene, settings, sampler = scene_in(formula, model)
            method = PLAIN if sampler in (None, OR) else sampler
            if method not in methods():
                raise InputError(f"got an image of the sampler {sampler!r}; expected one of {', '.join(methods())}")
            chosen = {"seed": settings.seed, "steps": settings.steps, "canvas": settings.canvas}
            return {**chosen, "scene": scene, "sampler": method}

        def failed(message: str) -> str:
            refused.append(message)
            return ""

        for updates in self._open(name, kept, failed, request):
            yield gr.update(error=refused[0]) if refused else gr.skip(), *updates

    def _open(
        self,
        name: str,
        restored: Callable[[Model], Mapping[str, Any]],
        failed: Callable[[str], str],
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Loads a model, and shows its form, and what `restored` gives, or what `failed` makes of an error."""
        session = session_of(request)
        same = (gr.skip(),) * 6
        self.newest.pop(session, None)
        self.opened.pop(session, None)

        def task(_: Any) -> tuple[Model, Form, Mapping[str, Any]]:
            model = self.library.model(name)
            if takes_apart(model):
                raise InputError(f"got {name}, which decomposes images; use the tab Decompose, or choose another model")
            return model, form_of(model), restored(model)

        def done(found: tuple[Model, Form, Mapping[str, Any]], _: float) -> tuple[Any, ...]:
            model, form, kept = found
            scene = {**kept.get("scene", first_scene(form, name)).as_json(), "final": True, "first": True}
            update = gr.update(form=form.as_json(), value=scene, aspect=Settings().aspect(model), **idle(""))
            seed, steps = kept.get("seed", 0), kept.get("steps")
            sampler, canvas = kept.get("sampler", PLAIN), kept.get("canvas")
            self.opened[session] = partial(self.draw, scene, name, seed, steps, sampler, canvas)
            steps = gr.update(value=steps, placeholder=f"{model.defaults.num_inference_steps}: {PLAIN}")
            about = f"Model **{name}**: {model.facts()['samples']}; a component is {form.component}"
            canvas = gr.update(value=canvas, visible=ability(model.conditioner, "widened") is not None)
            return update, about, name, seed, steps, sampler, canvas

        yield from follow(
            self.worker, session, f"loading {name}", task, done=done,
            running=lambda event: (gr.update(**busy(event, f"loading {name}")), *same),
            failed=lambda message: (gr.update(**idle(failed(message))), *same),
        )  # fmt: skip

    def draw_opened(self, request: gr.Request, *_: Any) -> Iterator[tuple[Any, ...]]:
        """Draws the scene that was opened, whatever the page sent before it showed that; nothing, where none was."""
        if draw := self.opened.pop(session_of(request), None):
            yield from draw(request)
        else:
            yield (gr.skip(),) * 6

    def draw(
        self, value: Any, name: str, seed: Any, steps: Any, method: str, canvas: str | None, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """The image and the lines of a scene; fewer steps while something is dragged, and first of all."""
        value = value or {}
        session = session_of(request)
        same = (gr.skip(),) * 5
        final = bool(value.get("final", True))
        self.last[session] = drawing = _Drawing(value.get("number", 0) if final else None)
        is_old = partial(self._is_old, session, drawing)
        if not self.library.is_loaded(name):  # until its form is shown
            yield *same, gr.skip()
            return
        try:
            scene = scene_of(value)
            model = self.library.model(name)
            # An empty field is None, or 0 on a page that was opened while another one drew.
            settings = settings_of(seed, steps or None, method, scene, canvas)
            lines = self._lines(scene, model, name, settings) if final else same[1:]
        except EnergycompError as error:
            drawing.updates = gr.update(**idle(str(error))), *same[1:]
            yield *same, gr.skip()
            return

        yield same[0], *lines, gr.skip()  # what makes the image can be read while it is drawn

        def task(report: Callable[[Any], None]) -> Image.Image:
            if value.get("first"):
                report(draw_scene(scene, model, settings, draft=True))
            return draw_scene(scene, model, settings, draft=not final, is_old=is_old)

        def done(image: Image.Image, seconds: float) -> tuple[Any, ...]:
            count = settings.steps or model.defaults.num_inference_steps
            drawn = f"{f'{count} steps' if final else 'a preview'} in {seconds:.1f} s"
            said = f"{in_words(scene, model, settings)}{beyond(scene, model)}; {drawn}"
            url = data_url(image)
            if final:
                formula = formula_of_scene(scene, model, name, settings)
                url = data_url(frame_image(image, model, settings), formula=formula)
            drawing.updates = gr.update(picture=url, aspect=settings.aspect(model), **idle(said)), *lines
            return same

        def running(event: Running) -> tuple[Any, ...] | None:
            if isinstance(event.reported, Image.Image):
                url = data_url(event.reported)
                return gr.update(picture=url, aspect=settings.aspect(model)), *same[1:]
            return None if event.seconds < 0.4 else (gr.update(**busy(event, "drawing")), *same[1:])

        def failed(message: str) -> tuple[Any, ...]:
            drawing.updates = gr.update(**idle(message)), *same[1:]
            return same

        yield from follow(self.worker, session, "drawing", task, running=running, done=done, failed=failed)

    def show(self, request: gr.Request) -> tuple[Any, ...]:
        """What the last drawing ended with, once, unless it goes on or is of an older scene."""
        session = session_of(request)
        updates = None
        if (drawing := self.last.get(session)) and not self._is_old(session, drawing):
            updates = drawing.updates
            drawing.updates = None
        return updates or (gr.skip(),) * 5

    def renew(self, value: Any, request: gr.Request) -> None:
        """Notes the number of the newest scene; what is drawn of an older one stops at its next step."""
        if isinstance(value, dict) and type(value.get("number")) is int:
            self.newest[session_of(request)] = value["number"]

    def _is_old(self, session: str, drawing: _Drawing) -> bool:
        """Whether a newer drawing was asked for, or, at rest, a newer scene was sent."""
        is_older = type(drawing.number) is int and self.newest.get(session, 0) > drawing.number
        return is_older or self.last[session] is not drawing

    def _lines(self, scene: Draft, model: Model, name: str, settings: Settings) -> tuple[Any, ...]:
        python = python_lines(scene, model, name, settings)
        shell = shell_line(scene, model, name, settings)
        formula = f"{in_words(scene, model, settings)}: the formula"
        return python, shell, gr.update(label=formula), repr(compose_scene(scene, model, settings))


def compose_tab(blocks: gr.Blocks, library: Library, worker: Worker, stop: gr.Button) -> Callable[..., None]:
    """Makes the components of the tab; returns `opens(event, component)`, which opens the component's model."""
    own = _Compose(library, worker)
    model = gr.Textbox(library.first, visible=False)
    address = gr.Textbox("", visible=False)
    about = gr.Markdown(f"**{library.first}**", elem_id="compose-model")
    scene = editor("compose-scene")
    with gr.Row(elem_id="compose-settings", elem_classes="studio-later"):
        seed = gr.Number(0, label="Seed", precision=0, min_width=100, elem_id="compose-seed")
        steps = gr.Number(None, label="Steps", precision=0, min_width=160, elem_id="compose-steps")
        sampler = gr.Dropdown(methods(), value=PLAIN, label="Sampler", min_width=180, elem_id="compose-sampler")
        canvas = gr.Textbox(
            label="Canvas", placeholder="such as 384x128, then Enter", visible=False, min_width=160, max_lines=1,
            elem_id="compose-canvas",
        )  # fmt: skip
    text = "Open an image as a scene: one of the studio or of energycomp sample, dropped here or on the image"
    picture = chooser("compose-picture", text, over="compose-scene")
    with gr.Accordion("The same image in code", open=True, elem_id="compose-code", elem_classes="studio-later"):
        python, shell = code("Python", "python"), code("Shell", "shell")
    with gr.Accordion("The formula", open=False, elem_id="compose-formula", elem_classes="studio-later") as words:
        formula = code("Formula")
    inputs = [scene, model, seed, steps, sampler, canvas]
    outputs = [scene, python, shell, words, formula]
    drawing: dict[str, Any] = {"fn": own.draw, "inputs": inputs, "outputs": [*outputs, stop], **QUIET, **NETWORK}
    ending: dict[str, Any] = {"fn": own.show, "inputs": None, "outputs": outputs, **FREE}
    ending |= {"trigger_mode": "multiple"}
    scene.edit(own.renew, [scene], None, trigger_mode="multiple", **FREE)
    changed = [scene.edit, seed.input, steps.input, sampler.input, canvas.submit]
    gr.on(changed, **drawing, js=REMEMBER).then(**ending)
    opened = [scene, about, model, seed, steps, sampler, canvas, stop]
    drawing |= {"fn": own.draw_opened}
    blocks.load(own.open, [model, address], opened, js=RECALL, **QUIET, **NETWORK).then(**drawing).then(**ending)
    taken = picture.taken(own.take, [picture], [picture, *opened], **QUIET, **NETWORK)
    taken.then(**drawing, js=REMEMBER).then(**ending)

    def opens(event: Any, chosen: Any) -> None:
        event(own.open, [chosen, address], opened, **QUIET, **NETWORK).then(**drawing, js=REMEMBER).then(**ending)

    return opens
