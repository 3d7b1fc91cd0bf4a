"""Draw the images of the start page, the first steps and described objects, and the card that other sites show.

python docs/scripts/gallery.py [--only start growing attributes compose read worlds lint] [--seed 0] [-o docs/images]

Writes NAME.png of each and, of `start` on 1200x630, `../assets/card.png`. `read` shows how a rendered scene, or
`--image`, is read; `worlds`, photos of examples/photos, what is read in them, and samples of what was read; `lint`,
what a network draws that is wrapped wrongly.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor
from tour import PHOTOS, boxed, letters, named

from energycomp import Composer, decompose, infer, load
from energycomp.components import combine
from energycomp.files import atomic_file
from energycomp.images import framed, grid, open_image, to_output
from energycomp_adopt.checks.near_misses import readopt
from energycomp_adopt.wrapped import wrap
from energycomp_datasets.clevr.layout import render_objects
from energycomp_datasets.shapes.source import draw

SIDE, SMALL = 384, 256  # px
HEAD = 38  # px, the height of a line above an image
SCENE = (
    "large red metal cube at 0.3,0.42",
    "small blue metal sphere at 0.52,0.66",
    "large yellow metal sphere at 0.74,0.5",
    "small green rubber cylinder at 0.24,0.72",
    "small purple metal sphere at 0.55,0.35",
    "small cyan rubber cube at 0.8,0.75",
)
SCENES = {
    "two objects": ("large red metal cube at 0.3,0.5", "small blue rubber sphere at 0.7,0.6"),
    "the same seed, other words": ("large red metal cylinder at 0.3,0.5", "large yellow metal sphere at 0.7,0.6"),
    "words left open": ("cube at 0.25,0.5", "sphere at 0.5,0.65", "cylinder at 0.75,0.5"),
    "five objects": (
        "large green rubber cylinder at 0.25,0.42",
        "large purple metal sphere at 0.6,0.4",
        "large gray rubber cube at 0.82,0.55",
        "small red metal cube at 0.4,0.68",
        "small yellow rubber sphere at 0.7,0.75",
    ),
}
READ = (576, 384)  # px, of an image of 3:2
FACE = ("eyeglasses", "smiling", "beard", "suit")
HELD_OUT = 2_000_000_000
WORLDS = {"cells": "cells/BloodImage_00130.jpg", "dice": "dice/val/IMG_20191208_111826.jpg"}
WIDE = 560  # px of a photo in a figure
WRAPPED: dict[str, dict[str, Any]] = {
    "as it was trained": {},
    "x0 taken for v": {"predicts": "v"},
    "linear betas": {"process": "linear"},
    "told t / 1000": {"call": lambda net, x, t, c: net(x, t / 1000, c)},
}


def main() -> None:
    """Writes the images."""
    drawings: dict[str, Callable[[argparse.Namespace], Image.Image | Figure]] = {
        "start": start, "growing": growing, "attributes": attributes, "compose": compose,
        "read": read, "worlds": worlds, "lint": lint,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(drawings), default=list(drawings))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image", type=Path, default=None, help="an image to read")
    parser.add_argument("-o", type=Path, default=Path("docs/images"), help="folder")
    options = parser.parse_args()
    for name in options.only:
        drawn = drawings[name](options)
        save(drawn, options.o / f"{name}.png")
        if name == "start":
            save(card(drawn), options.o / ".." / "assets" / "card.png")


def start(options: argparse.Namespace) -> Image.Image:
    """Compose, read and decompose: a scene, the same scene with what was found in it, and an image beside its parts."""
    clevr, decomp, seed = load("clevr"), load("decomp"), options.seed
    scene = large(described(described_values(SCENE[:4]), seed))
    rows = infer(scene, clevr, generator=seed).table()
    made = decompose(draw(3, HELD_OUT + seed, counts=(3, 3)).image[None] / 2 + 0.5, decomp, generator=seed).parts
    objects = made.images[0][made.images[0].flatten(1).std(1).argsort(descending=True)[:3]]  # not the empty parts
    parts = to_output(torch.cat([made.whole, objects]), "pil")
    # Two images above, four squares below, all of them as wide.
    width, height, gap = scene.width, scene.height, 8
    side = (2 * width - 2 * gap) // 4
    whole = Image.new("RGB", (2 * width + gap, height + side + 2 * HEAD), "white")
    pieces = [("compose", scene), ("read", named(scene, rows, len(rows), 17))]
    for k, (head, image) in enumerate(pieces):
        write(whole, head, (k * (width + gap) + width // 2, HEAD // 2))
        whole.paste(image, (k * (width + gap), HEAD))
    heads = ["decompose", "part 1", "part 2", "part 3"]
    for k, (head, image) in enumerate(zip(heads, parts, strict=True)):
        write(whole, head, (k * (side + gap) + side // 2, height + HEAD + HEAD // 2))
        whole.paste(image.resize((side, side), Image.Resampling.LANCZOS), (k * (side + gap), height + 2 * HEAD))
    return whole


def write(whole: Image.Image, text: str, middle: tuple[int, int]) -> None:
    """A word above an image."""
    ImageDraw.Draw(whole).text(middle, text, font=letters(22), fill="#1a1a1a", anchor="mm")


def growing(options: argparse.Namespace) -> Image.Image:
    """One more object at a time, from the same noise."""
    scenes = [described(described_values(SCENE[:number]), options.seed) for number in range(1, 1 + len(SCENE))]
    return grid(
        [large(scene, 192) for scene in scenes], columns=3, captions=[words.split(" at ")[0] for words in SCENE]
    )


def attributes(options: argparse.Namespace) -> Image.Image:
    """One more attribute of a face at a time, from the same noise. Those that are still to come are denied."""
    faces = load("faces")
    sets = [{name: place <= number for place, name in enumerate(FACE)} for number in range(len(FACE))]
    parts = [combine([faces(**{name: has}) for name, has in one.items()], "product") for one in sets]
    drawn = [large(Composer(part).sample(generator=options.seed)[0], 192) for part in parts]
    return grid(drawn, columns=4, captions=[FACE[0], *(f"+ {name}" for name in FACE[1:])])


def compose(options: argparse.Namespace) -> Figure:
    """Scenes and their descriptions."""
    figure = Figure(figsize=(8.0, 7.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, words) in zip(figure.subplots(2, 2).flat, SCENES.items(), strict=True):
        axes.imshow(large(described(described_values(words), options.seed), SMALL), interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(name, fontsize=12)
        axes.set_xlabel("\n".join(words), fontsize=9.5)
    return figure


def read(options: argparse.Namespace) -> Image.Image:
    """An image, what is read of each object with its least certain word, and a sample of what was read."""
    model = load("clevr")
    if options.image:
        image = Image.open(options.image).convert("RGB")
    else:
        arrays, _ = render_objects(1, objects=(5, 5), seed=HELD_OUT + options.seed)
        image = to_output(arrays / 127.5 - 1, "pil")[0]
    solution = infer(image, model, generator=options.seed)
    rows = solution.table()
    shown = named(image.resize(READ, Image.Resampling.LANCZOS), rows, len(rows), 17)
    again = large(described(solution.conditions, options.seed)).resize(READ, Image.Resampling.LANCZOS)
    heads = [f"read: {solution.count} objects, {solution.verdict}", "drawn again from these words"]
    return grid([shown, again], columns=2, padding=4, heads=heads)


def worlds(options: argparse.Namespace) -> Image.Image:
    """For cells and dice a photo with what is read in it, and a sample of what was read."""
    pictures = []
    for name, photo in WORLDS.items():
        model = load(name)
        image = open_image(PHOTOS / photo)
        solution = infer(image, model, generator=0)
        sample = Composer(model.compose(solution.conditions)).sample(generator=options.seed)[0]
        place = (WIDE, round(WIDE * image.height / image.width))
        read = boxed(image.resize(place, Image.Resampling.LANCZOS), solution.table(), quiet=("RBC",), size=18)
        pictures += [
            ImageOps.fit(one.resize(place, Image.Resampling.LANCZOS), (WIDE, WIDE * 3 // 4)) for one in (read, sample)
        ]
    return grid(pictures, columns=2, heads=("read", "drawn"))


def lint(options: argparse.Namespace) -> Image.Image:
    """Samples of one network as it was trained, and wrapped wrongly in one thing, with one noise."""
    model = wrap(load("clevr-small"))
    value = model.conditioner.read("large red rubber sphere at 0.5,0.55")  # type: ignore[attr-defined]
    pictures = []
    for changed in WRAPPED.values():
        leaf = readopt(model, **changed).leaf(value)
        pictures += Composer([leaf]).sample(num_inference_steps=50, generator=options.seed)
    return grid([framed(one, side=SMALL) for one in pictures], columns=len(pictures), heads=list(WRAPPED))


def described_values(words: Sequence[str]) -> Tensor:
    """The values (K, V) of described objects."""
    return torch.cat([load("clevr").conditioner.read(text) for text in words])  # type: ignore[attr-defined]


def described(values: Tensor, seed: int) -> Image.Image:
    """A scene of objects (K, V), in its frame."""
    clevr = load("clevr")
    return clevr.shown(Composer(clevr.compose(values)).sample(generator=seed)[0])


def large(image: Image.Image, side: int = SIDE) -> Image.Image:
    """An image, enlarged by a smooth filter."""
    return framed(image, side=side)


def card(picture: Any) -> Image.Image:
    """An image in the middle of 1200x630 px, on white."""
    fitted = ImageOps.contain(picture, (1200, 630), Image.Resampling.LANCZOS)
    whole = Image.new("RGB", (1200, 630), "white")
    whole.paste(fitted, ((1200 - fitted.width) // 2, (630 - fitted.height) // 2))
    return whole


def save(drawn: Image.Image | Figure, path: Path) -> None:
    """Writes an image in full colour."""
    with atomic_file(path) as temporary:
        if isinstance(drawn, Figure):
            drawn.savefig(temporary, format="png")
        else:
            drawn.save(temporary, format="PNG")


if __name__ == "__main__":
    main()
