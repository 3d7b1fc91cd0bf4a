"""Draw the pictures of the front page: described scenes with what was asked, and a picture read as a table.

python benchmarks/sampling/front_page.py [--model clevr] [--image PICTURE] [-o docs/images]

Writes `compose.png` and `read.png`. Without `--image` a rendered scene is read.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.common.ways import Way, described_scene
from energycomp import infer, load
from energycomp.files import atomic_file
from energycomp.images import to_output
from energycomp.models import Model
from energycomp_datasets.clevr.layout import render_arrays

SCENES = {
    "two objects": ("large red metal cube at 0.3,0.5", "small blue rubber sphere at 0.7,0.6"),
    "the same seed, other words": ("large red metal cylinder at 0.3,0.5", "large yellow metal sphere at 0.7,0.6"),
    "colours and sizes left open": ("cube at 0.25,0.5", "sphere at 0.5,0.65", "cylinder at 0.75,0.5"),
    "five objects": (
        "large green rubber cylinder at 0.25,0.42",
        "large purple metal sphere at 0.6,0.4",
        "large gray rubber cube at 0.82,0.55",
        "small red metal cube at 0.4,0.68",
        "small yellow rubber sphere at 0.7,0.75",
    ),
}
SIDE = 256
HELD_OUT = 2_000_000_000


def main() -> None:
    """Writes the two pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="clevr", help="registered name or folder")
    parser.add_argument("--image", type=Path, default=None, help="a picture to read")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", type=Path, default=Path("docs/images"), help="folder")
    options = parser.parse_args()
    model = load(options.model)
    save(composed(model, options.seed), options.o / "compose.png")
    if options.image:
        image = Image.open(options.image).convert("RGB")
    else:
        arrays, _ = render_arrays(1, objects=(5, 5), seed=HELD_OUT + options.seed)
        image = to_output(arrays / 127.5 - 1, "pil")[0]
    save(understood(model, image, options.seed), options.o / "read.png")


def composed(model: Model, seed: int) -> Figure:
    """Scenes and their descriptions."""
    figure, panels = _panels(len(SCENES), (3.0 * len(SCENES), 4.3))
    for axes, (name, words) in zip(panels, SCENES.items(), strict=True):
        values = torch.cat([model.conditioner.read(text) for text in words])  # type: ignore[attr-defined]
        _show(axes, _drawn(model, values, seed), name)
        axes.set_xlabel("\n".join(words), fontsize=8)
    return figure


def understood(model: Model, image: Image.Image, seed: int) -> Figure:
    """A picture, its reading as a table, and samples of what was read."""
    solution = infer(image, model, generator=seed)
    described = [model.conditioner.describe(value) for value in solution.conditions]
    figure, (left, middle, right) = _panels(3, (12.0, 3.6))
    small = image.resize((64, 64), Image.Resampling.LANCZOS)
    _show(left, small, "an image, and the places that were found")
    side = SIDE - 1
    for number, one in enumerate(described, start=1):
        left.annotate(
            str(number), (one["x"] * side, one["y"] * side), ha="center", va="center", fontsize=9, color="white",
            bbox={"boxstyle": "circle,pad=0.15", "facecolor": "black", "alpha": 0.55, "linewidth": 0},
        )  # fmt: skip
    middle.axis("off")
    names = list(next(iter(described)))
    certainty = torch.ones(len(described), len(names)) if solution.certainty is None else solution.certainty
    cells = [
        [f"{one[n]:.2f}" if n in ("x", "y") else f"{one[n]} {float(p):.2f}" for n, p in zip(names, row, strict=True)]
        for one, row in zip(described, [[1.0, 1.0, *row] for row in certainty.tolist()], strict=True)
    ]
    table = middle.table(cells, rowLabels=[str(k + 1) for k in range(len(cells))], colLabels=names, loc="center")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(list(range(len(names))))
    middle.set_title("its objects, and how certain each word is", fontsize=10)
    _show(right, _drawn(model, solution.conditions, seed), "a sample of that description")
    return figure


def _drawn(model: Model, values: torch.Tensor, seed: int) -> Image.Image:
    return to_output(Way.of(model).draw(model, described_scene(model, values), seed)[None], "pil", (0.0, 1.0))[0]


def _panels(number: int, size: tuple[float, float]) -> tuple[Figure, Sequence[Any]]:
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, number)


def _show(axes: Any, image: Image.Image, title: str) -> None:
    axes.imshow(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=10)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure in full colour."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")


if __name__ == "__main__":
    main()
