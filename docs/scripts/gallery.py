"""Draw the images of the start page, the first steps and described objects, and the card that other sites show.

python docs/scripts/gallery.py [--only start growing attributes compose read] [--seed 0] [-o docs/images]

Writes NAME.png of each and, of `start` cut to 1200x630, `../assets/card.png`. `read` shows how a rendered scene, or
`--image`, is read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from energycomp import Composer, decompose, infer, load
from energycomp.components import combine
from energycomp.files import atomic_file
from energycomp.images import framed, grid, to_output
from energycomp_datasets.clevr.layout import render_objects
from energycomp_datasets.shapes.source import draw

SIDE, SMALL = 384, 256  # px
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
FACE = ("eyeglasses", "smiling", "beard", "suit")
HELD_OUT = 2_000_000_000


def main() -> None:
    """Writes the images."""
    drawings: dict[str, Callable[[argparse.Namespace], Image.Image | Figure]] = {
        "start": start, "growing": growing, "attributes": attributes, "compose": compose,
        "read": read,
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
    scene = described(described_values(SCENE[:4]), seed)
    solution = infer(scene, clevr, generator=seed)
    made = decompose(draw(3, HELD_OUT + seed, counts=(3, 3)).image[None] / 2 + 0.5, decomp, generator=seed).parts
    objects = made.images[0][made.images[0].flatten(1).std(1).argsort(descending=True)[:3]]  # not the empty parts
    parts = grid(torch.cat([made.whole, objects]), columns=2, side=(SIDE - 6) // 2)
    framed_parts = Image.new("RGB", large(scene).size, "white")
    framed_parts.paste(parts.resize((SIDE, SIDE)), ((framed_parts.width - SIDE) // 2, 0))
    seen = [large(scene), solution.picture(side=SIDE), framed_parts]
    return grid(seen, columns=3, padding=8, heads=["compose", "read", "decompose"])


def growing(options: argparse.Namespace) -> Image.Image:
    """One more object at a time, from the same noise."""
    scenes = [described(described_values(SCENE[:number]), options.seed) for number in range(1, 1 + len(SCENE))]
    return grid(
        [large(scene, 192) for scene in scenes], columns=3, captions=[words.split(" at ")[0] for words in SCENE]
    )


def attributes(options: argparse.Namespace) -> Image.Image:
    """One more attribute of a face at a time, from the same noise."""
    faces = load("faces")
    sets = [FACE[:number] for number in range(1, 1 + len(FACE))]
    parts = [combine([faces(**{name: True}) for name in names], "product") for names in sets]
    drawn = [large(Composer(part).sample(generator=options.seed)[0], 192) for part in parts]
    return grid(drawn, columns=4, captions=[f"+ {names[-1]}" for names in sets])


def compose(options: argparse.Namespace) -> Figure:
    """Scenes and their descriptions."""
    figure, panels = new_panels(len(SCENES), (3.0 * len(SCENES), 3.3))
    for axes, (name, words) in zip(panels, SCENES.items(), strict=True):
        show(axes, described(described_values(words), options.seed), name)
        axes.set_xlabel("\n".join(words), fontsize=8)
    return figure


def read(options: argparse.Namespace) -> Figure:
    """An image, what is read of each object with its least certain word, and a sample of what was read."""
    model = load("clevr")
    if options.image:
        image = Image.open(options.image).convert("RGB")
    else:
        arrays, _ = render_objects(1, objects=(5, 5), seed=HELD_OUT + options.seed)
        image = to_output(arrays / 127.5 - 1, "pil")[0]
    solution = infer(image, model, generator=options.seed)
    figure, (left, right) = new_panels(2, (10.0, 3.7))
    show(
        left, image.resize((480, 320), Image.Resampling.LANCZOS), f"read: {solution.count} objects, {solution.verdict}"
    )
    certainty = torch.ones(solution.count, 1) if solution.certainty is None else solution.certainty
    middle = float(solution.conditions[:, 1].median())
    for value, known in zip(solution.conditions, certainty, strict=True):
        one = model.conditioner.describe(value)
        words = f"{one['size']} {one['color']}\n{one['material']} {one['shape']}\n{float(known.min()):.2f}"
        above = one["y"] <= middle  # words of far objects stand above them, those of near ones below
        left.annotate(
            words, (one["x"] * 480, one["y"] * 320), (0, 22 if above else -22), textcoords="offset points",
            ha="center", va="bottom" if above else "top", fontsize=8, color="white",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "black", "alpha": 0.6, "linewidth": 0},
        )  # fmt: skip
    show(right, described(solution.conditions, options.seed), "drawn again from these words")
    return figure


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
    whole = Image.new("RGB", (1200, 630), "white")
    height = round(1200 * picture.height / picture.width)
    whole.paste(picture.resize((1200, height), Image.Resampling.LANCZOS), (0, (630 - height) // 2))
    return whole


def new_panels(number: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Any]]:
    """A figure of panels in a row that needs no display."""
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, number)


def show(axes: Any, image: Image.Image, title: str) -> None:
    """An image without axes."""
    axes.imshow(large(image, SMALL), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=10)


def save(drawn: Image.Image | Figure, path: Path) -> None:
    """Writes an image in full colour."""
    with atomic_file(path) as temporary:
        if isinstance(drawn, Figure):
            drawn.savefig(temporary, format="png")
        else:
            drawn.save(temporary, format="PNG")


if __name__ == "__main__":
    main()
