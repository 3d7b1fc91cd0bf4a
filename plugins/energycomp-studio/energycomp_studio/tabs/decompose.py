"""Decompose and recombine: the parts of two images as tiles, and the image of those that are chosen."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import gradio as gr
import torch
from PIL import Image

from energycomp.decomposition import decomposer_of, recombine
from energycomp.errors import EnergycompError, InputError
from energycomp.images import data_url, to_output
from energycomp_studio.kept import Kept
from energycomp_studio.library import Library
from energycomp_studio.pairs import IMAGES, Pair, Parts, draw_examples, parts_of
from energycomp_studio.parts import (
    FREE,
    NETWORK,
    OF_PAGE,
    QUIET,
    chooser,
    code,
    element,
    follow,
    model_and_seed,
    note,
    session_of,
)
from energycomp_studio.pictures import SIDE, decode_upload
from energycomp_studio.settings import Settings
from energycomp_studio.worker import Running, Worker

PREFERRED = ("decomp", "lit", "slots")


def choice(value: Any, counts: list[int]) -> list[list[int]]:
    """Reads the numbers of the chosen parts of each image."""
    chosen = value.get("chosen") if isinstance(value, dict) else None
    fits = isinstance(chosen, list) and [len(one) if isinstance(one, list) else -1 for one in chosen] == counts
    if chosen is None or not fits:
        raise InputError("got a choice of other parts; expected those that are shown; decompose the images again")
    return [[k for k, taken in enumerate(one) if taken] for one in chosen]


def recombine_python(parts: list[list[int]], name: str, settings: Settings) -> str:
    """A script that makes the image."""
    images = ", ".join(f'"{file}"' for file in _files(len(parts)))
    return "\n".join([
        "import energycomp",
        "from energycomp.decomposition import decomposer_of, recombine",
        "from energycomp.images import to_output",
        "import torch",
        "",
        f'model = energycomp.load("{name}")',
        "decomposer = decomposer_of(model)",
        f"latents = recombine(list(decomposer.encode([{images}]).split(1)), {parts})",
        f"image = decomposer.decode(latents, generator=torch.Generator().manual_seed({settings.seed}))",
        f'model.shown(to_output(image, "pil")[0], side={SIDE}).save("recombined.png")',
    ])  # fmt: skip


def recombine_shell(parts: list[list[int]], name: str, settings: Settings) -> str:
    """Writes the command that makes the image."""
    words = ["energycomp", "recombine", name, *_files(len(parts))]
    for one in parts:
        words += ["--take", ",".join(map(str, one)) or "none"]
    return shlex.join([*words, "--seed", str(settings.seed), "-o", "recombined.png"])


def _files(count: int) -> list[str]:
    return [f"{letter}.png" for letter in "ab"[:count]]


@attrs.frozen
class _Decompose:
    library: Library
    worker: Worker
    pairs: Kept[Pair] = attrs.field(factory=Kept)  # of each browser tab

    def pair(self, key: str) -> Pair:
        """The images of a browser tab. Tasks that run at the same time change the same pair."""
        found = self.pairs.get(key) or Pair()
        self.pairs.put(key, found)
        return found

    def take(
        self, key: str, url: Any, name: str, seed: Any, place: int, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Decomposes an image that was dropped, as image number `place`."""
        yield from self._decompose(self.pair(key), lambda: [decode_upload(url)], [place], name, seed, request)

    def example(self, key: str, name: str, seed: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Decomposes two images that are drawn."""
        yield from self._decompose(
            self.pair(key), lambda: draw_examples(name, Settings(seed)), [*range(IMAGES)], name, seed, request
        )

    def _decompose(
        self,
        pair: Pair,
        pictures: Callable[[], list[Image.Image]],
        places: list[int],
        name: str,
        seed: Any,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        pair.made = ("", "", "")  # it was of other parts

        def say(text: str) -> str:
            for place in places:
                pair.said[place] = text
            return pair.told()

        def task(report: Callable[[Any], None]) -> list[Parts]:
            settings = Settings(seed)
            given = pictures()
            report(f"loading {name}")
            model = self.library.model(name)
            report("decomposing")
            return parts_of(given, model, name, settings)

        def done(found: list[Parts], seconds: float) -> tuple[Any, ...]:
            for place, one in zip(places, found, strict=True):
                pair.put(place, one)
            return gr.skip(), note(say(f"{len(found[0].parts)} parts in {seconds:.0f} s"))

        yield "", note(say("decomposing")), gr.skip()  # the image of other parts goes
        yield from follow(
            self.worker, session_of(request), f"decomposing image {' and '.join(str(k + 1) for k in places)}", task,
            running=lambda event: (gr.skip(), note(say(event.told("decomposing")), event)), done=done,
            failed=lambda message: (gr.skip(), note(say(message))),
        )  # fmt: skip

    def show(self, key: str) -> Any:
        """The tiles of all images, once a task has ended."""
        pair = self.pair(key)
        listed = pair.listed
        chosen = [[(k + j) % len(listed) == 0 for j in range(len(one.parts))] for k, one in enumerate(listed)]
        pair.chosen = {"chosen": chosen}
        return gr.update(tiles=[one.as_json() for one in listed], value=pair.chosen)

    def again(self, key: str) -> tuple[Any, ...]:
        """What a browser tab had decomposed and composed before the page was loaded again."""
        pair = self.pairs.get(key)
        if pair is None or not pair.listed:
            return (gr.skip(),) * 6
        tiled = gr.update(tiles=[one.as_json() for one in pair.listed], value=pair.chosen)
        result, *lines = pair.made
        return tiled, note("as it was"), pair.listed[0].model, result, *lines

    def mix(self, key: str, value: Any, name: str, seed: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """The image of the chosen parts, by the model that they are of."""
        pair = self.pair(key)
        listed = pair.listed
        same = (gr.skip(),) * 2
        name = listed[0].model if listed else name
        try:
            if not listed:
                raise InputError("got no parts; expected an image; drop one first, or decompose an example")
            parts = choice(value, [len(one.parts) for one in listed])
            settings = Settings(seed)
            pair.chosen = value
            lines = recombine_python(parts, name, settings), recombine_shell(parts, name, settings)
            if not any(parts):
                raise InputError("got no part; expected at least one; choose some tiles")
        except EnergycompError as error:
            yield gr.skip(), note(str(error)), *same, gr.skip()
            return

        def task(_: Any) -> str:
            latents = recombine([one.latents for one in listed], parts)
            generator = torch.Generator().manual_seed(settings.seed)
            model = self.library.model(name)
            made = decomposer_of(model).decode(latents, generator=generator)
            return data_url(model.shown(to_output(made, "pil")[0], side=SIDE))

        def running(event: Running) -> tuple[Any, ...]:
            return gr.skip(), note(event.told("composing"), event), *same

        def done(url: str, seconds: float) -> tuple[Any, ...]:
            download = f"<a class='studio-download' href='{url}' download='recombined.png'>Download</a>"
            figure = f"<img class='studio-result' src='{url}' alt='The image of the chosen parts'>{download}"
            pair.made = (figure, *lines)
            return pair.made[0], note(f"{sum(map(len, parts))} parts in {seconds:.1f} s"), *lines

        yield from follow(
            self.worker, session_of(request), "composing parts", task, running=running, done=done,
            failed=lambda message: (gr.skip(), note(message), *same),
        )  # fmt: skip


def decompose_tab(library: Library, worker: Worker, stop: gr.Button) -> gr.Dropdown:
    """The components of the tab; returns that of its model."""
    own = _Decompose(library, worker)
    start = next((name for name in PREFERRED if name in library.names), library.first)
    with gr.Row(elem_classes="studio-bar"):
        pictures = [chooser(f"parts-picture-{k + 1}", f"Image {k + 1}: drop or choose") for k in range(IMAGES)]
        example = gr.Button("Decompose an example", size="md", min_width=230, scale=0, elem_id="parts-example")
    status = gr.HTML("", elem_id="parts-status")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            parts = element("tiles", "parts-tiles", {"chosen": []}, tiles=[])
        with gr.Column(scale=1, min_width=260):
            result = gr.HTML("", elem_id="parts-result")
    with gr.Row(elem_classes="studio-actions studio-later"):
        compose = gr.Button("Compose the chosen parts", size="md", min_width=250, scale=0, elem_id="parts-compose")
    model, seed = model_and_seed("parts", library.names, start)
    with gr.Accordion("The same image in code", open=False, elem_id="parts-code", elem_classes="studio-later"):
        python, shell = code("Python", "python"), code("Shell", "shell")
    outputs = [result, status, stop]
    network: dict[str, Any] = {**QUIET, **NETWORK, "js": OF_PAGE}
    key = gr.Textbox("", visible=False)
    started = [
        picture.taken(own.take, [key, picture, model, seed, gr.State(k)], outputs, **network)
        for k, picture in enumerate(pictures)
    ]
    for event in (*started, example.click(own.example, [key, model, seed], outputs, **network)):
        event.then(own.show, [key], [parts], js=OF_PAGE, **FREE)
    mixing: dict[str, Any] = {"inputs": [key, parts, model, seed], "outputs": [result, status, python, shell, stop]}
    gr.on([compose.click, parts.input], own.mix, **mixing, **network)
    parts.opened(own.again, [key], [parts, status, model, result, python, shell], js=OF_PAGE, **FREE)
    return model
