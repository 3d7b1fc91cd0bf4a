"""Compose: a scene of components, its image, and the lines that make the same image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import gradio as gr
import torch
from PIL import Image

from energycomp import Composer
from energycomp.decomposition import sampler_of
from energycomp.errors import EnergycompError, InputError
from energycomp.images import data_url
from energycomp.models import Model
from energycomp.plugins import names
from energycomp_studio.forms import Form, form_of
from energycomp_studio.library import Library
from energycomp_studio.lines import python_lines, shell_line
from energycomp_studio.parts import FREE, NETWORK, QUIET, code, editor, followed, session_of, stopper
from energycomp_studio.pictures import enlarged
from energycomp_studio.scene import Item, Scene, Settings, component, scene_of
from energycomp_studio.worker import Running, Worker

DRAFT = 5  # steps while an object is dragged
STEPS = 20  # steps of a model whose components are places; any other model takes its own number
PLAIN = "scheduler of the model"
# Deterministic: an image of few steps, while an object is dragged, shows what that of many steps will show.
SMOOTH = "DDIMScheduler"
SCHEDULERS = (SMOOTH, "DPMSolverMultistepScheduler")


def sampled(
    scene: Scene, model: Model, settings: Settings, report: Callable[[Any], None], *, draft: bool = False
) -> Image.Image:
    """The image of a scene; reports each step. A draft is without the guidance of attributes, which costs more."""

    def step(number: int, *_: Any) -> None:
        report(f"step {number + 1} of {settings.steps}")

    without_guidance: dict[str, Any] = {"guidance": "attributes", "guidance_scale": 1.0} if draft else {}
    return Composer(component(scene, model)).sample(
        generator=torch.Generator().manual_seed(settings.seed),
        num_inference_steps=settings.steps,
        scheduler=settings.scheduler,
        sampler=settings.sampler,
        callback_on_step_end=step,
        progress=False,
        **without_guidance,
    )[0]


def settings_of(seed: Any, steps: Any, method: str) -> Settings:
    """Settings of what is chosen on the page, where one field lists schedulers and samplers."""
    if method == PLAIN:
        return Settings(seed, steps)
    return Settings(seed, steps, scheduler=method) if method in SCHEDULERS else Settings(seed, steps, method)


def first_scene(form: Form) -> Scene:
    """A scene to begin with.

    >>> [item.given for item in first_scene(Form("places", {"color": ("gray", "red")})).items]
    [{'x': 0.3, 'y': 0.45, 'color': 'red'}, {'x': 0.7, 'y': 0.6, 'color': 'gray'}]
    """
    if form.kind == "places":
        words = [{name: given[-1] for name, given in form.attributes.items()}, {}]
        if form.attributes:
            name, given = list(form.attributes.items())[-1]
            words[0] = {name: given[min(1, len(given) - 1)] for name, given in form.attributes.items()}
            words[1] = {name: given[0]}
        places = [{"x": 0.3, "y": 0.45}, {"x": 0.7, "y": 0.6}]
        return Scene(tuple(Item({**place, **word}, form.weight) for place, word in zip(places, words, strict=True)))
    if form.kind == "labels":
        first = list(form.attributes.items())[:2]
        return Scene(tuple(Item({"attribute": name, "value": words[-1]}, form.weight) for name, words in first))
    return Scene(tuple(Item({"text": text}, form.weight) for text in form.suggestions[:2]))


@attrs.frozen
class _Compose:
    """What happens in the tab."""

    library: Library
    worker: Worker

    def open(self, name: str, request: gr.Request) -> Iterator[Any]:
        """Loads a model, and shows its form and a first scene."""
        blank = {"value": {"items": [], "final": True}, "picture": ""}

        def task(_: Any) -> tuple[Model, Form]:
            model = self.library.model(name)
            if sampler_of(model) is not None or model.decomposer_name is not None:
                raise InputError(f"{name} generates or decomposes whole images; use the tab Decompose")
            return model, form_of(model)

        def done(found: tuple[Model, Form], _: float) -> Any:
            model, form = found
            update = gr.update(form=form.as_json(), value={**first_scene(form).as_json(), "final": True}, status="")
            if form.kind == "places":
                return update, gr.update(value=STEPS), gr.update(value=SMOOTH)
            return update, gr.update(value=model.defaults.num_inference_steps), gr.update(value=PLAIN)

        same = (gr.skip(),) * 2
        yield gr.update(status=f"loading {name} ...", **blank), *same
        yield from followed(
            self.worker, session_of(request), task, done=done,
            running=lambda event: (gr.update(status=f"loading {name}, {event.seconds:.0f} s"), *same),
            failed=lambda message: (gr.update(status=message), *same),
        )  # fmt: skip

    def draw(
        self, value: Any, name: str, seed: Any, steps: Any, sampler: str, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """The image and the lines of a scene; fewer steps while something is dragged."""
        final, same = bool((value or {}).get("final", True)), (gr.skip(),) * 3
        if not self.library.is_loaded(name):  # until its form is shown
            yield gr.skip(), *same
            return
        try:
            scene, model = scene_of(value), self.library.model(name)
            settings = settings_of(seed, steps, sampler)
            chosen = settings if final else attrs.evolve(settings, steps=min(DRAFT, settings.steps))
            lines = self._lines(scene, model, name, settings) if final else same
        except EnergycompError as error:
            yield gr.update(status=str(error)), *same
            return

        def done(image: Image.Image, seconds: float) -> tuple[Any, ...]:
            drawn = f"{chosen.steps} steps in {seconds:.1f} s"
            return gr.update(picture=data_url(enlarged(image) if final else image), status=drawn), *lines

        def running(event: Running) -> tuple[Any, ...] | None:
            if event.seconds < 0.4 or not final:
                return None
            return gr.update(status=f"{event.reported or 'drawing'}, {event.seconds:.0f} s"), *same

        yield from followed(
            self.worker, session_of(request), lambda report: sampled(scene, model, chosen, report, draft=not final),
            running=running, done=done, failed=lambda message: (gr.update(status=message), *same),
        )  # fmt: skip

    def _lines(self, scene: Scene, model: Model, name: str, settings: Settings) -> tuple[str, str, str]:
        formula = repr(component(scene, model))
        return formula, python_lines(scene, model, name, settings), shell_line(scene, model, name, settings)


def compose_tab(blocks: gr.Blocks, library: Library, worker: Worker, *, prefix: str, choose: bool) -> None:
    """The components of the tab.

    Args:
        prefix: of the ids of its components.
        choose: whether any registered model can be chosen; else it is the first one.
    """
    own = _Compose(library, worker)
    offered = [name for name in library.names if name != library.first] if choose else [library.first]
    start = next(iter(offered), library.first)
    model = gr.Dropdown(
        offered, value=None if choose else start, label="Model", visible=choose, elem_id=f"{prefix}-model",
        info="Each model has the form that follows from its conditioner.",
    )  # fmt: skip
    scene = editor(f"{prefix}-scene")
    with gr.Row(elem_id=f"{prefix}-settings"):
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, min_width=110, elem_id=f"{prefix}-seed")
        steps = gr.Slider(1, 200, value=STEPS, step=1, label="Steps", min_width=160, elem_id=f"{prefix}-steps")
        sampler = gr.Dropdown(
            [*SCHEDULERS, PLAIN, *(name for name in names("samplers") if name != "scheduler")],
            value=SMOOTH, label="Sampler", min_width=180, elem_id=f"{prefix}-sampler",
        )  # fmt: skip
        stop = gr.Button("Stop", min_width=80, elem_id=f"{prefix}-stop")
    with gr.Accordion("The same image in code", open=True, elem_id=f"{prefix}-code"):
        formula = code("Formula")
        python = code("Python", "python")
        shell = code("Shell", "shell")
    inputs, outputs = [scene, model, seed, steps, sampler], [scene, formula, python, shell]
    drawing: dict[str, Any] = {"fn": own.draw, "inputs": inputs, "outputs": outputs, **QUIET, **NETWORK}
    gr.on([scene.edit, seed.change, steps.input, sampler.input], **drawing)
    shown = [scene, steps, sampler]
    opening: dict[str, Any] = {"fn": own.open, "inputs": [model], "outputs": shown, **QUIET, **NETWORK}
    opened = model.input(**opening) if choose else blocks.load(**opening)
    opened.then(**drawing)
    stop.click(stopper(worker), None, None, **FREE)
