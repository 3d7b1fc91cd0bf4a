"""Decompose and recombine: the parts of two images as tiles, and the image of those that are chosen."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from energycomp.decomposition import EXPLAINED, decompose, decomposer_of, explained_variance, recombine
from energycomp.errors import EnergycompError, InputError
from energycomp.images import as_picture, data_url, to_output
from energycomp.models import Model
from energycomp.plugins import find, names
from energycomp_studio.kept import Kept
from energycomp_studio.library import Library
from energycomp_studio.parts import (
    FREE,
    NETWORK,
    QUIET,
    chooser,
    code,
    followed,
    model_and_seed,
    note,
    session_of,
    tiles,
)
from energycomp_studio.pictures import SIDE, uploaded
from energycomp_studio.scene import Settings
from energycomp_studio.worker import Running, Worker

IMAGES = 2
TILE = 96  # px
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


@attrs.define(eq=False)
class _Pair:
    """The images of a browser tab.

    Args:
        parts: of each image, or None.
        said: of each image, what is said of it.
    """

    parts: list[_Parts | None] = attrs.field(factory=lambda: [None] * IMAGES)
    said: list[str] = attrs.field(factory=lambda: [""] * IMAGES)

    @property
    def listed(self) -> list[_Parts]:
        """Those that there are."""
        return [one for one in self.parts if one is not None]

    def put(self, place: int, found: _Parts) -> None:
        """An image is now another one. Parts of another model, which do not combine with it, go."""
        for k, one in enumerate(self.parts):
            if one is not None and one.model != found.model:
                self.parts[k] = None
                self.said[k] = self.said[k] if k == place else ""
        self.parts[place] = found

    def told(self) -> str:
        """What is said of all images, as one line."""
        if self.said[0] and len({*self.said}) == 1:
            return self.said[0]
        return "; ".join(f"image {k}: {one}" for k, one in enumerate(self.said, 1) if one)


def parts_of(pictures: list[Image.Image], model: Model, name: str, settings: Settings) -> list[_Parts]:
    """The parts of each image."""
    found = decompose(pictures, decomposer_of(model), generator=settings.seed)
    whole = found.parts.whole.cpu()
    shares = explained_variance(model.processor(pictures), whole)

    def shown(images: Any) -> tuple[str, ...]:
        return tuple(data_url(model.shown(one, side=TILE)) for one in images)

    made = []
    for k, (picture, share) in enumerate(zip(pictures, shares, strict=True)):
        foreign = share is not None and share < EXPLAINED
        said = f"out of distribution: parts of {name} explain {max(share or 0, 0):.0%} of it; do not trust them"
        own = [model.processor.frame(picture), *to_output(whole[k, None], "pil")]
        parts = to_output(found.parts.images[k], "pil")
        made.append(_Parts(name, found.latents[k, None], shown(own), shown(parts), said if foreign else ""))
    return made


def drawn(name: str, settings: Settings) -> list[Image.Image]:
    """Two images of the data set that has the name of a model, as its source draws them.

    Raises:
        InputError: there is no such data set.
    """
    if name not in names("datasets"):
        raise InputError(f"got {name}, for which there is no example; drop an image, or choose another model")
    examples = find("datasets", name)().examples("synthetic", count=IMAGES, seed=settings.seed)
    return [as_picture(example.image) for example in examples]


@attrs.frozen
class _Decompose:
    """What happens in the tab."""

    library: Library
    worker: Worker
    pairs: Kept[_Pair] = attrs.field(factory=Kept)  # of each browser tab

    def pair(self, request: gr.Request) -> _Pair:
        """The images of a browser tab. Tasks that run at the same time change the same pair."""
        found = self.pairs.get(session_of(request)) or _Pair()
        self.pairs.put(session_of(request), found)
        return found

    def take(self, url: Any, name: str, seed: Any, place: int, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Decomposes an image that was dropped, as image number `place`."""
        yield from self._decompose(lambda: [uploaded(url)], [place], name, seed, request)

    def example(self, name: str, seed: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Decomposes two images that are drawn."""
        yield from self._decompose(lambda: drawn(name, Settings(seed)), list(range(IMAGES)), name, seed, request)

    def _decompose(
        self, pictures: Callable[[], list[Image.Image]], places: list[int], name: str, seed: Any, request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        pair = self.pair(request)

        def say(text: str) -> str:
            for place in places:
                pair.said[place] = text
            return pair.told()

        def task(report: Callable[[Any], None]) -> list[_Parts]:
            settings = Settings(seed)
            given = pictures()
            report(f"loading {name}")
            model = self.library.model(name)
            report("decomposing")
            return parts_of(given, model, name, settings)

        def done(found: list[_Parts], seconds: float) -> tuple[Any, ...]:
            for place, one in zip(places, found, strict=True):
                pair.put(place, one)
            return gr.skip(), note(say(f"{len(found[0].parts)} parts in {seconds:.0f} s"))

        yield "", note(say("decomposing")), gr.skip()  # the image of other parts goes
        yield from followed(
            self.worker, session_of(request), f"decomposing image {' and '.join(str(k + 1) for k in places)}", task,
            running=lambda event: (gr.skip(), note(say(event.told("decomposing")), event)), done=done,
            failed=lambda message: (gr.skip(), note(say(message))),
        )  # fmt: skip

    def show(self, request: gr.Request) -> Any:
        """The tiles of all images, once a task has ended."""
        listed = self.pair(request).listed
        chosen = [[(k + j) % len(listed) == 0 for j in range(len(one.parts))] for k, one in enumerate(listed)]
        return gr.update(tiles=[one.as_json() for one in listed], value={"chosen": chosen})

    def mix(self, value: Any, name: str, seed: Any, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """The image of the chosen parts, by the model that they are of."""
        listed = self.pair(request).listed
        same = (gr.skip(),) * 2
        name = listed[0].model if listed else name
        try:
            if not listed:
                raise InputError("got no parts; expected an image; drop one first, or decompose an example")
            parts = choice(value, [len(one.parts) for one in listed])
            settings = Settings(seed)
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

        yield from followed(
            self.worker, session_of(request), "composing parts", task, running=running,
            done=lambda url, seconds: (_figure(url), note(f"{sum(map(len, parts))} parts in {seconds:.1f} s"), *lines),
            failed=lambda message: (gr.skip(), note(message), *same),
        )  # fmt: skip


def _figure(url: str) -> str:
    download = f"<a class='studio-download' href='{url}' download='recombined.png'>Download</a>"
    return f"<img class='studio-result' src='{url}' alt='The image of the chosen parts'>{download}"


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
            parts = tiles("parts-tiles")
        with gr.Column(scale=1, min_width=260):
            result = gr.HTML("", elem_id="parts-result")
    with gr.Row(elem_classes="studio-actions studio-later"):
        compose = gr.Button("Compose the chosen parts", size="md", min_width=250, scale=0, elem_id="parts-compose")
    model, seed = model_and_seed("parts", library.names, start)
    with gr.Accordion("The same image in code", open=False, elem_id="parts-code", elem_classes="studio-later"):
        python, shell = code("Python", "python"), code("Shell", "shell")
    outputs = [result, status, stop]
    for k, picture in enumerate(pictures):
        taken = picture.taken(own.take, [picture, model, seed, gr.State(k)], outputs, **QUIET, **NETWORK)
        taken.then(own.show, None, [parts], **FREE)
    example.click(own.example, [model, seed], outputs, **QUIET, **NETWORK).then(own.show, None, [parts], **FREE)
    mixing: dict[str, Any] = {"inputs": [parts, model, seed], "outputs": [result, status, python, shell, stop]}
    gr.on([compose.click, parts.input], own.mix, **mixing, **QUIET, **NETWORK)
    return model
