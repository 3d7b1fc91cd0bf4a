"""Compose scenes and prompts, and read them and a rendered scene; draw scenes of slots, and take two of them apart.

The pictures go to demo/.

Run it as `python examples/demo.py [MODEL] [FOLDER]`, with a model of whole objects.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table

import energycomp
from energycomp.errors import EnergycompWarning
from energycomp.images import grid, overlay, save_image, strip, to_output
from energycomp_lab.evaluation import source_of, true_values

OBJECTS = (
    "large red metal cube at 0.25,0.45",
    "small blue rubber sphere at 0.5,0.4",
    "large green rubber cylinder at 0.78,0.42",
    "small yellow metal sphere at 0.35,0.6",
    "large purple rubber cube at 0.6,0.62",
    "large cyan metal cylinder at 0.2,0.7",
    "small gray rubber cube at 0.5,0.78",
    "small brown metal cylinder at 0.8,0.72",
)
SAMPLES = 4
LABELS = {  # of both axes of each list in `Solution.trace`
    "error": ("components", "error of the model"),
    "residual": ("component", "residual score"),
    "rows": ("stage of the search", "network rows"),
}


def described(model: energycomp.Model, count: int) -> torch.Tensor:
    """The first `count` objects as values (count, 6)."""
    conditioner: Any = model.conditioner
    return torch.cat([conditioner.read(text) for text in OBJECTS[:count]])


def compose(model: energycomp.Model, count: int, folder: Path) -> Image.Image:
    """Samples scenes of `count` described objects, and returns the first; a ring marks each place."""
    print(f"\ncomposed-{count}: {'; '.join(OBJECTS[:count])}")
    values = described(model, count)
    scene = energycomp.Composer(model.compose(values))
    images = scene.sample(SAMPLES, num_inference_steps=25, generator=count)
    shown = [model.shown(image, side=192) for image in images]
    save(grid(shown, SAMPLES), folder / f"composed-{count}.png", cells=SAMPLES)
    save(overlay(shown[0], values[:, :2]), folder / f"composed-{count}-asked-for.png")
    first: Image.Image = images[0]
    return first


def read(model: energycomp.Model, image: Image.Image, name: str, folder: Path, truth: Any) -> None:
    """Infers the objects of a picture: prints their places, their words and how certain each word is; draws the places.

    A star marks words that the nearest true object does not have. Reasons not to trust the answer are below its table.
    Rings are the places that are found, crosses are the true ones.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EnergycompWarning)  # the answer has it, too
        answer = energycomp.infer(image, model)
    table = Table("#", "x", "y", "size", "color", "material", "shape")
    sure = torch.ones(answer.count, 4) if answer.certainty is None else answer.certainty
    for number, (value, certainty) in enumerate(zip(answer.conditions, sure.tolist(), strict=True), start=1):
        nearest = truth[(truth[:, :2] - value[:2]).norm(dim=1).argmin()]
        x, y, *words = model.conditioner.describe(value).values()
        true = [*model.conditioner.describe(nearest).values()][2:] or words
        stars = ["" if word == right else "*" for word, right in zip(words, true, strict=True)]
        cells = [f"{word} {share:.2f}{star}" for word, share, star in zip(words, certainty, stars, strict=True)]
        table.add_row(str(number), f"{x:.2f}", f"{y:.2f}", *cells)
    console = Console()
    console.print(
        f"\n{name}: {answer.count} objects of {len(truth)}, fit {answer.fit:.3f}, {answer.rows:,} network rows"
    )
    console.print(table)
    for reason in answer.warnings:
        print(f"warning: {reason}")
    save(overlay(model.shown(image), answer.conditions[:, :2], truth=truth[:, :2]), folder / f"read-{name}.png")
    if answer.trace:
        save(trace_plot(answer.trace), folder / f"read-{name}-search.png")


def trace_plot(trace: Mapping[str, Sequence[float]]) -> Image.Image:
    """The progress of a search, `Solution.trace`: one panel per list, over its index."""
    figure = Figure(figsize=(6, 2.5 * len(trace)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, numbers) in zip(figure.subplots(len(trace), squeeze=False)[:, 0], trace.items(), strict=True):
        axes.plot(range(len(numbers)), numbers, marker="o", markersize=3)
        axes.set(**dict(zip(("xlabel", "ylabel"), LABELS.get(name, ("", name)), strict=True)))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def take_apart(folder: Path) -> None:
    """Draws scenes of slots that a global latent makes, and takes two of them apart into slots."""
    slots: Any = energycomp.decomposer_of(energycomp.load("slots"))
    scenes = slots.sample(16, generator=torch.Generator().manual_seed(0))
    save(grid(scenes, 8, side=64), folder / "scenes.png", cells=16)
    parts: Any = energycomp.decompose(scenes[:2] / 2 + 0.5, slots).parts
    # Outside its mask, a slot draws anything: a part is what the scene shows in the mask, on grey
    shown = parts.whole[:, None].where(parts.masks[:, :, None], 0.1)
    save(strip(scenes[:2], parts.whole, shown), folder / "scenes-apart.png", cells=2 * (shown.shape[1] + 2))


def compose_prompts(folder: Path) -> None:
    """Composes two prompts, samples pictures, and reads the first of them; then takes one of the two away."""
    text = energycomp.load("text-composed")
    scale = text.defaults.guidance_scale
    cube, sphere = scale * text("a red cube"), scale * text("a blue sphere")
    generator = torch.Generator().manual_seed(0)
    scenes = {
        "red cube & blue sphere": cube & sphere,
        "prompt of both & ~sphere": scale * text("a red cube and a blue sphere") & ~sphere,
    }
    rows = [energycomp.Composer(scene).sample(SAMPLES, generator=generator) for scene in scenes.values()]
    shown = grid([image for row in rows for image in row], SAMPLES, side=128, names=list(scenes))
    save(shown, folder / "prompts.png", cells=2 * SAMPLES)
    answer = energycomp.infer(rows[0][0], text, count=2)
    names = [text.conditioner.describe(value)["concept"] for value in answer.conditions]
    print(f"\na red cube & a blue sphere: read {' and '.join(names)}, {answer.rows:,} network rows")


def save(image: Image.Image, path: Path, *, cells: int = 1) -> None:
    """Writes a picture, which shows so many images, and remembers its path for the end."""
    save_image(image, path, cells=cells)
    WRITTEN.append(path)


WRITTEN: list[Path] = []


def main() -> None:
    """Everything, in half a minute on two cores."""
    source = sys.argv[1] if len(sys.argv) > 1 else "clevr"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "demo")
    folder.mkdir(parents=True, exist_ok=True)
    model = energycomp.load(source)
    composed = {count: compose(model, count, folder) for count in (3, 5, 8)}
    example = source_of("clevr", model).examples("synthetic:4-5", count=1, seed=5)[0]
    rendered = to_output(example.image[None], "pil")[0]
    read(model, rendered, "rendered", folder, true_values(example, model.conditioner))
    read(model, composed[5], "composed", folder, described(model, 5))
    take_apart(folder)
    compose_prompts(folder)
    print("\nThe pictures:")
    for path in WRITTEN:
        print(path)


if __name__ == "__main__":
    main()
