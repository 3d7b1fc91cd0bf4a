"""Draw the images of docs/concepts.md: the sum, and the three questions.

python docs/scripts/concept_pictures.py [-o docs/images] [--only sum generate decompose understand]
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from energycomp import Composer, Model, infer, load
from energycomp.components import predict, signal_noise
from energycomp.images import to_unit
from energycomp.inference import make_problem
from energycomp.plugins import find
from energycomp.testing import Gaussian
from energycomp_lab.evaluation import true_values

A, B = (0.3, 0.5), (0.7, 0.6)
NOISE = 6  # seed of the samples of compositions
LARGE = 140_000  # bytes
LENGTH = 17  # of arrows: eps a panel's width
FRAME = 2 / 3  # height of an image in its width: the model squeezes frames of 3:2 into squares
WORDS = 9.5  # points, of words that can be read at the width of a page
INK, ACCENT, FAINT = "#1a1a1a", "#d1495b", "#6b6b6b"


def main() -> None:
    """Draws all of them, in a few minutes on two cores."""
    pictures = {"sum": draw_sum, "generate": draw_generate, "decompose": draw_decompose, "understand": draw_understand}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--only", nargs="+", choices=list(pictures), default=list(pictures))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = load("clevr-places")
    for name in options.only:
        figure = pictures[name](model)
        path = options.out / f"concept-{name}.png"
        save(figure, path)
        print(f"{path}  {path.stat().st_size // 1000} kB")


def save(figure: Figure, path: Path) -> None:
    """A PNG that a page loads quickly: of 256 colours where it would be large."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=104)
    picture = Image.open(buffer).convert("RGB")
    picture.save(path, optimize=True)
    if path.stat().st_size > LARGE:
        picture.quantize(256, kmeans=4, dither=Image.Dither.NONE).save(path, optimize=True)


def new_figure(width: float, height: float) -> Figure:
    """A figure on white that needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def show(axes: Any, image: Tensor | None, title: str = "", *, below: str = "", **options: Any) -> None:
    """A picture (3, H, W) in [-1, 1], or a map (H, W), without axes."""
    if image is not None:
        picture = image.detach().cpu()
        picture = (picture.permute(1, 2, 0) + 1).div(2).clamp(0, 1) if picture.ndim == 3 else picture
        axes.imshow(picture.numpy(), **{"interpolation": "bicubic", "aspect": FRAME, **options})
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=11, color=INK, pad=5)
    axes.set_xlabel(below, fontsize=WORDS, color=FAINT)


def draw_sum(_: Model) -> Figure:
    """Two energies in the plane and their sum, each with the arrows that denoising follows."""
    a = Gaussian(torch.tensor([[[-0.6, 0.0]]]), torch.tensor([0.25, 1.6]), sample_shape=(1, 1, 2), name="a")  # type: ignore[arg-type]
    b = Gaussian(torch.tensor([[[0.0, 0.7]]]), torch.tensor([1.6, 0.25]), sample_shape=(1, 1, 2), name="b")  # type: ignore[arg-type]
    parts = {
        "$E_a$": Composer([a]),
        "$E_b$": Composer([b]),
        "$E_a + E_b$": Composer([a, b], rule="sum"),
    }
    below = ["wants x near -0.6", "wants y near 0.7", "wants both: the product"]
    figure = new_figure(8.0, 3.1)
    side = torch.linspace(-2, 2, 81)
    fine = torch.cartesian_prod(side, side)
    coarse = torch.cartesian_prod(torch.linspace(-1.8, 1.8, 13), torch.linspace(-1.8, 1.8, 13))
    for axes, (title, composer), note in zip(figure.subplots(1, 3), parts.items(), below, strict=True):
        energy = composer.energy(fine[:, None, None], torch.full((len(fine),), 100.0)).reshape(81, 81).T
        eps = composer.eps(coarse[:, None, None], torch.full((len(coarse),), 100.0))[:, 0, 0]
        energy = energy - energy.min()
        axes.contourf(side, side, (-energy).exp(), levels=12, cmap="Blues")
        axes.contour(side, side, energy, levels=[0.5, 1, 2, 4, 7], colors=INK, linewidths=0.6, alpha=0.6)
        axes.quiver(*coarse.T, *(-eps).T, color=ACCENT, width=0.005, scale=LENGTH)
        show(axes, None, title, below=note)
        axes.set_aspect("equal")
        axes.title.set_fontsize(13)
    return figure


def draw_generate(model: Model) -> Figure:
    """Samples of compositions, all from the same noise."""
    a, b, u = model(*A), model(*B), model.unconditional
    columns = {
        "u": (u, "no object asked for"),
        "a": (a, "one at (0.3, 0.5)"),
        "b": (b, "one at (0.7, 0.6)"),
        "a & b": (a & b, "both"),
        "a & ~b": (a & ~b, "a, and none at b"),
        "0.5 * a & u": (0.5 * a & u, "half of a"),
        "2.0 * a & u": (2.0 * a & u, "a, twice"),
    }
    figure = new_figure(8.0, 3.8)
    *panels, spare = figure.subplots(2, 4).flat
    spare.axis("off")
    for axes, (title, (scene, below)) in zip(panels, columns.items(), strict=True):
        options = {"scheduler": "DDIMScheduler", "num_inference_steps": 30, "progress": False}
        image = Composer(scene).sample(generator=NOISE, output_type="latent", **options)[0].clamp(-1, 1)
        show(axes, image, title, below=below)
        axes.title.set_family("monospace")
    return figure


def draw_decompose(model: Model) -> Figure:
    """One scene as the unconditional prediction and what each of its components adds to it, at one timestep."""
    example = scene(3)
    picture, places = model.encode(example.image), true_values(example, model.conditioner)
    at = torch.tensor([550.0])
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    signal, sigma = signal_noise(model.denoiser.alphas_cumprod, at)
    noised = signal * picture + sigma * noise
    with torch.no_grad():
        u = predict(model.unconditional + 0, noised, at, prediction_type="sample")[0]
        one = [predict(model(*place) + 0, noised, at, prediction_type="sample")[0] for place in places.tolist()]
        whole = predict(model.compose(places), noised, at, prediction_type="sample")[0]
    panels = [("picture", picture[0]), ("noised", noised[0].clamp(-1, 1)), ("u", u)]
    panels += [(f"$R_{k}$", part - u) for k, part in enumerate(one, start=1)]
    panels += [("$u + R_1 + R_2 + R_3$", whole)]
    below = [
        "",
        "what the model sees",
        "nothing asked for",
        "object 1 adds",
        "object 2 adds",
        "object 3 adds",
        "the sum",
    ]
    figure = new_figure(8.0, 3.8)
    *axes, spare = figure.subplots(2, 4).flat
    spare.axis("off")
    for one, (title, image), note in zip(axes, panels, below, strict=True):
        show(one, image, title, below=note)
    return figure


def draw_understand(model: Model) -> Figure:
    """The error of one more object over the picture, after none, one and two are found; and over the count."""
    example = scene(3)
    problem = make_problem(model.encode(example.image), model)
    side = 24
    steps = (torch.arange(side) + 0.5) / side
    lattice = torch.cartesian_prod(steps, steps).flip(1)  # rows of the picture one after the other
    form = problem.quadratic(lattice, problem.draw(8, torch.Generator().manual_seed(0)))
    figure = new_figure(8.0, 4.4)
    grid = figure.add_gridspec(2, 3)
    axes = [figure.add_subplot(grid[k // 3, k % 3]) for k in range(4)]
    show(axes[0], model.encode(example.image)[0], "picture")
    chosen: list[int] = []
    for panel, title in zip(axes[1:4], ["the first: where?", "the second", "the third"], strict=True):
        weights = torch.eye(len(lattice))
        weights[:, chosen] = 1.0
        errors = form.weighted_errors(weights).mean(1)
        chosen.append(int(errors.argmin()))
        show(panel, errors.reshape(side, side), title, below="bright: less error", cmap="magma_r", extent=(0, 1, 1, 0))
        panel.plot(*lattice[chosen[:-1]].T, "o", color="white", markersize=5, markeredgecolor=INK)
        panel.plot(*lattice[chosen[-1]], "*", color="#33d17a", markersize=11, markeredgecolor=INK)
    draw_counts(figure.add_subplot(grid[1, 1:]), model, problem, example.image)
    return figure


def draw_counts(axes: Any, model: Model, problem: Any, image: Any) -> None:
    """The least error of every count, judged on the same fresh draws."""
    bank = problem.draw(64, torch.Generator().manual_seed(2))
    counts = range(7)
    with torch.no_grad():
        errors = [problem.errors(infer(to_unit(image), model, count=k).conditions[None], bank)[0] for k in counts]
    means = [float(e.mean()) for e in errors]
    axes.plot(counts, means, "o-", color=INK, markersize=4, linewidth=1)
    best = min(counts, key=means.__getitem__)
    print("error by count:", {k: round(m, 2) for k, m in zip(counts, means, strict=True)}, "least at", best)
    axes.plot(best, means[best], "*", color="#33d17a", markersize=12, markeredgecolor=INK)
    axes.set_title("how many?", fontsize=11, color=INK, pad=5)
    axes.set_xlabel("objects", fontsize=WORDS, color=FAINT)
    axes.set_ylabel("least error", fontsize=WORDS, color=FAINT)
    axes.set_ylim(0)
    axes.tick_params(labelsize=WORDS, colors=FAINT)
    axes.spines[["top", "right"]].set_visible(False)


def scene(objects: int) -> Any:
    """A rendered scene that no training saw."""
    return find("datasets", "clevr")().examples(f"synthetic:{objects}", count=1, seed=12)[0]


if __name__ == "__main__":
    main()
