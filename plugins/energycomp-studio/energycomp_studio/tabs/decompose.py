"""Decompose and recombine: the parts of two images as tiles, and the image of those that are chosen."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import gradio as gr
import torch
from torch import Tensor

from energycomp.decomposition import EXPLAINED, decompose, decomposer_of, explained_variance, recombine
from energycomp.errors import EnergycompError, InputError
from energycomp.images import data_url, to_output
from energycomp_studio.library import Library
from energycomp_studio.parts import NETWORK, QUIET, chooser, code, finally_shown, followed, session_of, tiles
from energycomp_studio.pictures import SIDE, uploaded
from energycomp_studio.scene import Settings
from energycomp_studio.worker import Running, Worker

IMAGES = 2
TILE = 96  # px
FORGOTTEN = 3_600  # s after which the parts of a browser tab are forgotten
PREFERRED = ("decomp", "lit", "slots")


def choice(value: Any, counts: list[int]) -> list[list[int]]:
    """The numbers of the chosen parts of each image.

    >>> choice({"chosen": [[True, False], [False, True]]}, [2, 2])
    [[0], [1]]
    """
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
    """The command that makes the image.

    >>> recombine_shell([[0, 2], []], "decomp", Settings())
    'energycomp recombine decomp a.png b.png --take 0,2 --take none --seed 0 -o recombined.png'
    """
    words = ["energycomp", "recombine", name, *_files(len(parts))]
    for one in parts:
        words += ["--take", ",".join(map(str, one)) or "none"]
    return shlex.join([*words, "--seed", str(settings.seed), "-o", "recombined.png"])


def _files(count: int) -> list[str]:
    return [f"{letter}.png" for letter in "ab"[:count]]


@attrs.frozen(eq=False)
class _Parts:
    """The parts of one image: the name of the model, its latents (1, K, D), and what is shown of them, as data URLs.

    Args:
        whole: the image, and its reconstruction from all parts.
        parts: each part alone.
        note: why not to trust them.
    """

    model: str
    latents: Tensor
    whole: tuple[str, ...]
    parts: tuple[str, ...]
    note: str

    def as_json(self) -> dict[str, Any]:
        """What the page takes."""
        return {"whole": list(self.whole), "parts": list(self.parts), "note": self.note}


@attrs.frozen
class _Decompose:
    """What happens in the tab. The state of a browser tab is the parts of each image, or None."""

    library: Library
    worker: Worker

    def take(
        self, url: Any, name: str, seed: Any, state: list[Any], place: int, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Decomposes an image that was dropped, as image number `place`."""

        def task(report: Callable[[Any], None]) -> _Parts:
            picture = uploaded(url)
            report(f"loading {name}")
            model = self.library.model(name)
            report("decomposing")
            found = decompose([picture], decomposer_of(model), generator=Settings(seed).seed)
            whole = found.parts.whole.cpu()
            (share,) = explained_variance(model.processor([picture]), whole)
            foreign = share is not None and share < EXPLAINED
            said = f"out of distribution: parts of {name} explain {max(share or 0, 0):.0%} of it; do not trust them"

            def shown(images: Any) -> tuple[str, ...]:
                return tuple(data_url(model.shown(one, side=TILE)) for one in images)

            own = [model.processor.frame(picture), *to_output(whole, "pil")]
            parts = to_output(found.parts.images[0], "pil")
            return _Parts(name, found.latents, shown(own), shown(parts), said if foreign else "")

        def done(found: _Parts, seconds: float) -> tuple[Any, ...]:
            kept = [found if k == place else one for k, one in enumerate(state)]
            if len({one.model for one in kept if one is not None}) > 1:
                kept = [found if k == place else None for k in range(IMAGES)]
            listed = [one for one in kept if one is not None]
            chosen = [[(k + j) % len(listed) == 0 for j in range(len(one.parts))] for k, one in enumerate(listed)]
            update = gr.update(tiles=[one.as_json() for one in listed], value={"chosen": chosen})
            return gr.skip(), kept, (update, f"{len(found.parts)} parts in {seconds:.0f} s"), gr.skip()

        yield "decomposing", gr.skip(), None, "", gr.skip()  # the image of other parts goes
        same = None, gr.skip()
        yield from followed(
            self.worker, session_of(request), "decomposing an image", task, done=done,
            running=lambda event: (f"{event.reported or 'decomposing'}, {event.seconds:.0f} s", gr.skip(), *same),
            failed=lambda message: (message, gr.skip(), *same),
        )  # fmt: skip

    def mix(self, value: Any, name: str, seed: Any, state: list[Any], request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """The image of the chosen parts, by the model that they are of."""
        listed, same = [one for one in state if one is not None], (gr.skip(),) * 2
        name = listed[0].model if listed else name
        try:
            if not listed:
                raise InputError("got no parts; expected an image; drop one first")
            parts, settings = choice(value, [len(one.parts) for one in listed]), Settings(seed)
            lines = recombine_python(parts, name, settings), recombine_shell(parts, name, settings)
            if not any(parts):
                raise InputError("got no part; expected at least one; choose some tiles")
        except EnergycompError as error:
            yield gr.skip(), str(error), *same, gr.skip()
            return

        def task(_: Any) -> str:
            latents = recombine([one.latents for one in listed], parts)
            generator = torch.Generator().manual_seed(settings.seed)
            model = self.library.model(name)
            made = decomposer_of(model).decode(latents, generator=generator)
            return data_url(model.shown(to_output(made, "pil")[0], side=SIDE))

        def running(event: Running) -> tuple[Any, ...]:
            return gr.skip(), f"{event.reported or 'composing'}, {event.seconds:.0f} s", *same

        yield from followed(
            self.worker, session_of(request), "composing parts", task, running=running,
            done=lambda url, seconds: (_figure(url), f"{sum(map(len, parts))} parts in {seconds:.1f} s", *lines),
            failed=lambda message: (gr.skip(), message, *same),
        )  # fmt: skip


def _figure(url: str) -> str:
    download = f"<a class='studio-download' href='{url}' download='recombined.png'>Download</a>"
    return f"<img class='studio-result' src='{url}' alt='The image of the chosen parts'>{download}"


def decompose_tab(library: Library, worker: Worker, stop: gr.Button) -> gr.Dropdown:
    """The components of the tab; returns that of its model."""
    own = _Decompose(library, worker)
    start = next((name for name in PREFERRED if name in library.names), library.first)
    state, found = gr.State([None] * IMAGES, time_to_live=FORGOTTEN), gr.State(None, time_to_live=FORGOTTEN)
    with gr.Row():
        model = gr.Dropdown(library.names, value=start, label="Model", min_width=180, elem_id="parts-model")
        seed = gr.Number(0, label="Seed", precision=0, min_width=100, elem_id="parts-seed")
    with gr.Row():
        pictures = [chooser(f"parts-picture-{k + 1}", f"Image {k + 1}: drop or choose") for k in range(IMAGES)]
    note = gr.Markdown("", elem_id="parts-status")
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            parts = tiles("parts-tiles")
        with gr.Column(scale=1, min_width=260):
            result = gr.HTML("", elem_id="parts-result")
    compose = gr.Button("Compose the chosen parts", size="md", elem_id="parts-compose")
    with gr.Accordion("The same image in code", open=False, elem_id="parts-code"):
        python, shell = code("Python", "python"), code("Shell", "shell")
    once: dict[str, Any] = {**QUIET, "trigger_mode": "once"}
    for k, picture in enumerate(pictures):
        place = gr.State(k)
        outputs = [note, state, found, result, stop]
        taken = picture.taken(own.take, [picture, model, seed, state, place], outputs, **once, **NETWORK)
        finally_shown(taken, found, [parts, note])
    mixing: dict[str, Any] = {"inputs": [parts, model, seed, state], "outputs": [result, note, python, shell, stop]}
    gr.on([compose.click, parts.input], own.mix, **mixing, **QUIET, **NETWORK)
    return model
